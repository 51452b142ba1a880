package core

import "fmt"

// Bounds within which the agents answer for themselves; past them the leader stops waiting.
const (
	graceRelease = 20e9 // ns past StopLimit: an unmount, an unmap and a flush, each with its own bound
	graceStart   = 10e9 // ns past StartLimit
)

// passes bounds how often the rules are gone over until none has more to say: a later rule may free an earlier
// one, and whoever asks again with the same arguments must hear nothing new.
const passes = 8

// Decide says what the leader should commit next. Only a leader that has passed a barrier calls it. It reads no
// clock and touches nothing; equal arguments give equal commands in equal order. Each command holds on the State
// that those before it lead to; where State has moved meanwhile, Apply refuses and the next Decide sees why.
func Decide(s State, v View, now Time) []Command {
	d := &decider{s: s, v: v, now: max(now, s.Now)}
	for range passes {
		made := len(d.out)
		d.pass()
		if len(d.out) == made {
			break
		}
	}
	return d.out
}

// pass goes once over everything.
func (d *decider) pass() {
	d.nodes()
	d.maintenance()
	for _, name := range d.s.ServiceNames() {
		d.service(name)
	}
	d.fences()
	d.requests()
}

// decider collects commands, and applies each to its own copy of State so that the next rule sees its effect.
type decider struct {
	s   State
	v   View
	now Time
	out []Command
}

// do adds a command if State would take it.
func (d *decider) do(c Command) bool {
	s, err := Apply(d.s, Entry{At: d.now, By: d.v.Self, Command: c})
	if err != nil {
		return false
	}
	d.s = s
	d.out = append(d.out, c)
	return true
}

// nodes commits what heartbeats say of each node's life.
func (d *decider) nodes() {
	for _, name := range d.s.NodeNames() {
		node, v := d.s.Nodes[name], d.v.Nodes[name]
		switch {
		case v.Live == LiveOnline && v.Instance != node.Instance:
			d.boot(node, v)
		case v.Live == LiveOnline && node.Life != LifeOnline:
			d.do(SetLife{Node: name, Instance: v.Instance, Life: LifeOnline, Reason: "heard"})
		case v.Live == LiveSuspect && node.Life == LifeOnline:
			d.do(SetLife{Node: name, Instance: node.Instance, Life: LifeSuspect, Heard: d.heard(name), Reason: fmt.Sprintf("silent for %.1f s on every link", v.Silent.Seconds())})
		case v.Live == LiveDown && node.Instance != "" && node.Life != LifeDown && node.Life != LifeFenced:
			d.do(SetLife{Node: name, Instance: node.Instance, Life: LifeDown, Heard: d.heard(name), Reason: fmt.Sprintf("silent for %.1f s on every link", v.Silent.Seconds())})
		}
		d.evidence(name)
	}
}

// boot commits a node's new instance once its daemon has spoken for it, or has had time enough.
func (d *decider) boot(node Node, v NodeView) {
	spoken := v.Report != nil && v.Report.Instance == v.Instance
	if spoken || (node.Instance != "" && d.now.Sub(node.Since) > d.s.Spec.Timing.Down) {
		d.do(Boot{Node: node.Name, Instance: v.Instance})
	}
}

// evidence commits a reading of off that was made since a node fell silent: it is a proof before any order.
func (d *decider) evidence(name NodeName) {
	node, v := d.s.Nodes[name], d.v.Nodes[name]
	if v.Off == nil || v.Live == LiveOnline || v.Live == LiveUnknown {
		return
	}
	if v.Off.Instance != node.Instance || node.Life == LifeFenced {
		return
	}
	d.do(AddProof{Node: name, Heard: d.heard(name), Ordered: node.Since, Proof: *v.Off})
}

// heard is when the node was last heard: a leader before this one may know better.
func (d *decider) heard(name NodeName) Time {
	heard := d.now.Add(-d.v.Nodes[name].Silent)
	if node := d.s.Nodes[name]; node.Heard != 0 && node.Life != LifeOnline {
		return min(node.Heard, heard)
	}
	return heard
}

// heardOf is when the grant's holder was last heard: an earlier life of its node was silent before this one spoke.
func (d *decider) heardOf(g Grant) Time {
	if node := d.s.Nodes[g.Node]; node.Instance != g.Instance && node.Heard != 0 {
		return node.Heard
	}
	return d.heard(g.Node)
}

// maintenance ends it in time, and keeps count of who has accepted it.
func (d *decider) maintenance() {
	if d.s.Maintenance.On && d.now >= d.s.Maintenance.End {
		d.do(EndMaintenance{})
	}
	for _, name := range d.s.NodeNames() {
		v := d.v.Nodes[name]
		if v.Live != LiveOnline {
			continue
		}
		if d.s.Maintenance.On || v.Maintenance {
			d.do(AcceptMaintenance{Node: name, Instance: v.Instance})
		} else {
			d.do(AcceptMaintenance{Node: name, Instance: v.Instance, Off: true})
		}
	}
}

// service brings one service forward.
func (d *decider) service(name ServiceName) {
	if d.s.Spec.Service(name) == nil {
		return
	}
	if svc := d.s.Services[name]; svc.Grant != nil {
		d.rebooted(svc.Grant.Node, svc.Grant.Instance)
		if _, off := d.s.FencedOff(svc); off {
			d.do(Lose{Service: name, Epoch: svc.Grant.Epoch})
		} else {
			d.tend(svc)
		}
	}
	if d.s.Services[name].Grant == nil {
		d.place(name)
	}
}

// block commits why a service can't be granted or kept, and that nothing is in the way any more.
func (d *decider) block(name ServiceName, reason string) {
	if reason != "" && !d.v.Settled {
		return
	}
	if d.s.Services[name].Blocked != reason {
		d.do(Block{Service: name, Reason: reason})
	}
}

// rebooted commits the proof that a holder's node is back as another instance and holds nothing (I3).
func (d *decider) rebooted(name NodeName, instance Instance) {
	node, v := d.s.Nodes[name], d.v.Nodes[name]
	if node.Instance == instance || instance == "" || v.Live != LiveOnline || v.Instance != node.Instance {
		return
	}
	if v.Report == nil || v.Report.Instance != v.Instance || len(v.Report.Holds) > 0 {
		return
	}
	for _, p := range d.s.proofs(instance) {
		if p.Kind == ProofRebooted {
			return
		}
	}
	proof := Proof{Kind: ProofRebooted, Instance: instance, By: string(name), Reading: "back as another instance, holding nothing"}
	c := AddProof{Node: name, Heard: node.Heard, Proof: proof}
	if f := d.s.openFence(instance); f != nil {
		c.Fence = f.ID
	}
	d.do(c)
}

// tend looks after a grant that nothing has ended yet.
func (d *decider) tend(svc Service) {
	g := *svc.Grant
	v := d.v.Nodes[g.Node]
	target := Target{Service: svc.Name, Epoch: g.Epoch}
	switch {
	case d.s.Maintenance.On: // hands off, but for an operator's own wish
		if svc.Stopped && v.Live == LiveOnline {
			d.lead(svc)
		}
	case d.s.targeted(g.Instance, target): // the fence goes on, see fences
	case g.Phase == PhaseContained:
		d.fence(svc, "contained, but not vacated", false)
	case svc.leaving() && svc.Move.Lost:
		d.fence(svc, "failover asked for", true)
	case v.Live == LiveDown:
		d.fence(svc, fmt.Sprintf("holder silent for %.1f s", v.Silent.Seconds()), false)
	case v.Live == LiveOnline && v.Instance != g.Instance:
		if d.leaseOver(target) { // its daemon does not say that it holds nothing
			d.fence(svc, "holder is back as another instance, which does not report", false)
		}
	case v.Live == LiveOnline:
		d.lead(svc)
	}
}

// lead gives a living holder what it needs to go on, or tells it to stop.
func (d *decider) lead(svc Service) {
	g := *svc.Grant
	spec := d.s.Spec.Service(svc.Name)
	age := d.now.Sub(g.Since)
	node := d.s.Nodes[g.Node]
	if g.Phase == PhaseReleasing && age > spec.StopLimit+graceRelease {
		d.fence(svc, "release not answered within its bound", false)
		return
	}
	d.block(svc.Name, "")
	switch {
	case d.s.managed():
		d.leadClaimed(svc)
	case g.Phase == PhaseReleasing:
	case svc.Stopped:
		d.do(Release{Service: svc.Name, Epoch: g.Epoch, Cause: CauseStart, Reason: "stopped by an operator"})
	case svc.leaving():
		d.move(svc)
	case d.s.clientsCut(svc): // a fence that came to nothing more: no run of this grant can write
		d.do(Release{Service: svc.Name, Epoch: g.Epoch, Cause: CauseRelocate, Reason: "its storage clients were cut off"})
	case node.Standby && d.drain(svc):
	case g.Phase == PhaseFailed:
		d.mend(svc)
	case g.Phase == PhaseStarting && age > spec.StartLimit+graceStart:
		d.do(Release{Service: svc.Name, Epoch: g.Epoch, Cause: CauseRelocate, Reason: "start not answered within its bound", Avoid: true})
	}
}

// move releases the holder if another node can take over, else answers why not.
func (d *decider) move(svc Service) {
	found := d.destinations(svc)
	if len(found) == 0 {
		return
	}
	d.do(Release{Service: svc.Name, Epoch: svc.Grant.Epoch, Cause: CauseSwitchover, Reason: fmt.Sprintf("switchover to %s", found[0])})
}

// destinations are where a move could end, best first; if there is none, the request is refused with the reason.
func (d *decider) destinations(svc Service) []NodeName {
	found, why := d.candidates(svc, svc.Grant.Node)
	if to := svc.Move.To; to != "" {
		found, why = only(found, to), fmt.Sprintf("%s: %s", to, d.unfit(svc, to))
	}
	if len(found) == 0 && d.v.Settled {
		d.do(Answer{Request: svc.Move.Request, State: RequestRefused, Answer: "no node can take over: " + why})
	}
	return found
}

// drain releases a standby holder as soon as another node can take over.
func (d *decider) drain(svc Service) bool {
	found, _ := d.candidates(svc, svc.Grant.Node)
	return len(found) > 0 &&
		d.do(Release{Service: svc.Name, Epoch: svc.Grant.Epoch, Cause: CauseSwitchover, Reason: fmt.Sprintf("%s is drained", svc.Grant.Node)})
}

// mend restarts a failed run in place, and moves the service on once its node has failed it too often.
func (d *decider) mend(svc Service) {
	g := *svc.Grant
	restart := d.s.Spec.Service(svc.Name).Restart
	if d.now < svc.NotBefore {
		return
	}
	here := 0
	for _, f := range recent(svc.Failures, d.now, restart.Window) {
		if f.Node == g.Node {
			here++
		}
	}
	if here >= restart.Failures {
		if fresh := d.fresh(svc); len(fresh) > 0 {
			d.do(Release{
				Service: svc.Name, Epoch: g.Epoch, Cause: CauseRelocate, Avoid: true,
				Reason: fmt.Sprintf("failed %d times on %s within %s", here, g.Node, restart.Window),
			})
			return
		}
	}
	d.do(Restart{Service: svc.Name, Epoch: g.Epoch, Run: g.Run, Reason: fmt.Sprintf("restart in place after failure %d", here)})
}

// fresh are candidates that have not failed the service within the window: only such a one is worth a move,
// else two sick nodes would play ping-pong with it.
func (d *decider) fresh(svc Service) []NodeName {
	var fresh []NodeName
	found, _ := d.candidates(svc, svc.Grant.Node)
	for _, name := range found {
		if svc.Avoid[name] <= d.now {
			fresh = append(fresh, name)
		}
	}
	return fresh
}
