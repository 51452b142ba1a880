package sim

import (
	"time"

	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/guard"
)

const (
	beatEvery    = 200 * time.Millisecond
	daemonFresh  = 2 * time.Second
	containBound = 2 * time.Second // of the guard's own deadline, until it is called late
)

// guardian is a node's guard: the real leases, in a loop that never waits for anything but time.
type guardian struct {
	n      *node
	leases *guard.Leases
	seq    uint64
	held   []guarded // by service
	poked  boottime.Time
	due    time.Duration // when a deadline is looked at next
	hung   bool          // its loop goes round no more
}

// guarded is a service that has a record here.
type guarded struct {
	right   guard.Right
	attempt int
	state   guard.HeldState
	busy    bool
	retry   boottime.Time
}

// startGuard starts a guard with what an earlier one of this life has left.
func (n *node) startGuard() {
	g := &guardian{n: n, leases: guard.NewLeases(3 * time.Second), held: make([]guarded, len(n.here)), poked: n.read().Add(-daemonFresh)}
	n.guard, n.tamed = g, n.w.now
	if n.memory != nil && !n.wrong.leases {
		if err := g.leases.Decode(string(n.memory)); err != nil {
			panic(err)
		}
	} else {
		for _, h := range n.here { // nothing is known: what has a record gets no grace
			if h.has {
				g.leases.See(h.right(), max(0, n.read().Add(-time.Hour)))
			}
		}
	}
	g.expire()
	g.beat()
}

// killGuard ends it; systemd starts the next.
func (n *node) killGuard() {
	if n.guard == nil {
		return
	}
	n.w.say("the guard of %s is killed", n.name)
	n.memory = n.guard.leases.Encode()
	n.guard = nil
	n.w.on(n, n.w.between(100*time.Millisecond, 1500*time.Millisecond), n.startGuard)
}

// beat looks, contains, and sends a heartbeat to every node.
func (g *guardian) beat() {
	n := g.n
	if n.guard != g || g.hung {
		return
	}
	w := n.w
	now := n.read()
	if n.daemon != nil && !n.daemon.hung {
		g.poked = now
	}
	g.scan(now)
	g.expire()
	g.leases.Forget(now, func(r guard.Right) bool {
		for _, s := range g.held {
			if s.right == r {
				return true
			}
		}
		return false
	})
	g.seq = max(g.seq+1, uint64(now))
	h := g.heartbeat(now)
	g.leases.Sent(h.Seq, h.Sent)
	for _, peer := range w.nodes {
		if peer.power {
			w.net.datagram(n, peer, func(link int) { peer.heard(h, link) })
		}
	}
	g.pet(now)
	w.on(n, n.takes(beatEvery), g.beat)
}

func (g *guardian) heartbeat(now boottime.Time) guard.Heartbeat {
	var flags guard.Flags
	if now.Sub(g.poked) < daemonFresh {
		flags |= guard.DaemonHealthy
	}
	if g.leases.InMaintenance(now) {
		flags |= guard.MaintenanceAccepted
	}
	h := guard.Heartbeat{Cluster: "sim", Node: g.n.name, Instance: g.n.life, Seq: g.seq, Sent: now, Flags: flags}
	for _, s := range g.held {
		if s.right.Service != "" {
			h.Services = append(h.Services, guard.Held{Right: s.right, State: s.state})
		}
	}
	return h
}

// scan takes up the records that changed.
func (g *guardian) scan(now boottime.Time) {
	for i, h := range g.n.here {
		s := &g.held[i]
		switch {
		case !h.has || h.rec.Marks.Vacated:
			*s = guarded{}
			continue
		case s.right != h.right() || s.attempt != h.rec.Attempt:
			*s = guarded{right: h.right(), attempt: h.rec.Attempt, busy: s.busy}
		}
		if h.rec.Marks.Contained {
			s.state = guard.HeldContained
		}
		g.leases.See(s.right, now)
	}
}

// expire starts the containment of whatever has no lease any more, and looks again when the next one ends.
func (g *guardian) expire() {
	if g.hung {
		return
	}
	now := g.n.read()
	next := now.Add(beatEvery)
	for i := range g.held {
		s := &g.held[i]
		if s.right.Service == "" || s.state == guard.HeldContained || s.busy {
			continue
		}
		if deadline := max(g.leases.Deadline(s.right), s.retry); now < deadline {
			next = min(next, deadline)
			continue
		}
		s.busy = true
		g.contain(i)
	}
	if d := next.Sub(now); d < beatEvery {
		g.look(d + d/400 + time.Microsecond)
	}
}

// look comes back for a deadline between two beats.
func (g *guardian) look(d time.Duration) {
	at := g.n.w.now + d
	if g.due > g.n.w.now && g.due <= at {
		return
	}
	g.due = at
	g.n.w.on(g.n, d, func() {
		if g.n.guard == g {
			g.expire()
		}
	})
}

// contain kills what runs and takes its link down.
func (g *guardian) contain(i int) {
	n := g.n
	h := n.here[i]
	record := h.rec
	n.w.say("the guard of %s contains %s@%d", n.name, record.Service, record.Epoch)
	n.w.on(n, n.takes(n.w.between(5*time.Millisecond, 50*time.Millisecond)), func() {
		if n.guard != g {
			return
		}
		s := &g.held[i]
		s.busy = false
		done := h.contain(record.Epoch, record.Attempt, "lease has ended")
		if s.right != (guard.Right{Service: record.Service, Epoch: record.Epoch}) || s.attempt != record.Attempt {
			return
		}
		if done {
			s.state = guard.HeldContained
			return
		}
		s.state, s.retry = guard.HeldStuck, n.read().Add(500*time.Millisecond)
	})
}

// ack takes up what a leader acknowledged.
func (g *guardian) ack(a guard.Ack) {
	if a.Instance != g.n.life || g.hung {
		return
	}
	if changed, err := g.leases.Ack(a); err == nil && changed {
		g.expire()
		if g.n.daemon != nil {
			g.n.daemon.stir()
		}
	}
}

// leased is the guard's word that the lease of the grant is live.
func (n *node) leased(name core.ServiceName, epoch core.Epoch) bool {
	if n.guard == nil || n.guard.hung {
		return false // no answer is no lease
	}
	until, ok := n.guard.leases.Until(guard.Right{Service: name, Epoch: epoch}, n.read())
	return ok && n.read() < until
}
