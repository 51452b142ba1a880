package sim

import (
	"slices"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

// managedKinds are faults of Pacemaker and corosync, and what operators do by them.
var managedKinds = []kind{
	{name: "corosync-partition", begin: func(w *World, n *node, a Act) func() { return w.ring.block(split(w, n, a.Much)) }},
	{name: "corosync-isolated", begin: func(w *World, n *node, _ Act) func() {
		return w.ring.block(func(x, y *node) bool { return x == n || y == n })
	}},
	{name: "raft-partition", begin: func(w *World, n *node, a Act) func() { return cutOurs(w, split(w, n, a.Much)) }},
	{name: "other-majorities", begin: func(w *World, n *node, a Act) func() {
		ring := w.ring.block(split(w, n, 45))
		ours := cutOurs(w, split(w, w.nodes[(n.id+1+a.Much%(len(w.nodes)-1))%len(w.nodes)], 45))
		return func() { ring(); ours() }
	}},
	{name: "pacemaker-killed", begin: func(w *World, n *node, a Act) func() {
		n.endPacemaker()
		w.on(n, w.between(300*time.Millisecond, time.Second+a.For/4), n.startPacemaker)
		return nil
	}},
	{name: "controld-killed", begin: func(w *World, n *node, _ Act) func() {
		if c := n.pcmk; c != nil {
			c.stepDown()
			c.away = true
			n.tellPartners()
			w.on(n, w.between(100*time.Millisecond, time.Second), func() {
				c.away = false
				n.membership()
				n.tellPartners()
			})
		}
		return nil
	}},
	{name: "attrd-late", begin: ofWrongs(func(f *wrongs, a Act) { f.attrdLate = time.Duration(a.Much) * 100 * time.Millisecond }, func(f *wrongs) { f.attrdLate = 0 })},
	{name: "attrd-lost", begin: ofWrongs(func(f *wrongs, a Act) { f.attrdLost = float64(a.Much) / 100 }, func(f *wrongs) { f.attrdLost = 0 })},
	{name: "attrd-stale", begin: attrdStale},
	{name: "agents-killed", begin: func(_ *World, n *node, _ Act) func() {
		for _, p := range n.acting {
			p.kill()
		}
		n.agents.stir()
		return nil
	}},
	{name: "agents-hang", begin: ofWrongs(func(f *wrongs, _ Act) { f.agents = true }, func(f *wrongs) { f.agents = false })},
	{name: "fence-twice", begin: fenceTwice},
	{name: "op-standby", begin: configured(func(c *conf, n *node, _ core.ServiceName) { c.standby[n.name] = true }, func(c *conf, n *node, _ core.ServiceName) { delete(c.standby, n.name) })},
	{name: "op-move", begin: configured(func(c *conf, n *node, s core.ServiceName) { c.moves[s] = n.name }, func(c *conf, _ *node, s core.ServiceName) { delete(c.moves, s) })},
	{name: "op-unmanage", begin: configured(func(c *conf, _ *node, s core.ServiceName) { c.unmanaged[s] = true }, func(c *conf, _ *node, s core.ServiceName) { delete(c.unmanaged, s) })},
	{name: "op-maintenance-mode", begin: configured(func(c *conf, _ *node, _ core.ServiceName) { c.maintenance = true }, func(c *conf, _ *node, _ core.ServiceName) { c.maintenance = false })},
	{name: "op-stop-container", begin: configured(func(c *conf, _ *node, s core.ServiceName) { c.stopped[containerOf(s)] = true }, func(c *conf, _ *node, s core.ServiceName) { delete(c.stopped, containerOf(s)) })},
	{name: "op-cleanup", begin: cleanup},
	{name: "controller-stopped", begin: configured(func(c *conf, _ *node, _ core.ServiceName) { c.stopped[controllerID] = true }, func(c *conf, _ *node, _ core.ServiceName) { delete(c.stopped, controllerID) })},
	{name: "cluster-stop", begin: clusterStop},
}

// managedLosing cost a service its holder, or Pacemaker its DC, as a rule.
var managedLosing = []string{"corosync-isolated", "corosync-partition", "other-majorities", "pacemaker-killed", "raft-partition", "op-standby", "power-cut", "power-cut", "pause"}

// unmanaged are the kinds that any cluster has.
var unmanaged = slices.Concat(kinds, diskKinds)

func init() {
	kinds = slices.Concat(unmanaged, managedKinds, watchdogKinds)
}

// split is a partition with about so many percent of the nodes on n's side.
func split(w *World, n *node, percent int) func(a, b *node) bool {
	side := func(x *node) bool { return (x.id-n.id+len(w.nodes))%len(w.nodes) <= percent*len(w.nodes)/100 }
	return func(a, b *node) bool { return side(a) != side(b) }
}

// cutOurs stops what keepone's daemons and guards send, and nothing else.
func cutOurs(w *World, pick func(a, b *node) bool) func() {
	w.net.rough = true
	set := func(on bool) {
		for _, a := range w.nodes {
			for _, b := range w.nodes {
				if a != b && pick(a, b) {
					w.net.ours[[2]int{a.id, b.id}] = on
				}
			}
		}
		w.net.changed()
	}
	set(true)
	return func() { set(false) }
}

func ofWrongs(set func(*wrongs, Act), mend func(*wrongs)) func(*World, *node, Act) func() {
	return func(_ *World, n *node, a Act) func() {
		set(&n.wrong, a)
		return func() { mend(&n.wrong) }
	}
}

// configured is an operator's change of the configuration, made at some node, until it is taken back.
func configured(set, undo func(*conf, *node, core.ServiceName)) func(*World, *node, Act) func() {
	return func(w *World, n *node, a Act) func() {
		s := service(a.Much % w.shape.Services)
		at := w.nodes[a.Much%len(w.nodes)]
		at.configure(func(c *conf) { set(c, n, s) })
		return func() {
			for _, m := range w.nodes {
				m.configure(func(c *conf) { undo(c, n, s) })
			}
		}
	}
}

// attrdStale has every node believe an older value of a node's attributes, until it is said anew.
func attrdStale(w *World, n *node, a Act) func() {
	for _, m := range w.nodes {
		if m == n || m.pcmk == nil {
			continue
		}
		for name, v := range m.pcmk.attrs[n.name] {
			m.pcmk.attrs[n.name][name] = attribute{value: []string{"0", "90", "1000"}[a.Much%3], seq: v.seq - 1}
		}
		m.pcmk.poke()
	}
	return func() { n.sayAttributes() }
}

// fenceTwice is two people who have one node fenced at once.
func fenceTwice(w *World, n *node, a Act) func() {
	for i := range 2 {
		by := w.nodes[(n.id+1+i+a.Much)%len(w.nodes)]
		if by == n || by.pcmk == nil {
			continue
		}
		by.shoot(n, func(fenced bool) {
			if fenced {
				by.gone(n)
			}
		})
	}
	return nil
}

// cleanup is `pcs resource cleanup`: all is forgotten, and looked for anew.
func cleanup(_ *World, n *node, _ Act) func() {
	for _, m := range n.partners() {
		if m.pcmk != nil {
			m.pcmk.history = map[string]place{}
			m.membership()
		}
	}
	return nil
}

// clusterStop is `pcs cluster stop` on a node, and a start once it is mended.
func clusterStop(w *World, n *node, _ Act) func() {
	c := n.pcmk
	if c == nil {
		return nil
	}
	n.stays = true
	n.configure(func(f *conf) { f.standby[n.name] = true })
	c.brain.run(func(p *process) {
		p.await(2*time.Minute, func() bool { return c.idle() })
		if c.idle() {
			w.on(n, 0, n.leave)
		}
	})
	return func() {
		n.stays = false
		w.on(n, time.Second, n.startPacemaker)
		for _, m := range w.nodes {
			m.configure(func(f *conf) { delete(f.standby, n.name) })
		}
	}
}
