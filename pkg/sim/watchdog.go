package sim

import (
	"time"

	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/guard"
)

const (
	dogTimeout   = 10 * time.Second
	overdueAfter = 3 * time.Second // the guard's own: past a deadline it pets no more
)

// pet starts the watchdog's time anew while nothing is overdue. It is armed with the guard's first beat of a life.
func (g *guardian) pet(now boottime.Time) {
	n := g.n
	if !n.w.shape.Watchdog {
		return
	}
	for _, s := range g.held {
		if s.right.Service != "" && s.state != guard.HeldContained && now.Sub(g.leases.Deadline(s.right)) > overdueAfter {
			return
		}
	}
	n.petted = n.w.now
	if !n.armed {
		n.armed = true
		n.watch()
	}
}

// watch has the watchdog bite a timeout after the last pet, whatever the node does: one that is paused is taken for one
// that hangs.
func (n *node) watch() {
	life := n.boots
	n.w.at(n.petted+dogTimeout-n.w.now, func() {
		switch {
		case n.boots != life || !n.armed:
		case n.w.now < n.petted+dogTimeout:
			n.watch()
		default:
			n.w.say("the watchdog of %s bites", n.name)
			n.bites++
			n.cut()
			n.w.at(n.w.between(2*time.Second, 20*time.Second), n.boot)
		}
	})
}

// watchdogKinds strike only where a watchdog is armed: without one nothing ends what a hung guard leaves running.
var watchdogKinds = []kind{
	{name: "guard-hangs", begin: func(_ *World, n *node, _ Act) func() { n.hangGuard(); return n.guardGoesOn }},
	{name: "contains-nothing", begin: func(_ *World, n *node, _ Act) func() {
		n.wrong.container.undying = true
		n.pause()
		n.w.at(4*time.Second, n.resume) // its lease is over by then
		return func() { n.wrong.container.undying, n.tamed = false, n.w.now }
	}},
}

// hangGuard stops the guard's loop alone: its node, daemon and containers go on.
func (n *node) hangGuard() {
	if g := n.guard; g != nil {
		n.w.say("the guard of %s hangs", n.name)
		g.hung = true
	}
}

// guardGoesOn lets it go on where it hung, if a watchdog has not bitten.
func (n *node) guardGoesOn() {
	if g := n.guard; g != nil && g.hung {
		g.hung, n.tamed = false, n.w.now
		g.expire()
		g.beat()
	}
}

// bitten makes sure that nothing runs past its lease for longer than the guard's bound and the watchdog's together,
// though the guard hangs, or can't contain it (I5).
func (c *checks) bitten() {
	for _, n := range c.w.nodes {
		if !n.armed || n.guard == nil {
			continue
		}
		for _, h := range n.here {
			late := n.read().Sub(n.guard.leases.Deadline(h.right()))
			if h.runs && late > overdueAfter+dogTimeout+containBound && c.w.now-n.tamed > overdueAfter+dogTimeout+containBound {
				c.breaks("I5: %s@%d runs on %s %s after its lease, and no watchdog bites", h.name, h.rec.Epoch, n.name, late)
			}
		}
	}
}
