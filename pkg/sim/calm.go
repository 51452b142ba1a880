package sim

import (
	"time"

	"github.com/keepone-ha/keepone/pkg/guard"
)

// rest is calm of that length, of which nothing comes: heartbeats, acks and reports, round after round. Only its end
// is played; all that is due is put off by its length. A little of it is played in full before and after.
func (w *World) rest(calm time.Duration) {
	const played = 2 * time.Second
	w.Run(w.now + played)
	if len(w.checks.broken) > 0 || w.unsettled() != "" {
		return
	}
	w.now += calm
	w.queue.shift(calm)
	for _, n := range w.nodes {
		w.freshen(n)
	}
	if w.managed() {
		for _, n := range w.nodes {
			n.daemon.able.Set(n.read(), w.raft.leader.daemon.verdict(n))
		}
	}
	w.Run(w.now + played)
}

// freshen is a heartbeat of a node that everybody has heard just now, its ack, and its report.
func (w *World) freshen(n *node) {
	g, now := n.guard, n.read()
	g.poked, n.petted = now, w.now
	g.seq = max(g.seq+1, uint64(now))
	h := g.heartbeat(now)
	g.leases.Sent(h.Seq, h.Sent)
	leader := w.raft.leader
	for _, peer := range w.nodes {
		d := peer.daemon
		a := guard.Arrival{At: peer.read(), Heartbeat: h}
		d.observer.Heard(a)
		d.last[n.name] = a
		if peer == leader {
			d.observer.Reported(n.name, peer.read(), n.daemon.says())
			d.ackNow(n, a)
		}
	}
}

// ackNow is an ack that arrives as it is sent.
func (d *daemon) ackNow(to *node, a guard.Arrival) {
	if ack, ok := d.acks(a); ok {
		to.guard.ack(ack)
	}
}
