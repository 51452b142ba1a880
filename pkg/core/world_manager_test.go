package core

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// What a cluster manager does to a machine, and what the machine's daemon makes of it. The manager's agents stop
// without the daemon; what they start they claim, for as long as they wait.

// claim waits on a machine until the service is as far up as it is wanted there.
func (m *machine) claim(name ServiceName, stage Stage) {
	if m.alive() {
		m.claims[name] = stage
	}
}

// stopHere ends all of the service on the machine.
func (m *machine) stopHere(w *world, name ServiceName) {
	delete(m.claims, name)
	a := m.runs[name]
	if a == nil || !m.alive() {
		return
	}
	m.buried[name] = a.epoch
	if a.address != "" && (m.dirty[name] || m.stuck[name] || !w.ceph || w.images[name].blocked[a.address]) {
		a.stage, a.soiled = stageDead, true
		return
	}
	m.unmap(w, name, a)
}

// lower ends the container and leaves the volume.
func (m *machine) lower(name ServiceName) {
	delete(m.claims, name)
	if a := m.runs[name]; a != nil && m.alive() && a.kept && a.stage != stageKept {
		a.stage, a.ended = stageDead, true
	}
}

// given reports whether a grant without anything of it here goes back: it was stopped here, or nobody waits for it.
func (m *machine) given(svc Service) bool {
	if !m.known.managed() {
		return false
	}
	_, claimed := m.claims[svc.Name]
	return m.buried[svc.Name] == svc.Grant.Epoch || svc.Grant.Phase == PhaseStarting && !claimed
}

// obey does what is particular to a cluster manager's services. It reports whether there was something.
func (m *machine) obey(w *world, svc Service, a *activation) bool {
	g := svc.Grant
	_, claimed := m.claims[svc.Name]
	says := func(c Command) bool {
		_, _ = w.propose(m, c)
		return true
	}
	promoted := &Promoted{Service: svc.Name, Epoch: a.epoch, Instance: m.instance(), Run: g.Run, Storage: a.storage}
	switch {
	case a.soiled:
		return says(&Contained{Service: svc.Name, Epoch: a.epoch, Instance: m.instance(), Reason: "unmount: input/output error"})
	case !a.kept && g.Phase == PhaseStarting && !claimed && a.stage != stageProbe && a.stage != stageServing && a.stage != stageDead:
		m.abandon(w, svc.Name, a, "")
		return true
	case !a.kept:
		return false
	case g.Stage == StagePromoted:
		return g.Phase != PhaseStarting || says(promoted)
	case g.Run > a.run && g.Phase == PhaseStarting && claimed && m.leased(svc.Name, a.epoch, w.now):
		a.run, a.stage, a.ended, a.begun, a.marked, a.due = g.Run, stageBoot, false, w.now, w.now, w.now.Add(w.jitter(200*time.Millisecond))
		return true
	case g.Run > a.run && claimed && g.Phase == PhaseStarting:
		return true // for a lease
	case g.Run > a.run, a.stage == stageDead && a.ended:
		return says(promoted)
	case a.stage == stageDead:
		return g.Phase == PhaseFailed ||
			says(&RunFailed{Service: svc.Name, Epoch: a.epoch, Instance: m.instance(), Run: a.run, Reason: "its container ended"})
	}
	return false
}

// settle ends the claims that are met.
func (w *world) settle() {
	for _, node := range w.names {
		m := w.nodes[node]
		for _, name := range w.state.ServiceNames() {
			stage, ok := m.claims[name]
			if a := m.runs[name]; ok && m.alive() && m.met(m.known.Services[name].Grant, a, stage) {
				delete(m.claims, name)
				w.say("claim", fmt.Sprintf("%s on %s is met: %s", name, node, a.stage))
			}
		}
	}
}

func (m *machine) met(g *Grant, a *activation, stage Stage) bool {
	if g == nil || a == nil || g.Instance != m.instance() || g.Epoch != a.epoch || a.soiled {
		return false
	}
	return g.Phase == PhaseRunning && a.run == g.Run && a.stage == stageServing || stage == StagePromoted && g.Phase == PhasePromoted
}

// manager is a cluster manager that wants every service up somewhere, and gives up a start that takes too long.
type manager struct {
	staged map[ServiceName]bool
	target map[ServiceName]NodeName
	since  map[ServiceName]Time
}

func newManager() *manager {
	return &manager{staged: map[ServiceName]bool{}, target: map[ServiceName]NodeName{}, since: map[ServiceName]Time{}}
}

// order does one round: it stops before it starts elsewhere, and goes by what keepone says of each node.
func (c *manager) order(w *world) {
	for _, name := range w.state.ServiceNames() {
		to := c.target[name]
		switch {
		case to == "" || w.now.Sub(c.since[name]) > 30*time.Second && !c.up(w, name):
			if to != "" {
				w.nodes[to].stopHere(w, name)
			}
			c.choose(w, name)
		case c.up(w, name):
			c.since[name] = w.now
		default:
			c.start(w, name)
		}
	}
}

func (c *manager) up(w *world, name ServiceName) bool {
	a := w.nodes[c.target[name]].runs[name]
	return a != nil && a.stage == stageServing
}

// choose picks the node with the best score that was not tried last, and stops the service on all others.
func (c *manager) choose(w *world, name ServiceName) {
	if w.leader == "" {
		return
	}
	able := Ables(w.state, w.view(), w.now)[name]
	last := c.target[name]
	names := slices.DeleteFunc(slices.Clone(w.names), func(n NodeName) bool { return !able[n].OK || !w.nodes[n].alive() })
	slices.SortStableFunc(names, func(a, b NodeName) int {
		return cmp.Or(cmp.Compare(bit(a == last), bit(b == last)), cmp.Compare(able[b].Score, able[a].Score))
	})
	if len(names) == 0 {
		return
	}
	for _, node := range w.names {
		if node != names[0] {
			w.nodes[node].stopHere(w, name)
		}
	}
	c.target[name], c.since[name] = names[0], w.now
}

func (c *manager) start(w *world, name ServiceName) {
	m := w.nodes[c.target[name]]
	a := m.runs[name]
	if _, waits := m.claims[name]; waits {
		return
	}
	switch {
	case a != nil && a.stage == stageDead && a.kept && !a.ended:
		m.lower(name)
	case c.staged[name] && (a == nil || !a.kept):
		m.claim(name, StagePromoted)
	default:
		m.claim(name, StageRunning)
	}
}
