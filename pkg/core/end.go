package core

import (
	"fmt"
	"maps"
	"slices"
)

// Release tells the holder to stop and vacate.
type Release struct {
	Service ServiceName
	Epoch   Epoch
	Cause   Cause // what the next grant will be given for
	Reason  string
	Avoid   bool // pass this node over for one restart window
}

// Kind names the command on the wire.
func (Release) Kind() string { return "release" }

func (c Release) apply(n *next) error {
	svc, err := n.held(c.Service, c.Epoch)
	if err != nil {
		return err
	}
	g := svc.Grant
	if g.Phase == PhaseReleasing || g.Phase == PhaseContained {
		return fmt.Errorf("the grant is %s already: %w", g.Phase, ErrStale)
	}
	g.Phase, g.Since, g.Release = PhaseReleasing, n.Now, c.Reason
	if c.Cause == CauseStart || !svc.onTheWay() {
		svc.From = Past{Node: g.Node, Cause: c.Cause, Times: Times{Released: n.Now}}
	}
	if spec := n.Spec.Service(c.Service); c.Avoid && spec != nil {
		svc = svc.avoid(g.Node, n.Now.Add(spec.Restart.Window))
	}
	n.keep(svc)
	n.note(Event{Kind: EventRelease, Service: c.Service, Node: g.Node, Epoch: c.Epoch, Reason: c.Reason})
	return nil
}

// leaving reports whether an operator's move still waits for the service's grant to end.
func (svc Service) leaving() bool {
	return svc.Move != nil && svc.Grant != nil && svc.Grant.Epoch == svc.Move.Epoch
}

// onTheWay reports whether the service has not yet answered since it was moved or lost: then the next grant
// goes on with that story, so that its event tells of the whole.
func (svc Service) onTheWay() bool {
	return !svc.Grant.Ran && svc.Grant.Cause != CauseStart
}

// avoid passes a node over until then.
func (svc Service) avoid(node NodeName, until Time) Service {
	if svc.Avoid = maps.Clone(svc.Avoid); svc.Avoid == nil {
		svc.Avoid = map[NodeName]Time{}
	}
	svc.Avoid[node] = until
	return svc
}

// Vacated is the holder's word that nothing of the grant is left on it: contained, unmounted, unmapped, and no
// I/O error or timeout on the way.
type Vacated struct {
	Service  ServiceName
	Epoch    Epoch
	Instance Instance
	Failure  string // why the activation failed, if it did
}

// Kind names the command on the wire.
func (Vacated) Kind() string { return "vacated" }

func (c Vacated) apply(n *next) error {
	svc, err := n.heldBy(c.Service, c.Epoch, c.Instance) // I3: only the very instance can say so
	if err != nil {
		return err
	}
	g := svc.Grant
	switch {
	case g.Phase == PhaseReleasing && svc.From.Node == g.Node:
		svc.From.Times.Vacated = n.Now
	case !svc.onTheWay():
		svc.From = Past{Node: g.Node, Cause: CauseStart, Times: Times{Vacated: n.Now}}
	}
	svc.Grant = nil
	if c.Failure != "" {
		svc = n.failed(svc, g.Node, c.Failure)
		if spec := n.Spec.Service(svc.Name); spec != nil {
			svc = svc.avoid(g.Node, n.Now.Add(spec.Restart.Window))
		}
	}
	n.keep(svc)
	n.note(Event{Kind: EventVacated, Service: c.Service, Node: g.Node, Epoch: c.Epoch, Reason: "vacated " + string(g.Node)})
	return nil
}

// Contained is the holder's word that nothing of the service runs there, but that it could not vacate.
type Contained struct {
	Service  ServiceName
	Epoch    Epoch
	Instance Instance
	Reason   string
}

// Kind names the command on the wire.
func (Contained) Kind() string { return "contained" }

func (c Contained) apply(n *next) error {
	svc, err := n.heldBy(c.Service, c.Epoch, c.Instance)
	if err != nil {
		return err
	}
	if svc.Grant.Phase == PhaseContained {
		return ErrStale
	}
	svc.Grant.Phase, svc.Grant.Since = PhaseContained, n.Now
	n.keep(svc)
	n.note(Event{Kind: EventContained, Service: c.Service, Node: svc.Grant.Node, Epoch: c.Epoch, Reason: c.Reason})
	return nil
}

// Lose ends a grant whose instance is fenced. Its clients are left for the next holder to cut off again, for
// a BMC may have lied.
type Lose struct {
	Service ServiceName
	Epoch   Epoch
}

// Kind names the command on the wire.
func (Lose) Kind() string { return "lose" }

// apply refuses without a proof that the policy accepts for this very instance and grant (I3).
func (c Lose) apply(n *next) error {
	svc, err := n.held(c.Service, c.Epoch)
	if err != nil {
		return err
	}
	proof, ok := n.FencedOff(svc)
	if !ok {
		return fmt.Errorf("service %q on %s: %w", c.Service, svc.Grant.Node, ErrUnproven)
	}
	g := svc.Grant
	svc.Uncut = append(slices.Clone(svc.Uncut), Client{
		Node: g.Node, Instance: g.Instance, Epoch: g.Epoch, Addresses: g.Clients,
	})
	times := n.fenceTimes(g.Instance)
	times.Proven = n.Now
	svc.From = Past{Node: g.Node, Cause: CauseFailover, Proof: proof, Times: times}
	svc.Grant = nil
	n.keep(svc)
	return nil
}

// fenceTimes are the stations of the newest fence of the instance.
func (s *State) fenceTimes(instance Instance) Times {
	var t Times
	for _, f := range s.Fences {
		if f.Instance == instance {
			t = Times{Heard: f.Heard, Ordered: f.Ordered}
		}
	}
	return t
}
