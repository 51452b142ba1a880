package report

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/op"
)

// Fences is the answer of `keepone fence list -o json`, oldest first; `fence show` has one of them.
type Fences struct {
	Schema int     `json:"schema"`
	Fences []Fence `json:"fences"`
}

// Fence is one order to make sure that an instance of a node can do no more harm.
type Fence struct {
	ID       uint64        `json:"id"`
	Node     string        `json:"node"`
	Instance string        `json:"instance"`
	State    string        `json:"state"` // requested, failed (tried again), confirmed, moot
	Reason   string        `json:"reason"`
	By       string        `json:"by"` // who asked for it, empty: the leader ordered it
	Whole    bool          `json:"wholeNode"`
	Shoot    bool          `json:"powerOff"`
	Heard    string        `json:"heard"` // last heartbeat of the instance
	Ordered  string        `json:"ordered"`
	Closed   string        `json:"closed"`
	Attempt  int           `json:"attempt"`
	Executor string        `json:"executor"`
	Tried    string        `json:"tried"` // when this attempt began
	Note     string        `json:"note"`
	Why      string        `json:"why"` // why it is enough, or what is missing
	Targets  []FenceTarget `json:"targets"`
	Proofs   []FenceProof  `json:"proofs"`
	Steps    []Event       `json:"steps"` // of the history
}

// FenceTarget is one grant that a fence is to cut off.
type FenceTarget struct {
	Service   string   `json:"service"`
	Epoch     uint64   `json:"epoch"`
	LeaseOver bool     `json:"leaseOver"` // no lease of it can live any more
	Accepted  bool     `json:"accepted"`
	Missing   []string `json:"missing"` // proofs of its policy that were not read
	Why       string   `json:"why"`
}

// FenceProof is one confirmed reading.
type FenceProof struct {
	Kind     string `json:"kind"`
	Scope    string `json:"scope"` // node or client
	By       string `json:"by"`
	At       string `json:"at"`
	Instance string `json:"instance"`
	Service  string `json:"service"` // of a client proof
	Epoch    uint64 `json:"epoch"`
	Reading  string `json:"reading"`
	Means    string `json:"means"`
}

// ErrNoFence says that no fence of that id is kept.
var ErrNoFence = errors.New("no such fence; `keepone fence list` shows those that are kept")

// NewFences makes the Fences of a state.
func NewFences(look op.Look) Fences {
	b := builder{state: look.State, facts: look.Facts, clock: newClock(look.State.History)}
	out := Fences{Schema: Schema, Fences: []Fence{}}
	for _, f := range b.state.Fences {
		out.Fences = append(out.Fences, b.fence(f))
	}
	return out
}

// One is the fence of that id alone.
func (f Fences) One(id uint64) (Fences, error) {
	i := slices.IndexFunc(f.Fences, func(one Fence) bool { return one.ID == id })
	if i < 0 {
		return Fences{}, fmt.Errorf("fence %d: %w", id, ErrNoFence)
	}
	return Fences{Schema: f.Schema, Fences: f.Fences[i : i+1]}, nil
}

func (b builder) fence(f core.Fence) Fence {
	out := Fence{
		ID: f.ID, Node: string(f.Node), Instance: string(f.Instance), State: string(f.State), Reason: f.Reason, Whole: f.Whole, Shoot: f.Shoot,
		Heard: b.clock.text(f.Heard), Ordered: b.clock.text(f.Ordered), Closed: b.clock.text(f.Closed), Attempt: f.Attempt,
		Executor: string(f.Executor), Tried: b.clock.text(f.Tried), Note: f.Note,
		Targets: []FenceTarget{}, Proofs: []FenceProof{}, Steps: []Event{},
	}
	for _, r := range b.state.Requests {
		if r.ID == f.Request && f.Request != 0 {
			out.By = r.By
		}
	}
	for _, t := range f.Targets {
		out.Targets = append(out.Targets, b.fenceTarget(f, t))
	}
	for _, p := range f.Proofs {
		out.Proofs = append(out.Proofs, FenceProof{
			Kind: string(p.Kind), Scope: string(p.Kind.Scope()), By: p.By, At: b.clock.text(p.At), Instance: string(p.Instance),
			Service: string(p.Service), Epoch: uint64(p.Epoch), Reading: p.Reading, Means: proofMeans(p.Kind),
		})
	}
	for _, e := range b.state.History {
		if e.Fence == f.ID {
			out.Steps = append(out.Steps, newEvent(e))
		}
	}
	out.Why = fenceWhy(f, out)
	return out
}

func (b builder) fenceTarget(f core.Fence, t core.Target) FenceTarget {
	v, policy := b.state.Verdict(f.Instance, t), b.state.Spec.PolicyOf(t.Service)
	out := FenceTarget{Service: string(t.Service), Epoch: uint64(t.Epoch), LeaseOver: t.LeaseOver, Accepted: v.Accepted, Missing: []string{}}
	for _, kind := range v.Missing {
		out.Missing = append(out.Missing, string(kind))
	}
	switch {
	case v.Accepted && (v.By == core.ProofRebooted || v.By == core.ProofHuman):
		out.Why = fmt.Sprintf("%s is enough, whatever the policy asks for: it speaks of the whole instance", v.By)
	case v.Accepted && policy.Require == core.RequireAll && len(v.Missing) == 0:
		out.Why = "enough: all that its policy asks for is proven, " + policyText(policy)
	case v.Accepted && slices.Contains(policy.Proofs, v.By):
		out.Why = fmt.Sprintf("%s is enough: its policy asks for %s", v.By, policyText(policy))
	case v.Accepted:
		out.Why = fmt.Sprintf("%s is enough: its holder said itself that nothing of it runs any more", v.By)
	case v.Ended:
		out.Why = "that grant has ended otherwise: nothing is needed for it any more"
	default:
		out.Why = missingWords(policy, t, out.Missing)
	}
	return out
}

// missingWords says what is to be proven for a target, and what it waits for.
func missingWords(policy core.Policy, t core.Target, missing []string) string {
	text := "needs " + strings.Join(missing, " or ")
	if policy.Require == core.RequireAll {
		text = "still needs " + strings.Join(missing, " and ")
	}
	if slices.Contains(missing, string(core.ProofStorage)) && !t.LeaseOver {
		text += "; storage counts only once no lease of it can live any more, which is not sure yet"
	}
	return text
}

func policyText(p core.Policy) string {
	kinds := make([]string, len(p.Proofs))
	for i, kind := range p.Proofs {
		kinds[i] = string(kind)
	}
	if len(kinds) == 1 {
		return kinds[0]
	}
	return string(p.Require) + " of " + strings.Join(kinds, ", ")
}

// fenceWhy says why the whole of it is enough, or what is missing.
func fenceWhy(f core.Fence, out Fence) string {
	node := slices.ContainsFunc(f.Proofs, func(p core.Proof) bool { return p.Kind.Scope() == core.ScopeNode })
	switch {
	case f.State == core.FenceMoot:
		return "nothing needs it any more: " + f.Note
	case f.State == core.FenceConfirmed && node:
		return "enough: nothing of that instance runs any more"
	case f.State == core.FenceConfirmed:
		return "enough for its targets: none of them can write or has a lease any more; the node itself may still run"
	case f.Whole && !node:
		return "not enough: the whole node was asked for, and nothing proves yet that it is off"
	}
	var missing []string
	for _, t := range out.Targets {
		if !t.Accepted {
			missing = append(missing, fmt.Sprintf("%s at epoch %d %s", t.Service, t.Epoch, t.Why))
		}
	}
	if len(missing) == 0 {
		return "all that was asked for is proven; the leader has not closed it yet"
	}
	return "not enough: " + strings.Join(missing, "; ")
}

// proofMeans says what a kind of proof stands on.
func proofMeans(kind core.ProofKind) string {
	return map[core.ProofKind]string{
		core.ProofBMCOff:   "its own BMC read off twice",
		core.ProofRebooted: "it came back as another instance that holds nothing",
		core.ProofWatchdog: "its armed watchdog must have reset it",
		core.ProofStorage:  "its storage clients were cut off and its lease had ended",
		core.ProofHuman:    "an operator vouched for it",
	}[kind]
}

// FencesText writes Fences as a table, the newest last.
func FencesText(w io.Writer, f Fences, style Style) error {
	p := printer{style: style}
	if len(f.Fences) == 0 {
		p.line("Nothing was ever fenced, as far as is kept.")
	} else {
		t := table{{{text: "FENCE"}, {text: "NODE"}, {text: "STATE"}, {text: "ORDERED"}, {text: "ATTEMPTS"}, {text: "BY"}, {text: "PROOFS"}, {text: "REASON"}}}
		for _, one := range f.Fences {
			t = append(t, []cell{
				{fmt.Sprint(one.ID), bold},
				{text: one.Node},
				{one.State, fenceColor(one.State)},
				{text: style.ago(one.Ordered) + " ago"},
				{text: fmt.Sprint(one.Attempt)},
				{text: dash(one.Executor)},
				{text: dash(proofKinds(one.Proofs))},
				{text: one.Reason},
			})
		}
		p.table(t)
	}
	_, err := io.WriteString(w, strings.TrimPrefix(p.b.String(), "\n"))
	return err
}

func fenceColor(state string) string {
	switch core.FenceState(state) {
	case core.FenceConfirmed:
		return green
	case core.FenceRequested:
		return yellow
	case core.FenceFailed:
		return red
	case core.FenceMoot:
	}
	return ""
}

func proofKinds(proofs []FenceProof) string {
	var kinds []string
	for _, p := range proofs {
		if !slices.Contains(kinds, p.Kind) {
			kinds = append(kinds, p.Kind)
		}
	}
	return strings.Join(kinds, " ")
}

// FenceText writes one fence in sentences: the order, the attempts, the targets, the proofs.
func FenceText(w io.Writer, f Fence, style Style) error {
	p := printer{style: style}
	p.wrap("", "", fmt.Sprintf("%s: %s. %s.", style.paint(bold, fmt.Sprintf("Fence %d of %s", f.ID, f.Node)), style.paint(fenceColor(f.State), f.State), upper(f.Why)), 0)
	p.line("\ninstance  %s", f.Instance)
	p.line("heard     %s", dash(f.Heard))
	by := "by the leader"
	if f.By != "" {
		by = "for " + f.By
	}
	p.wrap("ordered   ", "          ", fmt.Sprintf("%s %s: %s", dash(f.Ordered), by, f.Reason), 10)
	p.line("may use   %s", mayUse(f))
	switch {
	case f.Attempt == 0:
		p.line("attempts  none was needed: the proof was there before an order")
	default:
		text := fmt.Sprintf("%d, the newest by %s since %s", f.Attempt, dash(f.Executor), dash(f.Tried))
		if f.Note != "" {
			text += ": " + f.Note
		}
		p.wrap("attempts  ", "          ", text, 10)
	}
	p.line("closed    %s", dash(f.Closed))
	p.fenceTargets(f.Targets)
	p.fenceProofs(f.Proofs)
	if len(f.Steps) > 0 {
		p.line("\nSteps, as the history has them:")
		for _, e := range f.Steps {
			p.wrap(fmt.Sprintf("  %s  ", e.At), "                            ", e.sentence(), 28)
		}
	}
	_, err := io.WriteString(w, p.b.String())
	return err
}

func (p *printer) fenceTargets(targets []FenceTarget) {
	if len(targets) == 0 {
		p.line("\nNo grant hung on it.")
		return
	}
	p.line("\nWhat it is to make harmless:")
	for _, t := range targets {
		p.wrap("  ", "    ", fmt.Sprintf("%s at epoch %d: %s.", t.Service, t.Epoch, t.Why), 4)
	}
}

func (p *printer) fenceProofs(proofs []FenceProof) {
	if len(proofs) == 0 {
		p.line("\nNothing is proven.")
		return
	}
	p.line("\nWhat is proven:")
	for _, proof := range proofs {
		about := "of the whole instance " + proof.Instance
		if proof.Scope == string(core.ScopeClient) {
			about = fmt.Sprintf("of %s at epoch %d held by instance %s", proof.Service, proof.Epoch, proof.Instance)
		}
		p.wrap("  ", "    ", fmt.Sprintf("%s %s, by %s at %s: %s. That is: %s.",
			p.style.paint(bold, proof.Kind), about, proof.By, dash(proof.At), proof.Reading, proof.Means), 4)
	}
}

func mayUse(f Fence) string {
	text := "readings and storage"
	if f.Shoot {
		text += ", and power-off"
	}
	if f.Whole {
		text += "; only a proof of the whole node will do"
	}
	return text
}

func upper(text string) string {
	if text == "" {
		return text
	}
	return strings.ToUpper(text[:1]) + text[1:]
}
