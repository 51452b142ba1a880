package core

import (
	"fmt"
	"slices"
)

// OrderFence orders, once, that an instance of a node be made harmless.
type OrderFence struct {
	Node     NodeName
	Instance Instance
	Targets  []Target
	Executor NodeName
	Shoot    bool
	Whole    bool
	Heard    Time
	Ordered  Time // zero: now; earlier, if evidence was read before the order
	Reason   string
	Request  uint64
}

// Kind names the command on the wire.
func (OrderFence) Kind() string { return "order-fence" }

func (c OrderFence) apply(n *next) error {
	if _, ok := n.Nodes[c.Node]; !ok {
		return fmt.Errorf("node %q: %w", c.Node, ErrUnknown)
	}
	if c.Instance == "" {
		return fmt.Errorf("node %q was never seen, there is nothing to fence: %w", c.Node, ErrRefused)
	}
	if open := n.openFence(c.Instance); open != nil {
		return fmt.Errorf("fence %d is open for it: %w", open.ID, ErrStale) // a shot is never repeated
	}
	ordered := c.Ordered
	if ordered == 0 {
		ordered = n.Now
	}
	f := Fence{
		ID: n.id(), Node: c.Node, Instance: c.Instance, Targets: c.Targets, Executor: c.Executor, Attempt: 1,
		Reason: c.Reason, Heard: c.Heard, Ordered: ordered, Tried: n.Now, Shoot: c.Shoot, Whole: c.Whole,
		State: FenceRequested, Request: c.Request,
	}
	n.keepFence(f)
	n.note(Event{Kind: EventFence, Node: c.Node, Fence: f.ID, Request: c.Request, Reason: "fence requested: " + c.Reason})
	return nil
}

// AssignFence starts the next attempt of an open fence.
type AssignFence struct {
	Fence    uint64
	Attempt  int // the one that it follows
	Executor NodeName
	Shoot    bool
	Targets  []Target
	Whole    bool   // from here on only a proof of node scope will do
	Request  uint64 // with Whole: who wants that
}

// Kind names the command on the wire.
func (AssignFence) Kind() string { return "assign-fence" }

func (c AssignFence) apply(n *next) error {
	f, err := n.fence(c.Fence)
	switch {
	case err != nil:
		return err
	case !f.Open() || f.Attempt != c.Attempt:
		return fmt.Errorf("fence %d is %s in attempt %d: %w", f.ID, f.State, f.Attempt, ErrStale)
	}
	f.Attempt++
	f.State, f.Executor, f.Shoot, f.Targets, f.Tried = FenceRequested, c.Executor, c.Shoot, c.Targets, n.Now
	if c.Whole && !f.Whole {
		f.Whole, f.Request = true, c.Request
		n.note(Event{Kind: EventFence, Node: f.Node, Fence: f.ID, Request: f.Request, Reason: "fence is now for the whole node"})
	}
	n.keepFence(f)
	return nil
}

// SettleLease says that the leader's arithmetic has the leases of these services' grants over.
type SettleLease struct {
	Fence    uint64
	Services []ServiceName
}

// Kind names the command on the wire.
func (SettleLease) Kind() string { return "settle-lease" }

func (c SettleLease) apply(n *next) error {
	f, err := n.fence(c.Fence)
	switch {
	case err != nil:
		return err
	case !f.Open():
		return ErrStale
	}
	f.Targets = slices.Clone(f.Targets)
	for i := range f.Targets {
		if slices.Contains(c.Services, f.Targets[i].Service) {
			f.Targets[i].LeaseOver = true
		}
	}
	n.keepFence(f)
	return nil
}

// AddProof records a reading that confirms. With Fence 0 the reading came before any order, and makes a fence
// that is requested and confirmed at once.
type AddProof struct {
	Fence   uint64
	Node    NodeName // with Fence 0
	Heard   Time     // with Fence 0
	Ordered Time     // with Fence 0: when the evidence began to be read
	Proof   Proof
}

// Kind names the command on the wire.
func (AddProof) Kind() string { return "add-proof" }

func (c AddProof) apply(n *next) error {
	f, err := n.proven(c)
	if err != nil {
		return err
	}
	p := c.Proof
	p.At = n.Now
	if p.Kind == ProofRebooted && n.Nodes[f.Node].Instance == p.Instance {
		return fmt.Errorf("node %q still lives as that instance: %w", f.Node, ErrUnproven) // I3
	}
	if slices.ContainsFunc(f.Proofs, func(q Proof) bool { return q.Kind == p.Kind && q.covers(p.Instance, p.Service, p.Epoch) }) {
		return nil // said again after its answer was lost
	}
	f.Proofs = append(f.Proofs, p)
	if f.Open() && n.satisfied(f) {
		f.State, f.Closed = FenceConfirmed, n.Now
	}
	n.keepFence(f)
	n.note(Event{
		Kind: EventFence, Node: f.Node, Service: p.Service, Epoch: p.Epoch, Fence: f.ID, Proof: p.Kind,
		Request: f.Request, Reason: fmt.Sprintf("%s: %s", p.Kind, p.Reading),
	})
	if p.Kind.Scope() == ScopeNode {
		n.offline(f.Node, p)
	}
	return nil
}

// proven is the fence that the proof belongs to; the proof must speak of its very instance (I3).
func (n *next) proven(c AddProof) (Fence, error) {
	if c.Fence != 0 {
		f, err := n.fence(c.Fence)
		if err == nil && (f.Instance != c.Proof.Instance || f.Instance == "") {
			err = fmt.Errorf("fence %d is of another instance: %w", f.ID, ErrStale)
		}
		if err == nil && f.State == FenceMoot {
			err = fmt.Errorf("fence %d is moot: %w", f.ID, ErrStale)
		}
		if err == nil && c.Proof.Kind == ProofStorage && !f.settled(c.Proof) {
			err = fmt.Errorf("fence %d: the lease of %q at epoch %d may still live: %w", f.ID, c.Proof.Service, c.Proof.Epoch, ErrUnproven)
		}
		return f, err
	}
	if _, ok := n.Nodes[c.Node]; !ok {
		return Fence{}, fmt.Errorf("node %q: %w", c.Node, ErrUnknown)
	}
	if c.Proof.Instance == "" || c.Proof.Kind.Scope() != ScopeNode {
		return Fence{}, fmt.Errorf("a %s proof of instance %q needs an order: %w", c.Proof.Kind, c.Proof.Instance, ErrRefused)
	}
	if open := n.openFence(c.Proof.Instance); open != nil {
		return n.fence(open.ID)
	}
	ordered := c.Ordered
	if ordered == 0 {
		ordered = n.Now
	}
	return Fence{
		ID: n.id(), Node: c.Node, Instance: c.Proof.Instance, State: FenceConfirmed, Closed: n.Now,
		Heard: c.Heard, Ordered: ordered, Reason: "evidence", Targets: n.targets(c.Proof.Instance),
	}, nil
}

// settled reports whether the lease of the grant that a client proof speaks of is over (I3, I5).
func (f Fence) settled(p Proof) bool {
	return slices.ContainsFunc(f.Targets, func(t Target) bool {
		return t.Service == p.Service && t.Epoch == p.Epoch && t.LeaseOver
	})
}

// satisfied reports whether the fence has what it was ordered for.
func (n *next) satisfied(f Fence) bool {
	if slices.ContainsFunc(f.Proofs, func(p Proof) bool { return p.Kind.Scope() == ScopeNode }) && !n.needsMore(f) {
		return true
	}
	return !f.Whole && len(f.Targets) > 0 && !n.needsMore(f)
}

// needsMore reports whether a target's policy does not yet accept what is proven.
func (n *next) needsMore(f Fence) bool {
	proofs := append(n.proofs(f.Instance), f.Proofs...) // an earlier fence of it may have read some
	for _, t := range f.Targets {
		svc, ok := n.Services[t.Service]
		if !ok || svc.Grant == nil || svc.Grant.Epoch != t.Epoch {
			continue // that grant has ended otherwise
		}
		policy := n.Spec.PolicyOf(t.Service)
		contained := svc.Grant.Phase == PhaseContained &&
			slices.ContainsFunc(proofs, func(p Proof) bool { return p.covers(f.Instance, t.Service, t.Epoch) })
		if !contained && !policy.Accepts(proofs, f.Instance, t.Service, t.Epoch) {
			return true
		}
	}
	return false
}

// offline marks a node whose current instance is proven off.
func (n *next) offline(name NodeName, p Proof) {
	node, ok := n.Nodes[name]
	if !ok || node.Instance != p.Instance || node.Life == LifeFenced {
		return
	}
	node.Life, node.Since = LifeFenced, n.Now
	node.Reason = fmt.Sprintf("%s by %s: %s", p.Kind, p.By, p.Reading)
	n.Nodes[name] = node
	n.note(Event{Kind: EventNode, Node: name, Proof: p.Kind, Reason: "fenced: " + node.Reason})
}

// targets are the grants that an instance holds, by service name.
func (s *State) targets(instance Instance) []Target {
	var all []Target
	for _, name := range s.ServiceNames() {
		if g := s.Services[name].Grant; g != nil && g.Instance == instance {
			all = append(all, Target{Service: name, Epoch: g.Epoch})
		}
	}
	return all
}

// EndAttempt says that an attempt ended without a proof that suffices, and what each level said.
type EndAttempt struct {
	Fence   uint64
	Attempt int
	Note    string
}

// Kind names the command on the wire.
func (EndAttempt) Kind() string { return "end-attempt" }

func (c EndAttempt) apply(n *next) error {
	f, err := n.fence(c.Fence)
	switch {
	case err != nil:
		return err
	case f.State != FenceRequested || f.Attempt != c.Attempt:
		return fmt.Errorf("fence %d is %s in attempt %d: %w", f.ID, f.State, f.Attempt, ErrStale)
	}
	changed := f.Note != c.Note
	f.State, f.Note = FenceFailed, c.Note
	n.keepFence(f)
	if changed {
		n.note(Event{
			Kind: EventFence, Node: f.Node, Fence: f.ID, Request: f.Request,
			Reason: fmt.Sprintf("fence failed in attempt %d: %s", f.Attempt, c.Note),
		})
	}
	return nil
}

// CloseFence ends an open fence that nothing needs any more.
type CloseFence struct {
	Fence  uint64
	Reason string
}

// Kind names the command on the wire.
func (CloseFence) Kind() string { return "close-fence" }

func (c CloseFence) apply(n *next) error {
	f, err := n.fence(c.Fence)
	switch {
	case err != nil:
		return err
	case !f.Open():
		return ErrStale
	}
	f.State, f.Closed, f.Note = FenceMoot, n.Now, c.Reason
	n.keepFence(f)
	n.note(Event{Kind: EventFence, Node: f.Node, Fence: f.ID, Request: f.Request, Reason: "fence moot: " + c.Reason})
	return nil
}
