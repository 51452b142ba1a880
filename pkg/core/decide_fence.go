package core

import (
	"fmt"
	"slices"
	"time"
)

// What an attempt may take, and the wait before the next.
const (
	attemptBound = 30 * time.Second // past the executor's own bound of an attempt: it died with its answer
	retryFirst   = time.Second      // doubles
	retryMost    = 30 * time.Second
	wholeTries   = 3 // after so many attempts an operator's fence is answered as failed; it is tried on
)

// fence orders that the holder of a service be made harmless, if that helps anybody.
func (d *decider) fence(svc Service, reason string, asked bool) {
	g := *svc.Grant
	contained := g.Phase == PhaseContained
	switch {
	case d.s.openFence(g.Instance) != nil: // see fences: it takes this grant in as well
		return
	case !contained && d.s.leaseless(g.Node, g.Instance, d.now): // I5: it may run without a lease until then
		d.block(svc.Name, fmt.Sprintf("%s may have gone on without a lease for maintenance's sake; if it is off, run `keepone fence confirm %s`", g.Node, g.Node))
		return
	case asked && len(d.destinations(svc)) == 0:
		return
	case g.Node == d.v.Self && !contained: // nobody orders its own fence: leadership moves first
		return
	}
	// A fence that nobody can profit from only breaks more; cutting off what is contained breaks nothing.
	if found, why := d.candidates(svc, g.Node); len(found) == 0 && !contained {
		d.block(svc.Name, fmt.Sprintf("%s has to be fenced, but no node can take over: %s", g.Node, why))
		return
	}
	targets := d.s.targets(g.Instance)
	if contained || d.leftBehind(svc) {
		targets = []Target{{Service: svc.Name, Epoch: g.Epoch}} // its other services are well
	}
	d.do(OrderFence{
		Node: g.Node, Instance: g.Instance, Targets: d.settle(targets), Executor: d.v.Self, Reason: reason,
		Heard: d.heardOf(g), Shoot: d.mayShoot(g.Node, g.Instance) && (asked || d.unasked() && d.needsShot(targets)),
	})
}

// leaseOver reports whether no lease of the grant can live any more. The containment that a holder itself
// reported is as good. One that maintenance may have freed of its lease has none that could end (I5).
func (d *decider) leaseOver(t Target) bool {
	g := d.s.Services[t.Service].Grant
	if g == nil || g.Epoch != t.Epoch {
		return true // I3: that grant has ended, by its holder's word or by a proof, and has no lease
	}
	if g.Phase == PhaseContained {
		return true
	}
	return d.v.LeaseOver[t.Service] >= t.Epoch && !d.s.leaseless(g.Node, g.Instance, d.now)
}

// settle marks the targets whose lease is over.
func (d *decider) settle(targets []Target) []Target {
	settled := slices.Clone(targets)
	for i, t := range settled {
		settled[i].LeaseOver = t.LeaseOver || d.leaseOver(t)
	}
	return settled
}

// settleLeases commits the end of leases that an open fence waits for.
func (d *decider) settleLeases(f Fence) {
	var over []ServiceName
	for _, t := range f.Targets {
		if !t.LeaseOver && d.leaseOver(t) {
			over = append(over, t.Service)
		}
	}
	if len(over) > 0 {
		d.do(SettleLease{Fence: f.ID, Services: over})
	}
}

// unasked reports whether power-off may be ordered that nobody asked for. Where Pacemaker manages the cluster its own
// side must have quorum as well: else the other one may be about to shoot.
func (d *decider) unasked() bool {
	return !d.s.managed() || (d.v.CorosyncQuorate != nil && *d.v.CorosyncQuorate)
}

// needsShot reports whether some target's policy could not be met without power-off. What is contained needs
// nothing but its clients cut off.
func (d *decider) needsShot(targets []Target) bool {
	for _, t := range targets {
		p := d.s.Spec.PolicyOf(t.Service)
		g := d.s.Services[t.Service].Grant
		if g == nil || g.Epoch != t.Epoch || g.Phase == PhaseContained || !slices.Contains(p.Proofs, ProofBMCOff) {
			continue
		}
		if p.Require == RequireAll || !slices.Contains(p.Proofs, ProofStorage) {
			return true
		}
	}
	return false
}

// mayShoot reports whether power-off may be ordered: the node still lives as that instance, which is not proven
// off, and Raft keeps its quorum without the node: live votes count. A vote is its daemon's: reports come the way
// Raft's messages go, heartbeats do not, and a guard lives on without its daemon.
func (d *decider) mayShoot(target NodeName, instance Instance) bool {
	if spec := d.s.Spec.Node(target); spec == nil || spec.BMC == nil {
		return false
	}
	v := d.v.Nodes[target]
	if d.s.Nodes[target].Instance != instance || (v.Live == LiveOnline && v.Instance != instance) || d.s.provenOff(instance) {
		return false
	}
	return d.keepsQuorum(target)
}

// keepsQuorum reports whether Raft goes on without the node.
func (d *decider) keepsQuorum(target NodeName) bool {
	live := 0
	for _, name := range d.v.Voters {
		v := d.v.Nodes[name]
		if name != target && v.Live == LiveOnline && (name == d.v.Self || v.Report != nil) {
			live++
		}
	}
	return live > len(d.v.Voters)/2
}

// fences brings each open fence forward.
func (d *decider) fences() {
	for _, f := range d.s.Fences {
		if !f.Open() {
			continue
		}
		if f.Whole && d.back(f) {
			continue
		}
		if reason := d.moot(f); reason != "" {
			d.do(CloseFence{Fence: f.ID, Reason: reason})
			continue
		}
		d.settleLeases(f)
		executor := d.v.Nodes[f.Executor]
		lost := f.Executor != d.v.Self && (executor.Live != LiveOnline || !executor.Daemon)
		late := f.State == FenceRequested && d.now.Sub(f.Tried) > attemptBound
		again := f.State == FenceFailed && d.now.Sub(f.Tried) > retryWait(f.Attempt)
		if lost || late || again || d.grown(f) {
			d.assign(f)
		}
	}
}

// back ends a fence of a whole node that has come back by itself, holding nothing: no shot is due any more.
func (d *decider) back(f Fence) bool {
	d.rebooted(f.Node, f.Instance)
	return d.s.openFence(f.Instance) == nil
}

// grown reports whether the instance has fallen silent with grants that the fence does not cut off yet: it was
// ordered for another reason.
func (d *decider) grown(f Fence) bool {
	return d.v.Nodes[f.Node].Live == LiveDown && slices.ContainsFunc(d.s.targets(f.Instance), func(t Target) bool {
		return !d.s.targeted(f.Instance, t)
	})
}

// moot says why nothing needs the fence any more, empty if something does.
func (d *decider) moot(f Fence) string {
	if f.Whole {
		v := d.v.Nodes[f.Node]
		switch {
		case d.s.Nodes[f.Node].Instance != f.Instance:
			return "the node lives as another instance"
		case f.State == FenceFailed && f.Attempt >= wholeTries && v.Live == LiveOnline && v.Instance == f.Instance:
			return fmt.Sprintf("given up after %d attempts, the node is heard: %s", f.Attempt, f.Note)
		}
		return ""
	}
	if !d.pending(f) {
		return "no grant is left that needs it"
	}
	v := d.v.Nodes[f.Node]
	if f.State == FenceFailed && v.Live == LiveOnline && v.Daemon && v.Instance == f.Instance && !d.stuck(f) {
		return "the node is heard again"
	}
	return ""
}

// pending reports whether a grant of the fence's targets has not ended.
func (d *decider) pending(f Fence) bool {
	return slices.ContainsFunc(f.Targets, func(t Target) bool {
		g := d.s.Services[t.Service].Grant
		return g != nil && g.Epoch == t.Epoch && g.Instance == f.Instance
	})
}

// stuck reports whether a target was fenced for another reason than silence.
func (d *decider) stuck(f Fence) bool {
	return slices.ContainsFunc(f.Targets, func(t Target) bool {
		svc := d.s.Services[t.Service]
		g := svc.Grant
		return g != nil && g.Epoch == t.Epoch && (g.Phase == PhaseContained || g.Phase == PhaseReleasing || (svc.leaving() && svc.Move.Lost))
	})
}

// assign starts the next attempt, by another node if there is one: what one can't reach another may.
func (d *decider) assign(f Fence) {
	executors := d.executors(f.Node)
	if len(executors) == 0 {
		return
	}
	targets := f.Targets
	if v := d.v.Nodes[f.Node]; v.Live == LiveDown || (v.Live != LiveOnline && !f.Whole && !d.stuck(f)) {
		targets = d.s.targets(f.Instance)
	}
	d.do(AssignFence{
		Fence: f.ID, Attempt: f.Attempt, Executor: executors[f.Attempt%len(executors)], Targets: d.settle(targets),
		Shoot: d.mayShoot(f.Node, f.Instance) && (f.Whole || d.unasked() && d.worthShot(f, targets)),
	})
}

// worthShot reports whether power-off is due: all that is gentler has failed or can't suffice, a target needs
// more than its clients cut off, and some node could take it over.
func (d *decider) worthShot(f Fence, targets []Target) bool {
	if f.State != FenceFailed && !d.needsShot(targets) {
		return false
	}
	return slices.ContainsFunc(targets, func(t Target) bool {
		svc := d.s.Services[t.Service]
		if svc.Grant == nil || svc.Grant.Epoch != t.Epoch || svc.Grant.Phase == PhaseContained {
			return false
		}
		found, _ := d.candidates(svc, f.Node)
		return len(found) > 0
	})
}

// executors are the nodes that could carry out a fence, this one first.
func (d *decider) executors(target NodeName) []NodeName {
	var found []NodeName
	if target != d.v.Self {
		found = append(found, d.v.Self)
	}
	for _, name := range d.s.NodeNames() {
		v := d.v.Nodes[name]
		if name != d.v.Self && name != target && v.Live == LiveOnline && v.Daemon && v.Report != nil {
			found = append(found, name)
		}
	}
	return found
}

func retryWait(attempt int) time.Duration {
	wait := retryFirst
	for range attempt - 1 {
		if wait *= 2; wait >= retryMost {
			return retryMost
		}
	}
	return wait
}

// orderWhole carries out a wish to have a node off: by a new order, or by widening one that is open. With two orders for
// one instance a shot could be repeated.
func (d *decider) orderWhole(r Request) {
	node := d.s.Nodes[r.Node]
	targets := d.settle(d.s.targets(node.Instance))
	open := d.s.openFence(node.Instance)
	switch {
	case r.Node == d.v.Self:
		return // leadership moves first, see PreferLeader
	case !d.keepsQuorum(r.Node):
		if d.v.Settled {
			d.do(Answer{Request: r.ID, State: RequestRefused, Answer: fmt.Sprintf("without %s Raft would have no quorum, and nothing could be started", r.Node)})
		}
	case !d.mayShoot(r.Node, node.Instance):
		d.do(Answer{Request: r.ID, State: RequestRefused, Answer: fmt.Sprintf("%s has no BMC, or begins another life right now: ask again, or confirm it by hand once it is off", r.Node)})
	case open != nil:
		d.do(AssignFence{
			Fence: open.ID, Attempt: open.Attempt, Executor: d.v.Self, Shoot: true, Targets: targets, Whole: true, Request: r.ID,
		})
	default:
		d.do(OrderFence{
			Node: r.Node, Instance: node.Instance, Targets: targets, Executor: d.v.Self,
			Shoot: true, Whole: true, Heard: d.heard(r.Node), Reason: "asked by " + r.By, Request: r.ID,
		})
	}
}
