package whatif

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

// What an attempt of a fence takes here, as pkg/fence has it on hardware that is well.
const (
	cutting    = 150 * time.Millisecond // clients cut off and looked for again
	attempting = 4 * time.Second        // until an attempt without a proof is given up
)

// world is a cluster in virtual time, of which one node is lost.
type world struct {
	q     Question
	state core.State
	view  core.View // what the leader sees; the lost node's part changes with time
	began core.Time
	now   core.Time
	leads core.Time // since when the leader leads
	past  map[core.ServiceName]starts
	bmc   string // why the lost node's BMC proves nothing, empty if it does
}

func newWorld(s core.State, v core.View, now core.Time, q Question) *world {
	w := &world{q: q, state: s, view: copyOf(v), began: max(now, s.Now), past: map[core.ServiceName]starts{}}
	w.now = w.began
	w.bmc, _ = s.BMCFound(v, q.Lose)
	switch spec := s.Spec.Node(q.Lose); {
	case spec == nil || spec.BMC == nil:
		w.bmc = "it has none in the cluster document"
	case q.BMCDead:
		w.bmc = "it is dead too"
	}
	for _, name := range s.ServiceNames() {
		w.past[name] = medians(s.History, name)
	}
	return w
}

// elect lets time pass until somebody leads.
func (w *world) elect(leader core.NodeName, after time.Duration) {
	w.now = w.now.Add(after)
	w.view.Self = leader
	if after > 0 {
		w.leads, w.view.Settled = w.now, false
		w.view.LeaseOver = map[core.ServiceName]core.Epoch{}
	}
}

// run goes on until nothing more would happen by itself, within a bound.
func (w *world) run() {
	for end := w.began.Add(bound); w.now < end; w.now = w.now.Add(tick) {
		w.see()
		before := w.state.NextID
		for _, c := range core.Decide(w.state, w.view, w.now) {
			w.commit(w.view.Self, c)
		}
		w.fence()
		w.start()
		if w.state.NextID == before && w.rests() {
			return
		}
	}
}

// commit applies a command; one that State refuses has come too late, as it might in truth.
func (w *world) commit(by core.NodeName, c core.Command) {
	if s, err := core.Apply(w.state, core.Entry{At: w.now, By: by, Command: c}); err == nil {
		w.state = s
	}
}

// see is what the leader sees of the lost node by now.
func (w *world) see() {
	t, n := w.state.Spec.Timing, w.view.Nodes[w.q.Lose]
	silent := w.now.Sub(w.began)
	n.Silent, n.Instance = silent, w.state.Nodes[w.q.Lose].Instance
	if silent >= t.Suspect {
		n.Live, n.Daemon, n.Maintenance, n.Report = core.LiveSuspect, false, false, nil
	}
	if silent >= t.Down {
		n.Live = core.LiveDown
	}
	if w.bmc == "" && silent >= max(t.Suspect, w.leads.Sub(w.began))+t.OffReadings {
		n.Off = w.off()
	}
	w.view.Nodes[w.q.Lose] = n
	if w.leads != 0 && w.now.Sub(w.leads) >= settled {
		w.view.Settled = true
	}
	for _, name := range w.state.ServiceNames() {
		g := w.state.Services[name].Grant
		if g == nil || g.Node != w.q.Lose || w.state.Renewed(name) {
			continue
		}
		if w.now.Sub(max(w.began, w.leads)) > t.Lease+t.LeaseMargin {
			w.view.LeaseOver[name] = g.Epoch
		}
	}
}

func (w *world) off() *core.Proof {
	return &core.Proof{
		Kind: core.ProofBMCOff, Instance: w.state.Nodes[w.q.Lose].Instance, By: string(w.view.Self), Reading: "off, and off again",
	}
}

// fence carries out the attempts that are under way.
func (w *world) fence() {
	for _, f := range w.state.Fences {
		age := w.now.Sub(f.Tried)
		if f.State != core.FenceRequested || f.Node != w.q.Lose || age < cutting {
			continue
		}
		if w.bmc == "" {
			w.commit(f.Executor, core.AddProof{Fence: f.ID, Proof: *w.off()})
		}
		notes := []string{"bmc-off: " + cmp.Or(w.bmc, "off")}
		for _, t := range f.Targets {
			notes = append(notes, fmt.Sprintf("storage: %s: %s", t.Service, w.cut(f, t)))
		}
		if age >= attempting {
			w.commit(f.Executor, core.EndAttempt{Fence: f.ID, Attempt: f.Attempt, Note: strings.Join(notes, "; ")})
		}
	}
}

// cut proves that a target's clients are cut off, or says why the executor can't.
func (w *world) cut(f core.Fence, t core.Target) string {
	report := w.view.Nodes[f.Executor].Report
	switch {
	case !t.LeaseOver:
		return "its lease may still live"
	case report == nil || !report.Ready[t.Service].MayCut():
		why := "has not been seen to cut a client off"
		if report != nil && report.Ready[t.Service].Reason != "" {
			why = report.Ready[t.Service].Reason
		}
		return fmt.Sprintf("%s: %s", f.Executor, why)
	case !proven(f, t):
		w.commit(f.Executor, core.AddProof{Fence: f.ID, Proof: core.Proof{
			Kind: core.ProofStorage, Instance: f.Instance, Service: t.Service, Epoch: t.Epoch, By: string(f.Executor), Reading: "clients cut off",
		}})
	}
	return "cut off"
}

func proven(f core.Fence, t core.Target) bool {
	return slices.ContainsFunc(f.Proofs, func(p core.Proof) bool {
		return p.Kind == core.ProofStorage && p.Service == t.Service && p.Epoch == t.Epoch
	})
}

// start lets what was granted since come up, in the time that it took before.
func (w *world) start() {
	for _, name := range w.state.ServiceNames() {
		g := w.state.Services[name].Grant
		if g == nil || g.Phase != core.PhaseStarting || g.Since < w.began {
			continue
		}
		p, age := w.past[name], w.now.Sub(g.Since)
		if len(g.Clients) == 0 {
			w.commit(g.Node, core.CommitClient{Service: name, Epoch: g.Epoch, Instance: g.Instance, Address: "what-if"})
		}
		if age >= p.Storage+p.Start+p.Probe {
			w.commit(g.Node, core.Started{
				Service: name, Epoch: g.Epoch, Instance: g.Instance, Run: g.Run, Storage: p.Storage, Start: p.Start, Probe: p.Probe,
			})
		}
	}
}

// rests reports whether time alone would change nothing more.
func (w *world) rests() bool {
	if silent := w.now.Sub(w.began); silent < w.state.Spec.Timing.Down+settled || !w.view.Settled {
		return false
	}
	for _, f := range w.state.Fences {
		if f.Open() && f.Node == w.q.Lose {
			return false
		}
	}
	for _, svc := range w.state.Services {
		if g := svc.Grant; g != nil && g.Phase == core.PhaseStarting && g.Since >= w.began {
			return false
		}
	}
	return true
}
