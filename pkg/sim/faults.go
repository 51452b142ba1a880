package sim

import (
	"slices"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/drive/ipmi"
)

// kind is one kind of fault.
type kind struct {
	name string
	// begin has it happen to a node, and returns what mends it; nil: it is over at once, or the healing mends it.
	begin func(w *World, n *node, a Act) (mend func())
	// bound: where it is the only fault, every service answers again within this; 0: no such promise.
	bound time.Duration
}

// faultSet is what is wrong now.
type faultSet struct {
	mends []*func()
	seen  map[string]bool
}

func newFaultSet() *faultSet { return &faultSet{seen: map[string]bool{}} }

// losing are the kinds that cost a service its holder as a rule.
var losing = []string{"power-cut", "power-cut", "power-cut", "reboot", "isolate", "cut-off", "pause", "pause", "suspend", "crash"}

// kinds of fault, in no order.
var kinds = []kind{
	{name: "loss", begin: rough(func(t *network, n *node, a Act) { t.loss[n.id] = float64(a.Much) / 150 })},
	{name: "delay", begin: rough(func(t *network, n *node, a Act) { t.delay[n.id] = time.Duration(a.Much) * 5 * time.Millisecond })},
	{name: "duplicate", begin: rough(func(t *network, n *node, a Act) { t.twice[n.id] = float64(a.Much) / 100 })},
	{name: "reorder", begin: rough(func(t *network, n *node, a Act) { t.mixed[n.id] = time.Duration(a.Much) * 20 * time.Millisecond })},
	{name: "one-way", begin: oneWay},
	{name: "link-down", begin: linkDown, bound: 5 * time.Second},
	{name: "link-flap", begin: linkFlap},
	{name: "isolate", begin: isolate},
	{name: "cut-off", begin: cutFromPeers},
	{name: "partition", begin: partition},
	{name: "crash", begin: func(w *World, n *node, a Act) func() { n.restartDaemon(a.For / 8); return nil }, bound: 20 * time.Second},
	{name: "daemon-down", begin: daemonDown},
	{name: "daemon-hangs", begin: daemonHangs},
	{name: "guard-killed", begin: func(_ *World, n *node, _ Act) func() { n.killGuard(); return nil }, bound: 20 * time.Second},
	{name: "guard-forgets", begin: guardForgets},
	{name: "power-cut", begin: func(_ *World, n *node, _ Act) func() { n.cut(); return nil }},
	{name: "reboot", begin: reboot},
	{name: "reboot-storm", begin: rebootStorm},
	{name: "pause", begin: func(_ *World, n *node, _ Act) func() { n.pause(); return n.resume }},
	{name: "suspend", begin: suspend},
	{name: "stutter", begin: stutter},
	{name: "slow-node", begin: func(_ *World, n *node, a Act) func() {
		n.slow = 1 + float64(a.Much)/12
		return func() { n.slow, n.tamed = 0, n.w.now }
	}},
	{name: "clock-rate", begin: func(_ *World, n *node, a Act) func() { n.setRate(int64(a.Much-50) * 18); return nil }, bound: 5 * time.Second},
	{name: "clock-jump", begin: clockJump, bound: 5 * time.Second},
	{name: "disk-full", begin: diskFull},
	{name: "fsync-lost", begin: func(_ *World, n *node, _ Act) func() { n.disk.lazy = true; return func() { n.disk.lazy = false } }},
	{name: "log-torn", begin: func(_ *World, n *node, _ Act) func() { n.disk.torn = true; return func() { n.disk.torn = false } }},
	{name: "bmc-dead", begin: ofBMC(func(b *bmc, _ Act) { b.dead = true })},
	{name: "bmc-slow", begin: ofBMC(func(b *bmc, a Act) { b.slow = time.Duration(a.Much) * 50 * time.Millisecond })},
	{name: "bmc-lies", begin: ofBMC(func(b *bmc, _ Act) { b.lies = true })},
	{name: "bmc-flaps", begin: ofBMC(func(b *bmc, _ Act) { b.flaps = true })},
	{name: "bmc-swapped", begin: ofBMC(func(b *bmc, a Act) { b.swapped = b.n.w.nodes[a.Much%len(b.n.w.nodes)] })},
	{name: "bmc-password", begin: ofBMC(func(b *bmc, _ Act) { b.refuses = ipmi.ErrPassword })},
	{name: "bmc-sessions", begin: ofBMC(func(b *bmc, _ Act) { b.refuses = ipmi.ErrBusy })},
	{name: "bmc-answer-lost", begin: ofBMC(func(b *bmc, _ Act) { b.silent = true })},
	{name: "bmc-lags", begin: ofBMC(func(b *bmc, a Act) { b.lag = time.Duration(a.Much) * 50 * time.Millisecond })},
	{name: "ceph-slow", begin: func(w *World, _ *node, a Act) func() {
		w.ceph.slow = time.Duration(a.Much) * 20 * time.Millisecond
		return func() { w.ceph.slow = 0 }
	}},
	{name: "ceph-away", begin: func(w *World, _ *node, _ Act) func() { w.ceph.away = true; return func() { w.ceph.away = false } }},
	{name: "mons-stall", begin: func(w *World, _ *node, a Act) func() { w.ceph.stall = w.now + a.For; return nil }},
	{name: "osdmaps-late", begin: func(w *World, _ *node, a Act) func() {
		w.ceph.late = time.Duration(a.Much) * 200 * time.Millisecond
		return func() { w.ceph.late = 0 }
	}},
	{name: "blocklist-refused", begin: func(w *World, _ *node, _ Act) func() { w.ceph.refuses = true; return func() { w.ceph.refuses = false } }},
	{name: "stranger", begin: stranger},
	{name: "watcher-lingers", begin: func(w *World, _ *node, a Act) func() {
		for _, img := range w.ceph.images {
			img.lingers = time.Duration(a.Much) * 100 * time.Millisecond
		}
		return func() {
			for _, img := range w.ceph.images {
				img.lingers = 0
			}
		}
	}},
	{name: "unmount-hangs", begin: ofNode(func(f *wrongs, on bool) { f.unmount = on })},
	{name: "container-stubborn", begin: ofNode(func(f *wrongs, on bool) { f.container.stubborn = on })},
	{name: "container-undying", begin: ofNode(func(f *wrongs, on bool) { f.container.undying = on })},
	{name: "start-fails", begin: ofNode(func(f *wrongs, on bool) { f.container.failing = on })},
	{name: "front-end-sick", begin: ofNode(func(f *wrongs, on bool) { f.container.sick = on })},
	{name: "container-dies", begin: containerDies, bound: 20 * time.Second},
	{name: "mapper-dies", begin: mapperDies},
	{name: "stopped-locally", begin: stoppedLocally},
	{name: "ask-switchover", begin: ask(core.RequestSwitchover)},
	{name: "ask-failover", begin: ask(core.RequestFailover)},
	{name: "ask-drain", begin: ask(core.RequestDrain)},
	{name: "ask-undrain", begin: ask(core.RequestUndrain)},
	{name: "ask-stop", begin: ask(core.RequestStop)},
	{name: "ask-start", begin: ask(core.RequestStart)},
	{name: "ask-restart", begin: ask(core.RequestRestart)},
	{name: "ask-fence", begin: ask(core.RequestFence)},
	{name: "ask-confirm", begin: ask(core.RequestFenceConfirm)},
	{name: "ask-maintenance", begin: ask(core.RequestMaintenance)},
	{name: "ask-maintenance-off", begin: ask(core.RequestMaintainOff)},
	{name: "config-change", begin: configChange, bound: 5 * time.Second},
	{name: "member-change", begin: memberChange, bound: 5 * time.Second},
	{name: "leader-change", begin: leaderChange, bound: 5 * time.Second},
	{name: "image-ahead", begin: imageAhead},
	{name: "upgrade", begin: upgrade},
}

func kindOf(name string) kind {
	if i := slices.IndexFunc(kinds, func(k kind) bool { return k.name == name }); i >= 0 {
		return kinds[i]
	}
	return kind{}
}

// strike has a fault begin, and end when its time is over.
func (w *World) strike(a Act) {
	n := w.where(a.Where)
	if n == nil {
		return
	}
	w.faults.seen[a.Kind] = true
	w.say("fault %s %s for %s much %d", a.Kind, n.name, a.For, a.Much)
	mend := kindOf(a.Kind).begin(w, n, a)
	if mend == nil {
		return
	}
	once := &mend
	w.faults.mends = append(w.faults.mends, once)
	w.at(a.For, func() { w.mend(once) })
}

func (w *World) mend(once *func()) {
	if *once != nil {
		f := *once
		*once = nil
		f()
	}
}

// where finds the node that an act is about.
func (w *World) where(name string) *node {
	switch name {
	case "holder":
		if g := w.raft.newest().Services[service(0)].Grant; g != nil {
			return w.names[g.Node]
		}
		return w.nodes[0]
	case "leader":
		if w.raft.leader != nil {
			return w.raft.leader
		}
		return w.nodes[0]
	}
	if name == "dc" {
		for _, n := range w.nodes {
			if n.pcmk != nil && n.pcmk.leads {
				return n
			}
		}
		return w.nodes[0]
	}
	return w.names[core.NodeName(name)]
}

// heal mends everything, and does what an operator does afterwards: boots what is off, takes back what was asked.
func (w *World) heal() {
	w.say("all is mended")
	for _, once := range w.faults.mends {
		w.mend(once)
	}
	w.faults.mends = nil
	w.net.heal()
	if w.managed() {
		w.ring.heal()
	}
	for _, n := range w.nodes {
		n.resume()
		n.boot()
		n.wrong, n.slow = wrongs{}, 0
		n.tamed = w.now
		if n.out {
			n.out = false
			w.rejoin(n)
		}
		if n.daemon == nil {
			w.on(n, time.Second, n.startDaemon)
		}
		n.stays = false
		if n.pcmk == nil && w.managed() {
			w.on(n, 20*time.Second, n.startPacemaker)
		}
	}
	for _, img := range w.ceph.images {
		if img.owner == strangerAddr {
			img.owner = ""
		}
	}
	w.net.changed()
}

// tidy takes back what operators had put aside, as often as it takes: an answer may be lost.
func (w *World) tidy() {
	s := w.raft.newest()
	if w.raft.forgot {
		w.claim()
	}
	for _, n := range w.nodes {
		if w.managed() {
			n.configure((*conf).clear)
		}
		if s.Nodes[n.name].Standby {
			w.ask(core.Ask{What: core.RequestUndrain, Node: n.name})
		}
		member, ok := s.Nodes[n.name]
		if !ok {
			n.out = false
			w.rejoin(n)
			n.startIfUp()
		}
		if member.Life == core.LifeFenced && member.Instance == n.life {
			n.cut() // it lives although its BMC said off: only another life of it can come back
		}
		if !n.power {
			n.boot() // shot by a fence that was still open
		}
	}
	for name := range w.ceph.images {
		if s.Services[service(name)].Stopped {
			w.ask(core.Ask{What: core.RequestStart, Service: service(name)})
		}
	}
	if s.Maintenance.On {
		w.ask(core.Ask{What: core.RequestMaintainOff})
	}
}

// ask is an operator's wish at some node whose daemon answers.
func (w *World) ask(c core.Ask) {
	if w.managed() && w.drive(c) {
		return
	}
	c.By = "operator"
	for range 5 {
		n := w.nodes[w.rng.IntN(len(w.nodes))]
		if n.daemon != nil && n.alive() && n.daemon.ready {
			d := n.daemon
			n.spawn(d, func(p *process) { d.propose(p, c, 3*time.Second) })
			return
		}
	}
}
