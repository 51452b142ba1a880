package sim

import (
	"fmt"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

// rough is a fault of a node's messages.
func rough(set func(*network, *node, Act)) func(*World, *node, Act) func() {
	return func(w *World, n *node, a Act) func() {
		w.net.rough = true
		set(w.net, n, a)
		w.net.changed()
		return func() {
			delete(w.net.loss, n.id)
			delete(w.net.delay, n.id)
			delete(w.net.twice, n.id)
			delete(w.net.mixed, n.id)
			w.net.changed()
		}
	}
}

// block stops what goes from a to b on every link.
func (t *network) block(a, b *node, on bool) {
	for link := range links {
		if on {
			t.blocks[[3]int{a.id, b.id, link}] = true
		} else {
			delete(t.blocks, [3]int{a.id, b.id, link})
		}
	}
}

// among blocks what pick names between two nodes, until it is mended.
func among(w *World, pick func(a, b *node) bool) func() {
	w.net.rough = true
	set := func(on bool) {
		for _, a := range w.nodes {
			for _, b := range w.nodes {
				if a != b && pick(a, b) {
					w.net.block(a, b, on)
				}
			}
		}
		w.net.changed()
	}
	set(true)
	return func() { set(false) }
}

func oneWay(w *World, n *node, a Act) func() {
	out := a.Much%2 == 0
	return among(w, func(from, to *node) bool { return out && from == n || !out && to == n })
}

// cutFromPeers leaves the node's way to Ceph as it is: it can write, and nobody hears it.
func cutFromPeers(w *World, n *node, _ Act) func() {
	return among(w, func(from, to *node) bool { return from == n || to == n })
}

func partition(w *World, n *node, a Act) func() {
	side := func(x *node) bool { return (x.id-n.id+len(w.nodes))%len(w.nodes) <= a.Much*len(w.nodes)/100 }
	return among(w, func(from, to *node) bool { return side(from) != side(to) })
}

func setLink(w *World, n *node, link int, down bool) {
	w.net.rough = true
	if down {
		w.net.down[[2]int{n.id, link}] = true
	} else {
		delete(w.net.down, [2]int{n.id, link})
	}
	w.net.changed()
}

func linkDown(w *World, n *node, a Act) func() {
	setLink(w, n, a.Much%links, true)
	return func() { setLink(w, n, a.Much%links, false) }
}

func isolate(w *World, n *node, _ Act) func() {
	for link := range links {
		setLink(w, n, link, true)
	}
	return func() {
		for link := range links {
			setLink(w, n, link, false)
		}
	}
}

func linkFlap(w *World, n *node, a Act) func() {
	on := true
	var flap func()
	flap = func() {
		for link := range links {
			setLink(w, n, link, on && w.chance(0.6))
		}
		if on {
			w.at(w.between(50*time.Millisecond, time.Duration(a.Much)*40*time.Millisecond), flap)
		}
	}
	flap()
	return func() { on = false; flap() }
}

func daemonDown(_ *World, n *node, _ Act) func() {
	n.endDaemon()
	return n.startIfUp
}

// startIfUp starts the daemon of a node that has power.
func (n *node) startIfUp() {
	if n.power {
		n.w.on(n, 100*time.Millisecond, n.startDaemon)
	}
}

func daemonHangs(w *World, n *node, _ Act) func() {
	d := n.daemon
	if d == nil {
		return nil
	}
	d.hung = true
	w.net.changed()
	return func() {
		d.goOn()
		w.net.changed()
	}
}

func guardForgets(_ *World, n *node, _ Act) func() {
	n.wrong.leases = true
	n.killGuard()
	return func() { n.wrong.leases = false }
}

func reboot(w *World, n *node, a Act) func() {
	n.cut()
	w.at(a.For/4, n.boot)
	return nil
}

func rebootStorm(w *World, n *node, a Act) func() {
	for i := range w.nodes {
		if x := w.nodes[(n.id+i)%len(w.nodes)]; i*100 <= a.Much*len(w.nodes) {
			w.at(w.between(0, 2*time.Second), x.cut)
			w.at(w.between(3*time.Second, 3*time.Second+a.For), x.boot)
		}
	}
	return nil
}

// suspend is a pause of more than any lease.
func suspend(w *World, n *node, a Act) func() {
	n.pause()
	w.at(8*time.Second+a.For, n.resume)
	return nil
}

// stutter is many short pauses.
func stutter(w *World, n *node, a Act) func() {
	on := true
	var next func()
	next = func() {
		if !on {
			return
		}
		n.pause()
		w.at(w.between(10*time.Millisecond, time.Duration(a.Much)*40*time.Millisecond), n.resume)
		w.at(w.between(time.Second, 5*time.Second), next)
	}
	next()
	return func() { on = false; n.resume() }
}

func clockJump(_ *World, n *node, a Act) func() {
	n.wall += time.Duration(a.Much-50) * time.Hour
	if n.daemon != nil {
		n.daemon.wall = n.wall
	}
	return nil
}

func diskFull(_ *World, n *node, _ Act) func() {
	n.wrong.diskFull = true
	n.endDaemon()
	return func() { n.wrong.diskFull = false; n.startIfUp() }
}

// ofBMC is a fault of a node's BMC.
func ofBMC(set func(*bmc, Act)) func(*World, *node, Act) func() {
	return func(_ *World, n *node, a Act) func() {
		set(n.bmc, a)
		return func() {
			lied := n.bmc.lied
			n.bmc = newBMC(n)
			n.bmc.lied = lied
		}
	}
}

// ofNode is a fault of what runs on a node.
func ofNode(set func(*wrongs, bool)) func(*World, *node, Act) func() {
	return func(w *World, n *node, _ Act) func() {
		set(&n.wrong, true)
		return func() { set(&n.wrong, false); n.tamed = w.now }
	}
}

func stranger(w *World, _ *node, a Act) func() {
	img := w.ceph.images[a.Much%len(w.ceph.images)]
	if img.owner != "" {
		return nil
	}
	img.owner = strangerAddr
	return func() {
		if img.owner == strangerAddr {
			img.owner = ""
		}
	}
}

func containerDies(_ *World, n *node, _ Act) func() {
	for _, h := range n.here {
		h.end()
	}
	return nil
}

func mapperDies(_ *World, n *node, _ Act) func() {
	for _, h := range n.here {
		h.client.vanish()
	}
	return nil
}

// stoppedLocally is `keepone service stop --local`: it needs nothing, and works beside whatever goes on.
func stoppedLocally(w *World, n *node, a Act) func() {
	h := n.here[a.Much%len(n.here)]
	if !h.has || !n.alive() || n.daemon == nil || h.stopping {
		return nil
	}
	n.spawn(n.daemon, func(p *process) { h.stop(p, 2*time.Second, false) })
	return nil
}

// ask is an operator's wish for the node or the service, whatever else goes on.
func ask(what core.RequestKind) func(*World, *node, Act) func() {
	return func(w *World, n *node, a Act) func() {
		c := core.Ask{What: what, Service: service(a.Much % w.shape.Services)}
		switch what {
		case core.RequestDrain, core.RequestUndrain, core.RequestFence:
			c.Service, c.Node = "", n.name
		case core.RequestFenceConfirm:
			if n.power {
				return nil // an operator who vouches for what is not so breaks every promise
			}
			c.Service, c.Node = "", n.name
		case core.RequestMaintenance:
			c.Service, c.For = "", a.For+time.Second
		case core.RequestMaintainOff:
			c.Service = ""
		case core.RequestSwitchover, core.RequestFailover, core.RequestStart, core.RequestStop, core.RequestRestart:
		}
		w.ask(c)
		return nil
	}
}

// commit is a command that an operator's tool proposes at a node.
func (w *World) commit(n *node, make func(core.State) core.Command) {
	d := n.daemon
	if d == nil || !n.alive() {
		return
	}
	n.spawn(d, func(p *process) { d.propose(p, make(*d.state()), 3*time.Second) })
}

func configChange(w *World, n *node, a Act) func() {
	w.commit(n, func(s core.State) core.Command {
		spec := s.Spec
		spec.Timing.Lease = time.Duration(2000+30*a.Much) * time.Millisecond
		spec.Timing.Down = spec.Timing.Lease
		return core.Configure{Expect: s.Document.Version, Document: s.Document, Spec: spec}
	})
	return nil
}

// memberChange takes a node out that does not vote; healing brings it back with an empty disk.
func memberChange(w *World, _ *node, a Act) func() {
	n := w.nodes[a.Much%len(w.nodes)]
	if w.raft.votes(n) {
		return nil
	}
	w.commit(w.raft.voters[0], func(core.State) core.Command { return core.Leave{Node: n.name} })
	w.at(time.Second, func() {
		if _, member := w.raft.newest().Nodes[n.name]; !member {
			n.out = true
			n.endDaemon()
		}
	})
	return nil
}

func (w *World) rejoin(n *node) {
	id := fmt.Sprintf("%s/%d", n.name, w.queue.seq)
	w.commit(w.raft.voters[0], func(core.State) core.Command {
		return core.IssueToken{ID: id, Hash: id, Node: n.name, For: time.Hour}
	})
	w.at(3*time.Second, func() {
		w.commit(w.raft.voters[0], func(core.State) core.Command {
			return core.Join{Node: n.name, Incarnation: id, TokenID: id, TokenHash: id}
		})
	})
}

func leaderChange(w *World, _ *node, a Act) func() {
	if l := w.raft.leader; l != nil && l.daemon != nil && l.daemon.leads {
		w.raft.transfer(l, w.raft.voters[a.Much%len(w.raft.voters)])
	}
	return nil
}

// imageAhead is a cluster that was restored from a backup: the image carries grants that State has forgotten.
func imageAhead(w *World, _ *node, a Act) func() {
	i := a.Much % w.shape.Services
	w.ask(core.Ask{What: core.RequestStop, Service: service(i)})
	w.at(a.For, func() {
		if w.raft.newest().Services[service(i)].Grant == nil && w.ceph.images[i].owner == "" {
			w.ceph.images[i].epoch += 1 + core.Epoch(a.Much)
		}
		w.ask(core.Ask{What: core.RequestStart, Service: service(i)})
	})
	return nil
}

// upgrade restarts daemon and guard of each node in turn.
func upgrade(w *World, _ *node, a Act) func() {
	for i, n := range w.nodes {
		w.at(time.Duration(i*a.Much)*20*time.Millisecond, func() {
			if n.power && n.daemon != nil {
				n.restartDaemon(w.between(200*time.Millisecond, 2*time.Second))
				n.killGuard()
			}
		})
	}
	return nil
}
