// Package whatif says what the cluster would do if a node were lost. It lets core.Decide and core.Apply work on copies
// of the live State and View in virtual time, and plays what they wait for: silence, readings of a BMC, the end of
// leases, attempts of a fence, the start of a container. It is pure and changes nothing.
package whatif

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

// Question is one node lost at once, with its power: no heartbeat comes from it any more.
type Question struct {
	Lose    core.NodeName
	BMCDead bool             // its BMC goes with it
	Service core.ServiceName // this one alone, empty: all
}

// Answer is what would come of it.
type Answer struct {
	BMC      string        // why its BMC could prove nothing, empty if it could
	Leader   core.NodeName // who would lead
	Election time.Duration // until then nobody does; 0: the leader stays
	Halted   string        // why nothing would be done at all, empty if something would
	Life     core.Life     // of the lost node, in the end
	Services []Outcome
	Steps    []Step
	Ran      time.Duration // virtual time that was looked at
}

// Outcome is how it would go with one service.
type Outcome struct {
	Service core.ServiceName
	Held    bool          // the lost node holds it
	Holder  core.NodeName // in the end, empty: nobody
	Running bool          // and it answers there
	Proof   core.ProofKind
	Phases  core.Phases // of the failover
	Starts  int         // past starts that the medians of storage, start and probe are of
	Missing string      // what it would still wait for
	Next    []core.NodeName
	Vetoes  map[core.NodeName]string // why another node could not take it, before it is lost
}

// Step is one thing that would be committed.
type Step struct {
	After time.Duration
	Event core.Event
}

// The reasons for which a question has no answer.
var (
	ErrUnknown = errors.New("unknown name")
	ErrLost    = errors.New("the node is not heard even now")
	// ErrEarly is a leader that leads since a moment ago: it takes whoever has not reported yet for lost.
	ErrEarly = errors.New("the leader has not heard from everybody yet, ask again in a few seconds")
)

const (
	tick  = 50 * time.Millisecond
	bound = 90 * time.Second // a fence that was tried five times waits for more than time
	// settled is when a new leader has every report that it will get, as pkg/observe has it.
	settled = 2 * time.Second
)

// Ask answers a question about a cluster whose leader sees v at now.
func Ask(s core.State, v core.View, now core.Time, q Question) (Answer, error) {
	if err := valid(s, v, q); err != nil {
		return Answer{}, err
	}
	w := newWorld(s, v, now, q)
	a := Answer{BMC: w.bmc, Leader: w.view.Self}
	if w.view.Self == q.Lose || w.view.Self == "" {
		w.view.Self = ""
		if a.Leader = w.heir(); a.Leader != "" {
			a.Election = 2 * s.Spec.Timing.RaftElection // its timeout is random between one and two of them
		}
	}
	if a.Halted = w.halted(); a.Halted == "" {
		w.elect(a.Leader, a.Election)
		w.run()
	}
	a.Life, a.Ran, a.Steps = w.state.Nodes[q.Lose].Life, w.now.Sub(w.began), w.steps(s)
	for _, name := range s.ServiceNames() {
		if q.Service == "" || q.Service == name {
			a.Services = append(a.Services, w.outcome(s, v, name, a))
		}
	}
	return a, nil
}

func valid(s core.State, v core.View, q Question) error {
	node, ok := s.Nodes[q.Lose]
	switch {
	case !ok:
		return fmt.Errorf("node %q: %w", q.Lose, ErrUnknown)
	case q.Service != "" && s.Spec.Service(q.Service) == nil:
		return fmt.Errorf("service %q: %w", q.Service, ErrUnknown)
	case !v.Settled:
		return ErrEarly
	case v.Nodes[q.Lose].Live != core.LiveOnline || node.Life != core.LifeOnline:
		return fmt.Errorf("%s is %s: %w", q.Lose, cmp.Or(string(node.Life), "unknown"), ErrLost)
	}
	return nil
}

// outcome compares how a service would end with how it is.
func (w *world) outcome(was core.State, v core.View, name core.ServiceName, a Answer) Outcome {
	o := Outcome{Service: name, Starts: w.past[name].count}
	if g := was.Services[name].Grant; g != nil {
		o.Held = g.Node == w.q.Lose
	}
	_, o.Vetoes = core.Candidates(was, v, w.began, name, w.q.Lose)
	svc := w.state.Services[name]
	if g := svc.Grant; g != nil && g.Node != w.q.Lose {
		o.Holder, o.Running = g.Node, g.Phase == core.PhaseRunning
	}
	for _, step := range a.Steps {
		if e := step.Event; e.Service == name && e.Kind == core.EventFailover && e.Phases != nil {
			o.Proof, o.Phases = e.Proof, *e.Phases
		} else if e.Service == name && e.Kind == core.EventGrant {
			o.Proof = e.Proof
		}
	}
	if o.Held && !o.Running {
		o.Missing = w.missing(svc, a.Halted)
	}
	if a.Halted == "" {
		o.Next, _ = core.Candidates(w.state, w.view, w.now, name, o.Holder)
	}
	return o
}

// missing says what a service that its node took down would still wait for.
func (w *world) missing(svc core.Service, halted string) string {
	switch {
	case halted != "":
		return halted
	case w.state.Maintenance.On:
		return "maintenance: nothing is started, moved or fenced while it lasts"
	case svc.Stopped:
		return "it is to stay stopped"
	case svc.Blocked != "":
		return svc.Blocked
	case svc.Grant == nil && w.state.Spec.Manager == core.ManagerPacemaker:
		return "the cluster manager starts it where it wants"
	case svc.Grant == nil:
		return "nothing that is known"
	case svc.Grant.Node != w.q.Lose:
		return fmt.Sprintf("its start on %s", svc.Grant.Node)
	}
	for _, f := range w.state.Fences {
		if f.Open() && f.Instance == svc.Grant.Instance {
			return fmt.Sprintf("a proof of %s, in vain %d times: %s", w.q.Lose, f.Attempt, f.Note)
		}
	}
	return fmt.Sprintf("the end of its grant on %s", w.q.Lose)
}

// steps are the events that would be new.
func (w *world) steps(was core.State) []Step {
	var steps []Step
	for _, e := range w.state.History {
		if e.ID > was.NextID {
			steps = append(steps, Step{After: e.At.Sub(w.began), Event: e})
		}
	}
	return steps
}

// halted says why nothing would be done, empty if something would.
func (w *world) halted() string {
	live := 0
	for _, name := range w.view.Voters {
		if name != w.q.Lose && w.votes(name) {
			live++
		}
	}
	if live <= len(w.view.Voters)/2 {
		return fmt.Sprintf("no quorum: only %d of %d voters would be left; holders contain what they run when their leases end", live, len(w.view.Voters))
	}
	return ""
}

func (w *world) votes(name core.NodeName) bool {
	n := w.view.Nodes[name]
	return n.Live == core.LiveOnline && n.Daemon && n.Report != nil
}

// heir is who would be elected: any voter could be; the one that core would move leadership to is as good a guess as any.
func (w *world) heir() core.NodeName {
	var holder core.NodeName
	for _, name := range w.view.Voters {
		if name == w.q.Lose || !w.votes(name) {
			continue
		}
		busy := false
		for _, svc := range w.state.Services {
			busy = busy || svc.Grant != nil && svc.Grant.Node == name
		}
		if !busy {
			return name
		}
		holder = cmp.Or(holder, name)
	}
	return holder
}

// copyOf is a View whose maps are its own.
func copyOf(v core.View) core.View {
	v.Nodes, v.LeaseOver = maps.Clone(v.Nodes), maps.Clone(v.LeaseOver)
	if v.LeaseOver == nil {
		v.LeaseOver = map[core.ServiceName]core.Epoch{}
	}
	return v
}
