package sim

import (
	"time"

	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/guard"
	"github.com/keepone-ha/keepone/pkg/observe"
)

const (
	forever     = 1000 * time.Hour
	ackGather   = 200 * time.Millisecond
	reportEvery = 800 * time.Millisecond
	readyEvery  = 2 * time.Second
	readAgain   = 200 * time.Millisecond
	readLimit   = 2 * time.Second
	preferAfter = 2 * time.Second
	decideLimit = 3 * time.Second
)

// daemon is one run of keeponed on a node.
type daemon struct {
	program
	observer *observe.Observer

	applied   uint64
	appliedAt boottime.Time
	ready     bool // has heard from a leader, or led, since it started
	told      bool // is about to learn what is committed
	changed   uint64
	hint      *node // who leads, as far as it knows
	leads     bool
	barrier   bool // and has passed its barrier
	term      uint64
	log       []*entry
	wall      time.Duration // how far the wall clock is off

	beats   []guard.Arrival
	urgent  bool
	last    map[core.NodeName]guard.Arrival
	wake    bool // the leader is to decide now
	report  bool // is to be sent now
	can     map[core.ServiceName]core.Ready
	reading map[core.NodeName]bool
	begun   map[uint64]int // the newest attempt of each fence
	runners map[core.ServiceName]bool
	duties  // of a daemon under a cluster manager
}

// startDaemon starts keeponed, which finds its log and whatever runs here.
func (n *node) startDaemon() {
	if n.daemon != nil || n.wrong.diskFull || n.out {
		return
	}
	r := n.w.raft
	d := &daemon{
		program: program{n: n}, wall: n.wall, last: map[core.NodeName]guard.Arrival{}, can: map[core.ServiceName]core.Ready{},
		reading: map[core.NodeName]bool{}, begun: map[uint64]int{}, runners: map[core.ServiceName]bool{},
	}
	d.applied = max(r.first, n.disk.stored-min(n.disk.stored, n.w.rng.Uint64N(20)))
	d.observer = observe.New(n.name, n.read(), func() { d.wake = true; d.stir() })
	n.daemon = d
	if n.w.managed() {
		d.serve()
	}
	n.spawn(d, d.answer)
	n.spawn(d, d.reports)
	n.spawn(d, d.watchStorage)
	n.w.net.changed()
}

// endDaemon is its death, in whatever it was doing. What runs goes on.
func (n *node) endDaemon() {
	d := n.daemon
	if d == nil {
		return
	}
	n.daemon = nil
	n.w.raft.lostLog(d)
	d.leads = false
	d.end()
	n.agents.stir()
	for _, h := range n.here {
		h.orphaned()
	}
	n.w.net.changed()
}

// restartDaemon is its death and systemd's answer.
func (n *node) restartDaemon(after time.Duration) {
	n.endDaemon()
	n.w.on(n, after, n.startDaemon)
}

func (d *daemon) state() *core.State { return d.n.w.raft.state(d.applied) }

// learned is what comes of a newer State: services to look after, fences to carry out.
func (d *daemon) learned() {
	s := d.state()
	d.wake = true
	for i, h := range d.n.here {
		g := s.Services[service(i)].Grant
		if (g != nil && g.Node == d.n.name && g.Instance == d.n.life || h.has) && !d.runners[h.name] {
			d.runners[h.name] = true
			d.n.spawn(d, (&runner{d: d, n: d.n, h: h}).run)
		}
	}
	for _, order := range s.Fences {
		if order.State == core.FenceRequested && order.Executor == d.n.name && d.begun[order.ID] < order.Attempt {
			d.begun[order.ID] = order.Attempt
			d.n.spawn(d, func(p *process) { d.fence(p, order) })
		}
	}
}

// heard takes a heartbeat up, as the daemon's receiver does: one that is late or replayed is dropped.
func (n *node) heard(h guard.Heartbeat, link int) {
	d := n.daemon
	if d == nil || d.hung {
		return
	}
	was := d.last[h.Node].Heartbeat
	if was.Instance == h.Instance && h.Seq < was.Seq {
		return
	}
	a := guard.Arrival{Link: link, At: n.read(), Heartbeat: h}
	d.observer.Heard(a)
	if was.Instance == h.Instance && h.Seq == was.Seq {
		return // it came over another link before
	}
	d.last[h.Node] = a
	if d.leads {
		d.beats = append(d.beats, a)
		if len(d.beats) == 1 {
			d.stir()
		}
	}
}

// answer acks heartbeats: they arrive, then the quorum is made sure of, then they are acked (I5).
func (d *daemon) answer(p *process) {
	for {
		p.await(forever, func() bool { return d.leads && len(d.beats) > 0 })
		p.await(ackGather, func() bool { return d.urgent })
		burst := d.beats
		d.beats, d.urgent = nil, false
		p.sleep(p.w.between(200*time.Microsecond, 800*time.Microsecond))
		if !p.w.raft.verified(d.n) {
			continue
		}
		for _, a := range burst {
			d.ack(a)
		}
	}
}

// acks is the ack of a heartbeat, noted before it is sent.
func (d *daemon) acks(a guard.Arrival) (guard.Ack, bool) {
	ack, ok := observe.Ack(*d.state(), a.Heartbeat, d.term, d.clusterNow())
	return ack, ok && d.observer.Acking(ack.Grants, a.At) && observe.StillAcks(*d.state(), ack)
}

func (d *daemon) ack(a guard.Arrival) {
	ack, ok := d.acks(a)
	if !ok {
		return
	}
	to := d.n.w.names[a.Heartbeat.Node]
	d.n.w.net.datagram(d.n, to, func(int) {
		if to.guard != nil {
			to.guard.ack(ack)
		}
	})
}

// ackAgain answers a node's newest heartbeat once more: a new grant has its lease now.
func (d *daemon) ackAgain(name core.NodeName) {
	if a, ok := d.last[name]; ok {
		d.beats, d.urgent = append(d.beats, a), true
		d.stir()
	}
}

// lead begins a leadership, once its barrier is passed.
func (d *daemon) lead(term uint64) {
	d.barrier = true
	d.observer.Lead(d.n.read(), d.state().Spec.Timing)
	d.n.spawn(d, func(p *process) { d.decides(p, term) })
}

// follow ends it.
func (d *daemon) follow() {
	if !d.leads {
		return
	}
	d.n.w.raft.lostLog(d)
	d.leads, d.barrier, d.beats = false, false, nil
	d.observer.Follow()
	d.stir()
	d.n.w.raft.reconsider()
}

// decides is the leader's loop.
func (d *daemon) decides(p *process, term uint64) {
	leads := func() bool { return d.leads && d.term == term }
	timing := d.state().Spec.Timing
	var wish core.NodeName
	var since time.Duration
	for leads() {
		state := *d.state()
		if grown := observe.Longer(timing, state.Spec.Timing); grown != timing {
			timing = grown
			d.observer.Lead(d.n.read(), timing)
		}
		d.readSuspects(state)
		view := d.observer.View(state, d.n.read(), d.n.w.raft.voterNames())
		view.CorosyncQuorate = d.corosyncQuorate()
		d.followMaintenance(state)
		d.wake = false
		d.commitAll(p, state, view, leads)
		if to := core.PreferLeader(state, view); to != wish {
			wish, since = to, p.w.now
		} else if to != "" && p.w.now-since > preferAfter {
			p.w.raft.transfer(d.n, p.w.names[to])
			since = p.w.now
		}
		p.await(observe.LookAgain(state, view), func() bool { return d.wake || !leads() })
	}
}

// commitAll proposes what core decided, in its order.
func (d *daemon) commitAll(p *process, state core.State, view core.View, leads func() bool) {
	for _, c := range core.Decide(state, view, d.clusterNow()) {
		if !leads() || d.propose(p, c, decideLimit) != core.Done {
			return
		}
		if give, ok := c.(core.Give); ok {
			d.ackAgain(give.Node)
		}
	}
}

// propose has the leader commit c, as replica.Propose does: it looks for a leader until the bound has passed.
func (d *daemon) propose(p *process, c core.Command, bound time.Duration) core.Outcome {
	until := p.w.now + bound
	for p.w.now < until {
		l := d.hint
		if l == nil || l.daemon == nil || l != d.n && !p.w.net.connected(d.n, l) {
			p.sleep(100 * time.Millisecond)
			continue
		}
		if l == d.n {
			if e, ok := p.w.raft.append(d.n, d.n.name, c); ok {
				return d.committed(p, e, until)
			}
		} else if outcome, tried := d.forward(p, l, c, until); tried {
			return outcome
		}
		p.sleep(50 * time.Millisecond)
	}
	return core.Refused
}

// committed waits for what becomes of an entry.
func (d *daemon) committed(p *process, e *entry, until time.Duration) core.Outcome {
	if !p.await(until-p.w.now, func() bool { return e.done }) {
		return core.Unknown
	}
	if e.err != nil {
		return core.Refused
	}
	return core.Done
}

// forward proposes through the leader. tried is false if it certainly never got there.
func (d *daemon) forward(p *process, l *node, c core.Command, until time.Duration) (core.Outcome, bool) {
	p.sleep(p.w.net.latency(d.n, l))
	if !p.w.net.connected(d.n, l) || l.daemon == nil || !l.daemon.leads {
		return core.Refused, false
	}
	if core.Authority(*l.daemon.state(), d.n.name, l.name, c) != nil {
		return core.Refused, true
	}
	e, ok := p.w.raft.append(l, d.n.name, c)
	if !ok {
		return core.Refused, false
	}
	for !e.done {
		if p.w.now >= until {
			return core.Unknown, true
		}
		p.sleep(min(2*time.Millisecond, until-p.w.now))
	}
	p.sleep(p.w.net.latency(l, d.n))
	switch {
	case !p.w.net.connected(d.n, l):
		return core.Unknown, true
	case e.err != nil:
		return core.Refused, true
	}
	p.await(time.Second, func() bool { return d.applied >= e.index })
	return core.Done, true
}

// reports tells the leader about this node, again and again and at once when something changed.
func (d *daemon) reports(p *process) {
	for {
		changed := d.changed
		if l := d.hint; l != nil && l.daemon != nil && p.w.net.connected(d.n, l) && !d.hung {
			report := d.says()
			p.sleep(p.w.net.latency(d.n, l))
			if to := l.daemon; to != nil && p.w.net.connected(d.n, l) {
				p.w.on(l, 0, func() {
					if l.daemon == to {
						to.observer.Reported(d.n.name, l.read(), report)
						to.judge(d)
					}
				})
			}
		}
		d.report = false
		p.await(reportEvery, func() bool { return d.report || d.changed != changed && p.w.managed() })
	}
}

func (d *daemon) says() core.Report {
	r := core.Report{Instance: d.n.life, Ready: map[core.ServiceName]core.Ready{}, Version: "sim"}
	if d.n.older {
		r.Version, r.Digest = "", ""
	}
	if d.claims != nil {
		r.Claims = d.claims.All()
	}
	for _, h := range d.n.here {
		if h.has && (!h.facts().Idle() || h.stopping) {
			r.Holds = append(r.Holds, core.Target{Service: h.name, Epoch: h.rec.Epoch})
		}
		if ready, ok := d.can[h.name]; ok {
			r.Ready[h.name] = ready
		}
	}
	return r
}

// watchStorage keeps saying whether this node could take each service.
func (d *daemon) watchStorage(p *process) {
	for {
		for i := range d.n.here {
			now := d.look(p, i)
			if was, ok := d.can[service(i)]; !ok || was != now {
				d.can[service(i)] = now
				d.report = true
				d.stir()
			}
		}
		p.sleep(readyEvery)
	}
}

func (d *daemon) look(p *process, i int) core.Ready {
	img := p.w.ceph.images[i]
	if err := p.w.ceph.ask(p, nil, false); err != nil {
		return core.Ready{Reason: err.Error()}
	}
	if !p.w.net.reachesCeph(d.n) {
		return core.Ready{Reason: "Ceph does not answer"}
	}
	if p.w.ceph.refuses {
		return core.Ready{Reason: "the keyring may not blocklist", Epoch: img.epoch}
	}
	if img.owner == strangerAddr {
		return core.Ready{Reason: "locked by a stranger", Epoch: img.epoch}
	}
	return core.Ready{OK: true, Epoch: img.epoch}
}

func (r *raft) voterNames() []core.NodeName {
	names := make([]core.NodeName, len(r.voters))
	for i, v := range r.voters {
		names[i] = v.name
	}
	return names
}
