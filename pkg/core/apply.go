package core

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// The reasons for which a command is refused. A refused command has changed nothing.
var (
	ErrStale       = errors.New("stale: it speaks of a grant, fence or version that is no longer the current one")
	ErrHeld        = errors.New("held: the last grant is neither vacated nor fenced")
	ErrUnproven    = errors.New("unproven: the policy does not accept what is proven so far")
	ErrMaintenance = errors.New("maintenance: nothing is granted until it ends")
	ErrUnknown     = errors.New("unknown name")
	ErrRefused     = errors.New("refused")
)

// Bounds of what State keeps.
const (
	keepEvents   = 512
	keepFences   = 64
	keepRequests = 64
	keepFailures = 64 // of a service: no sane back-off fits more into a window
)

// next is the State that a command is building.
type next struct {
	State
	entry Entry
}

// Apply returns the State after the entry, or why it is refused; then the State is the one given. It is
// deterministic: every member gets the same State from the same entries.
func Apply(s State, e Entry) (State, error) {
	if e.Command == nil {
		return s, fmt.Errorf("apply entry: no command: %w", ErrUnknown)
	}
	n := &next{State: s, entry: e}
	n.Nodes = maps.Clone(s.Nodes)
	n.Services = maps.Clone(s.Services)
	n.Now = max(s.Now, e.At) // cluster time never goes back, whoever leads
	n.entry.At = n.Now
	if err := e.apply(n); err != nil {
		return s, fmt.Errorf("apply %s: %w", e.Kind(), err)
	}
	n.trim()
	return n.State, nil
}

// service hands out a copy to change; put it back with keep.
func (n *next) service(name ServiceName) (Service, error) {
	svc, ok := n.Services[name]
	if !ok {
		return svc, fmt.Errorf("service %q: %w", name, ErrUnknown)
	}
	if svc.Grant != nil {
		g := *svc.Grant
		svc.Grant = &g
	}
	return svc, nil
}

// held hands out the service if the command speaks of its current grant.
func (n *next) held(name ServiceName, epoch Epoch) (Service, error) {
	svc, err := n.service(name)
	if err != nil {
		return svc, err
	}
	if svc.Grant == nil || svc.Grant.Epoch != epoch {
		return svc, fmt.Errorf("service %q epoch %d, now at %d: %w", name, epoch, svc.Epoch, ErrStale)
	}
	return svc, nil
}

// heldBy is held for what a holder says itself: the very instance must speak (I4).
func (n *next) heldBy(name ServiceName, epoch Epoch, instance Instance) (Service, error) {
	svc, err := n.held(name, epoch)
	if err == nil && svc.Grant.Instance != instance {
		err = fmt.Errorf("service %q is held by another instance: %w", name, ErrStale)
	}
	return svc, err
}

func (n *next) keep(svc Service) { n.Services[svc.Name] = svc }

func (n *next) id() uint64 {
	n.NextID++
	return n.NextID
}

// note appends to the history.
func (n *next) note(e Event) {
	e.ID, e.At, e.Wall = n.id(), n.Now, n.entry.Wall
	n.History = append(n.History[:len(n.History):len(n.History)], e)
}

// fence hands out a copy to change; put it back with keepFence.
func (n *next) fence(id uint64) (Fence, error) {
	for _, f := range n.Fences {
		if f.ID == id {
			f.Proofs = slices.Clone(f.Proofs)
			return f, nil
		}
	}
	return Fence{}, fmt.Errorf("fence %d: %w", id, ErrUnknown)
}

func (n *next) keepFence(f Fence) {
	n.Fences = slices.Clone(n.Fences)
	for i := range n.Fences {
		if n.Fences[i].ID == f.ID {
			n.Fences[i] = f
			return
		}
	}
	n.Fences = append(n.Fences, f)
}

func (n *next) keepRequest(r Request) {
	n.Requests = slices.Clone(n.Requests)
	for i := range n.Requests {
		if n.Requests[i].ID == r.ID {
			n.Requests[i] = r
			return
		}
	}
	n.Requests = append(n.Requests, r)
}

// trim keeps State bounded. An open fence or request stays, and so does every proof about an instance that
// still has a grant (I3).
func (n *next) trim() {
	if over := len(n.History) - keepEvents; over > 0 {
		n.History = slices.Clone(n.History[over:])
	}
	if len(n.Fences) > keepFences {
		n.Fences = dropOldest(n.Fences, len(n.Fences)-keepFences, func(f Fence) bool {
			return !f.Open() && !n.hasGrant(f.Instance)
		})
	}
	if len(n.Requests) > keepRequests {
		n.Requests = dropOldest(n.Requests, len(n.Requests)-keepRequests, func(r Request) bool {
			return r.State != RequestOpen
		})
	}
}

// dropOldest returns all without the first count entries that may go.
func dropOldest[T any](all []T, count int, may func(T) bool) []T {
	kept := make([]T, 0, len(all))
	for _, one := range all {
		if count > 0 && may(one) {
			count--
			continue
		}
		kept = append(kept, one)
	}
	return kept
}

func (s *State) hasGrant(instance Instance) bool {
	for _, svc := range s.Services {
		if svc.Grant != nil && svc.Grant.Instance == instance {
			return true
		}
	}
	return false
}

// proofs returns every proof about the instance.
func (s *State) proofs(instance Instance) []Proof {
	var all []Proof
	for _, f := range s.Fences {
		if f.Instance == instance {
			all = append(all, f.Proofs...)
		}
	}
	return all
}

// openFence returns the open fence of the instance, or nil.
func (s *State) openFence(instance Instance) *Fence {
	for i := range s.Fences {
		if s.Fences[i].Instance == instance && s.Fences[i].Open() {
			return &s.Fences[i]
		}
	}
	return nil
}

// FencedOff reports whether what is proven makes the service's last grant harmless (I3).
func (s *State) FencedOff(svc Service) (ProofKind, bool) {
	g := svc.Grant
	if g == nil {
		return "", false
	}
	proofs := s.proofs(g.Instance)
	policy := s.Spec.PolicyOf(svc.Name)
	ok := policy.Accepts(proofs, g.Instance, svc.Name, g.Epoch)
	if g.Phase == PhaseContained && !ok {
		// The very instance says that nothing of the service runs: its clients are all that is left to cut off.
		ok = Policy{Require: RequireAny, Proofs: []ProofKind{ProofStorage}}.Accepts(proofs, g.Instance, svc.Name, g.Epoch)
	}
	if !ok {
		return "", false
	}
	return policy.counted(proofs, g.Instance, svc.Name, g.Epoch), true
}

// provenOff reports whether a proof of node scope speaks of the instance.
func (s *State) provenOff(instance Instance) bool {
	_, off := s.NodeProof(instance)
	return off
}

// NodeProof returns the first proof of node scope that speaks of the instance.
func (s *State) NodeProof(instance Instance) (Proof, bool) {
	for _, p := range s.proofs(instance) {
		if p.Instance == instance && p.Kind.Scope() == ScopeNode {
			return p, true
		}
	}
	return Proof{}, false
}

// ClientProofs returns the proofs of client scope of the grants that the newest fence of the instance is to cut off.
// all says that there is one for each, and at least one.
func (s *State) ClientProofs(instance Instance) (proofs []Proof, all bool) {
	var targets []Target
	for _, f := range s.Fences {
		if f.Instance == instance {
			targets = f.Targets
		}
	}
	for _, t := range targets {
		for _, p := range s.proofs(instance) {
			if p.Kind.Scope() == ScopeClient && p.covers(instance, t.Service, t.Epoch) {
				proofs = append(proofs, p)
				break
			}
		}
	}
	return proofs, len(targets) > 0 && len(proofs) == len(targets)
}

func sortedInstances(set map[Instance]bool) []Instance { return slices.Sorted(maps.Keys(set)) }
