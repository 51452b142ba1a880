// Package sim is whole clusters in virtual time, for tests alone: seeded, one thing at a time, equal seeds give equal
// runs. The deciding code is the real one (core, observe, the guard's leases and ledger, the agent's judgement, the
// levels of a fence, take-over and acquire); everything else is a model of what it stands on, with its faults.
package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

// World is one cluster with all that it stands on.
type World struct {
	now    time.Duration // true time since the beginning
	queue  queue
	rng    *rand.Rand
	shape  Shape
	nodes  []*node
	names  map[core.NodeName]*node
	net    *network
	raft   *raft
	ceph   *ceph
	checks *checks
	ring   *ring // nil: no cluster manager
	trace  *trace
	faults *faultSet
	busy   int // effects under way: activations, stops, fences
	tokens int // of requests
}

// Shape is how a cluster is built. It is drawn from a seed, or read from a story.
type Shape struct {
	Seed      uint64 // of all that chance decides within the run
	Nodes     int
	Witness   bool // the last node only votes
	Services  int
	Policy    string // default, strict, bmc, storage
	Converged bool   // Ceph's mons and OSDs live on the nodes
	Manager   core.Manager
	One       bool // a service is one resource of Pacemaker's, not a promotable clone and a group
	OwnRing   bool // corosync has links of its own
	Watchdog  bool // every guard pets one
}

// New founds a cluster with everything well.
func New(shape Shape, verbose bool) *World {
	w := &World{
		rng: rand.New(rand.NewPCG(shape.Seed, 2)), shape: shape,
		names: map[core.NodeName]*node{}, trace: newTrace(verbose),
	}
	spec := makeSpec(shape)
	w.net, w.ceph, w.checks, w.faults = newNetwork(w), newCeph(w), newChecks(w), newFaultSet()
	for i := range spec.Nodes {
		w.nodes = append(w.nodes, newNode(w, i, spec.Nodes[i]))
		w.names[spec.Nodes[i].Name] = w.nodes[i]
	}
	for range spec.Services {
		w.ceph.images = append(w.ceph.images, newImage(w))
	}
	if shape.Manager == core.ManagerPacemaker {
		w.ring = newRing(w, spec)
	}
	w.raft = newRaft(w, spec)
	for _, n := range w.nodes {
		n.startGuard()
		n.startDaemon()
		n.startPacemaker()
	}
	w.raft.reconsider()
	return w
}

// managed reports whether Pacemaker orders the services.
func (w *World) managed() bool { return w.ring != nil }

// at has something happen later; a negative d is now.
func (w *World) at(d time.Duration, do func()) {
	w.queue.push(event{at: w.now + max(d, 0), do: do})
}

// on is at for what happens on a node: what comes while it is paused waits, and nothing of an earlier life happens.
func (w *World) on(n *node, d time.Duration, do func()) {
	w.queue.push(event{at: w.now + max(d, 0), node: n, life: n.boots, do: do})
}

// Run lets time pass until then, or until a check fails.
func (w *World) Run(until time.Duration) {
	for len(w.checks.broken) == 0 {
		e, ok := w.queue.peek()
		if !ok || e.at > until {
			w.now = max(w.now, until)
			return
		}
		w.step()
	}
}

// step lets the next event happen.
func (w *World) step() {
	e := w.queue.pop()
	w.now = e.at
	if e.node != nil {
		if e.node.boots != e.life || !e.node.power {
			return
		}
		if e.node.paused {
			e.node.frozen = append(e.node.frozen, e)
			return
		}
	}
	w.trace.mix(uint64(e.at), e.seq)
	e.do()
	w.checks.after()
}

// between draws a time.
func (w *World) between(low, high time.Duration) time.Duration {
	if high <= low {
		return low
	}
	return low + time.Duration(w.rng.Int64N(int64(high-low)))
}

func (w *World) chance(p float64) bool { return w.rng.Float64() < p }

func (w *World) say(format string, args ...any) {
	if w.trace.verbose {
		w.trace.say(w.now, fmt.Sprintf(format, args...))
	}
}

// service is the name of the service with this number.
func service(i int) core.ServiceName { return [...]core.ServiceName{"one", "two", "three"}[i] }
