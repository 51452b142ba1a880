package core

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// moveSlack is how long past the bounds of stop and start a move may take until it is answered as failed.
const moveSlack = 30 * time.Second

// orderBound is how long an operator's fence may wait to be ordered: for leadership to leave the node, or for
// an open fence of it to end.
const orderBound = time.Minute

// requests answers what operators asked for.
func (d *decider) requests() {
	for _, r := range d.s.Requests {
		if r.State != RequestOpen {
			continue
		}
		state, answer := d.answer(r)
		if state != RequestOpen || (answer != "" && answer != r.Answer) {
			d.do(Answer{Request: r.ID, State: state, Answer: answer})
		}
	}
}

// answer says how a request stands.
func (d *decider) answer(r Request) (RequestState, string) {
	switch r.Kind {
	case RequestSwitchover, RequestFailover:
		return d.answerMove(r)
	case RequestStart, RequestRestart:
		return d.answerStart(r)
	case RequestStop:
		if d.s.Services[r.Service].Grant == nil {
			return RequestDone, string(r.Service) + " is stopped and vacated"
		}
		return d.answerStop(r)
	case RequestDrain:
		return d.answerDrain(r)
	case RequestFence:
		return d.answerFence(r)
	case RequestMaintenance:
		return d.answerMaintenance()
	case RequestUndrain, RequestMaintainOff, RequestFenceConfirm:
	}
	return RequestOpen, ""
}

// answerStop bounds the wait for a holder that may be lost; the release or fence goes on.
func (d *decider) answerStop(r Request) (RequestState, string) {
	svc, spec := d.s.Services[r.Service], d.s.Spec.Service(r.Service)
	switch {
	case !svc.Stopped:
		return RequestFailed, "started meanwhile"
	case spec == nil || d.now.Sub(r.At) > spec.StopLimit+graceRelease+moveSlack:
		return RequestFailed, fmt.Sprintf("%s has neither vacated it nor been fenced within the bound; it is tried on", svc.Grant.Node)
	case svc.Blocked != "":
		return RequestOpen, "waits: " + svc.Blocked
	}
	return RequestOpen, ""
}

func (d *decider) answerMove(r Request) (RequestState, string) {
	svc := d.s.Services[r.Service]
	spec := d.s.Spec.Service(r.Service)
	if svc.Move == nil || svc.Move.Request != r.ID || spec == nil {
		return RequestFailed, "superseded"
	}
	g := svc.Grant
	if d.answers(g) && g.Since > r.At {
		on := fmt.Sprintf("%s answers on %s", r.Service, g.Node)
		if g.Node == svc.Move.From || (svc.Move.To != "" && g.Node != svc.Move.To) {
			return RequestFailed, on + ", not where it was to go" + d.lastFailure(svc)
		}
		return RequestDone, on
	}
	if d.now.Sub(r.At) > spec.StopLimit+spec.StartLimit+graceRelease+moveSlack {
		return RequestFailed, "not done within its bound; `keepone status` shows where it stands" + d.lastFailure(svc)
	}
	return RequestOpen, ""
}

// answers reports whether a grant's service answered when its holder was last heard, a moment ago.
func (d *decider) answers(g *Grant) bool {
	if g == nil || g.Phase != PhaseRunning {
		return false
	}
	v := d.v.Nodes[g.Node]
	return v.Live == LiveOnline && v.Instance == g.Instance
}

func (d *decider) lastFailure(svc Service) string {
	if len(svc.Failures) == 0 {
		return ""
	}
	last := svc.Failures[len(svc.Failures)-1]
	return fmt.Sprintf(" (%s: %s)", last.Node, last.Reason)
}

func (d *decider) answerStart(r Request) (RequestState, string) {
	svc := d.s.Services[r.Service]
	g := svc.Grant
	switch {
	case svc.Stopped:
		return RequestFailed, "stopped meanwhile"
	case d.s.managed():
		return RequestDone, fmt.Sprintf("the cluster manager may start %s again", r.Service)
	case d.answers(g) && (g.Since > r.At || r.Kind == RequestStart):
		return RequestDone, fmt.Sprintf("%s answers on %s", r.Service, g.Node)
	case g == nil && svc.Blocked != "":
		return RequestOpen, "waits: " + svc.Blocked
	}
	if spec := d.s.Spec.Service(r.Service); spec == nil || d.now.Sub(r.At) > spec.StopLimit+spec.StartLimit+moveSlack {
		return RequestFailed, "does not answer within its bound; it is tried on" + d.lastFailure(svc)
	}
	return RequestOpen, ""
}

func (d *decider) answerDrain(r Request) (RequestState, string) {
	var left []string
	for _, name := range d.s.ServiceNames() {
		svc := d.s.Services[name]
		if svc.Grant == nil || svc.Grant.Node != r.Node {
			continue
		}
		text := string(name)
		if found, why := d.candidates(svc, r.Node); len(found) == 0 {
			text += ", which can go nowhere: " + why
		} else if d.s.managed() {
			text += ", which the cluster manager has to move"
		}
		left = append(left, text)
	}
	switch {
	case !d.s.Nodes[r.Node].Standby:
		return RequestFailed, "undrained meanwhile"
	case len(left) == 0:
		return RequestDone, fmt.Sprintf("%s is empty and on standby", r.Node)
	}
	return RequestOpen, "waits for " + strings.Join(left, "; ")
}

// answerFence says how a wish to have a node off stands. Only a proof of node scope fulfils it, and it must speak of
// the very instance that was the node's when it was asked.
func (d *decider) answerFence(r Request) (RequestState, string) {
	d.rebooted(r.Node, r.Instance)
	if state, answer := d.answerOff(r); state != RequestOpen {
		return state, answer
	}
	f, ok := d.fenceFor(r)
	switch {
	case ok && f.State == FenceMoot:
		return RequestFailed, f.Note
	case ok && f.State == FenceFailed && f.Attempt >= wholeTries && f.Tried >= r.At:
		return RequestFailed, f.Note
	case d.now.Sub(r.At) > orderBound && (!ok || f.Tried < r.At):
		return RequestFailed, fmt.Sprintf("not ordered within %s: %s leads, and no other voter could", orderBound, d.v.Self)
	case ok && f.State == FenceFailed && f.Tried < r.At:
		d.assign(f) // what failed before may work for whoever asks anew, and need not wait
	case !ok:
		d.orderWhole(r)
	}
	return RequestOpen, f.Note
}

// answerOff answers a fence from what is proven of the instance.
func (d *decider) answerOff(r Request) (RequestState, string) {
	node, v := d.s.Nodes[r.Node], d.v.Nodes[r.Node]
	p, off := d.s.NodeProof(r.Instance)
	switch {
	case off && p.At > r.At:
		return RequestDone, fmt.Sprintf("%s is fenced: %s", r.Node, p.Reading)
	case (off || node.Life == LifeFenced) && v.Live == LiveOnline && v.Instance != r.Instance:
		// I3: the proof is older than the wish, and the node has begun another life since.
		return RequestFailed, fmt.Sprintf("%s has just come back, as another instance: ask again", r.Node)
	case off || (node.Life == LifeFenced && node.Instance == r.Instance):
		return RequestDone, fmt.Sprintf("%s was fenced already: %s", r.Node, node.Reason)
	case node.Instance != r.Instance:
		return RequestFailed, fmt.Sprintf("%s lives as another instance", r.Node)
	}
	return RequestOpen, ""
}

// fenceFor is the fence of the whole node that answers a request: whichever is open, or ended since it was asked. A
// second request joins the first one's: a shot is never repeated.
func (d *decider) fenceFor(r Request) (Fence, bool) {
	for _, f := range slices.Backward(d.s.Fences) {
		if f.Whole && f.Instance == r.Instance && (f.Request == r.ID || f.Open() || f.Closed > r.At) {
			return f, true
		}
	}
	return Fence{}, false
}

func (d *decider) answerMaintenance() (RequestState, string) {
	if !d.s.Maintenance.On {
		return RequestFailed, "ended meanwhile"
	}
	var waits []string
	for _, name := range d.s.ServiceNames() {
		g := d.s.Services[name].Grant
		if g == nil {
			continue
		}
		if v := d.v.Nodes[g.Node]; !v.Maintenance || v.Live != LiveOnline || v.Instance != g.Instance {
			waits = append(waits, string(g.Node))
		}
	}
	if len(waits) == 0 {
		return RequestDone, "hands off: every holder has accepted it"
	}
	return RequestOpen, "waits for " + strings.Join(waits, ", ") + " to accept it"
}
