package sim

import (
	"fmt"
	"strconv"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

// Outcome is what a run came to.
type Outcome struct {
	Plan      Plan
	Broken    []string // guarantees that did not hold
	Stalled   string   // what did not come about within its bound; empty: all did
	Failovers int
	Time      time.Duration // of the cluster
	Kinds     map[string]bool
	Trace     uint64 // equal runs have equal sums
	Lines     []string
}

// Bad reports whether a guarantee or a bound was broken.
func (o Outcome) Bad() bool { return len(o.Broken) > 0 || o.Stalled != "" }

const (
	settleBound  = 4 * time.Minute  // once all is mended
	managedBound = 12 * time.Minute // likewise, under Pacemaker
	lookSettled  = 500 * time.Millisecond
	mixTime      = 20 * time.Second // faults act for so long at most before the world is mended, if nothing settles
)

// Play runs a plan.
func Play(p Plan, verbose bool) Outcome {
	w := New(p.Shape, verbose)
	o := Outcome{Plan: p, Kinds: w.faults.seen}
	if !w.settle(w.bound()) {
		o.Stalled = "the cluster never came up: " + w.unsettled()
	}
	for i, e := range p.Episodes {
		if len(w.checks.broken) > 0 || o.Stalled != "" {
			break
		}
		w.rest(e.Calm)
		if why := w.episode(e); why != "" {
			o.Stalled = fmt.Sprintf("%.1fs episode %d: %s", w.now.Seconds(), i, why)
			w.say("STALLED %s", o.Stalled)
		}
	}
	o.Broken, o.Failovers, o.Time = w.checks.broken, w.checks.failovers, w.now
	o.Trace, o.Lines = w.trace.sum, w.trace.lines
	w.end()
	return o
}

// end lets go of every process.
func (w *World) end() {
	for _, n := range w.nodes {
		n.endDaemon()
	}
}

// episode lets the faults of one episode happen, mends, and says what did not settle.
func (w *World) episode(e Episode) string {
	began, last := w.now, time.Duration(0)
	for _, a := range e.Acts {
		w.at(a.At, func() { w.strike(a) })
		last = a.At
	}
	w.Run(began + last + time.Millisecond)
	if bound := lone(e); bound > 0 && !w.served(bound) {
		return fmt.Sprintf("%s alone, and not every service answers after %s: %s", e.Acts[0].Kind, bound, w.unsettled())
	}
	for until := w.now + mixTime; w.now < until && len(w.checks.broken) == 0; {
		w.Run(w.now + lookSettled)
		if w.allServed() && w.busy == 0 && w.raft.newest().AtRest() {
			break
		}
	}
	w.heal()
	if !w.settle(w.bound()) && len(w.checks.broken) == 0 {
		return "all is mended, but " + w.unsettled()
	}
	return ""
}

// lone is the bound of an episode's only fault.
func lone(e Episode) time.Duration {
	if len(e.Acts) != 1 {
		return 0
	}
	return kindOf(e.Acts[0].Kind).bound
}

// served waits until every service answers, for at most d.
func (w *World) served(d time.Duration) bool {
	for until := w.now + d; ; {
		if len(w.checks.broken) > 0 || w.allServed() {
			return true
		}
		if w.now >= until {
			return false
		}
		w.Run(w.now + lookSettled)
	}
}

// settle waits until nothing is left to do.
func (w *World) settle(bound time.Duration) bool {
	tidied := time.Duration(0)
	for until := w.now + bound; w.now < until && len(w.checks.broken) == 0; {
		w.Run(w.now + lookSettled)
		if w.unsettled() == "" {
			return true
		}
		if w.now-tidied > 10*time.Second {
			tidied = w.now
			w.tidy()
		}
	}
	return false
}

// allServed reports whether every service runs and answers, in truth.
func (w *World) allServed() bool {
	s := w.raft.newest()
	for i := range w.ceph.images {
		svc := s.Services[service(i)]
		if svc.Stopped {
			continue
		}
		g := svc.Grant
		if g == nil || g.Phase != core.PhaseRunning || !w.runs(g, i) {
			return false
		}
	}
	return true
}

// runs reports whether what is granted runs in truth, and can write.
func (w *World) runs(g *core.Grant, i int) bool {
	n := w.names[g.Node]
	h := n.here[i]
	return n.alive() && n.life == g.Instance && h.runs && h.rec.Epoch == g.Epoch && h.client.alive && !w.ceph.banned(h.client.address)
}

// bound is how long it takes at most until all is well once all is mended. An operation that hangs when it is mended has
// its timeout first, and what failed too often on each node is tried again after failure-timeout.
func (w *World) bound() time.Duration {
	if w.managed() {
		return managedBound
	}
	return settleBound
}

// pacemakers says what Pacemaker still has to do; empty: nothing.
func (w *World) pacemakers() string {
	dcs := 0
	for _, n := range w.nodes {
		c := n.pcmk
		switch {
		case c == nil:
			return "Pacemaker does not run on " + string(n.name)
		case len(n.view) != len(w.nodes):
			return string(n.name) + " is not in everybody's membership"
		case !c.leads:
			continue
		}
		dcs++
		if acts := c.schedule(); c.busy > 0 || c.poked || !c.joined || len(acts) > 0 {
			return fmt.Sprintf("Pacemaker is at work: %d under way, %d to do", c.busy, len(acts))
		}
	}
	if dcs != 1 {
		return fmt.Sprintf("%d DCs", dcs)
	}
	return w.attributes()
}

// attributes says what Pacemaker's attributes have wrong of where services may run.
func (w *World) attributes() string {
	for _, n := range w.nodes {
		for name, able := range n.daemon.abilities() {
			for _, m := range w.nodes {
				if v, err := strconv.Atoi(m.pcmk.attrs[n.name].value(core.ElectionAttribute(name))); able.OK != (err == nil && v >= 1) {
					return fmt.Sprintf("%s may have %s: %t, and Pacemaker on %s knows it as %d", n.name, name, able.OK, m.name, v)
				}
			}
		}
	}
	return ""
}

// unsettled says what is still to come; empty: the cluster is as it should be.
func (w *World) unsettled() string {
	s := w.raft.newest()
	l := w.raft.leader
	switch {
	case l == nil || l.daemon == nil || !l.daemon.barrier || !w.raft.verified(l):
		return "nobody leads"
	case !w.allServed():
		for i := range w.ceph.images {
			svc := s.Services[service(i)]
			if svc.Grant == nil {
				return fmt.Sprintf("%s is held by nobody: %s", svc.Name, svc.Blocked)
			}
			if svc.Grant.Phase != core.PhaseRunning || !w.runs(svc.Grant, i) {
				return fmt.Sprintf("%s is %s on %s: %s", svc.Name, svc.Grant.Phase, svc.Grant.Node, svc.Blocked)
			}
		}
	case w.busy > 0 || !s.AtRest():
		return "something is under way"
	case s.Maintenance.On:
		return "maintenance is on"
	}
	for _, n := range w.nodes {
		member, ok := s.Nodes[n.name]
		switch {
		case !ok || member.Life != core.LifeOnline || member.Instance != n.life || member.Standby:
			return fmt.Sprintf("%s is %s, %s", n.name, member.Life, member.Reason)
		case n.daemon == nil || n.guard == nil || n.daemon.applied < w.raft.last():
			return string(n.name) + " is behind"
		}
	}
	if w.managed() {
		if why := w.pacemakers(); why != "" {
			return why
		}
	}
	for _, svc := range s.Services {
		if svc.Stopped {
			return string(svc.Name) + " is stopped"
		}
	}
	return ""
}
