package core

import (
	"cmp"
	"slices"
)

// ProofKind is how a fence was confirmed.
type ProofKind string

// The kinds of proof, see docs/safety.md for what confirms each.
const (
	ProofBMCOff   ProofKind = "bmc-off"  // two readings of off from the node's own BMC
	ProofRebooted ProofKind = "rebooted" // the node is back with another instance and holds nothing
	ProofWatchdog ProofKind = "watchdog" // the node's armed watchdog must have bitten
	ProofStorage  ProofKind = "storage"  // the node's storage clients are cut off and its lease has ended
	ProofHuman    ProofKind = "human"    // an operator vouched for it
)

// Scope is what a proof makes harmless.
type Scope string

// The scopes of proofs.
const (
	ScopeNode   Scope = "node"   // nothing of that instance runs any more
	ScopeClient Scope = "client" // nothing of that instance can write the service's volume any more
)

// Scope of a proof follows from its kind.
func (k ProofKind) Scope() Scope {
	if k == ProofStorage {
		return ScopeClient
	}
	return ScopeNode
}

// Proof is one confirmed reading, kept for ever in the fence that asked for it.
type Proof struct {
	Kind     ProofKind
	Instance Instance    // the very instance that was fenced
	Service  ServiceName // of a client proof, the service whose volume was cut off
	Epoch    Epoch       // of a client proof, the grant that was cut off
	By       string      // the node, or the operator, that read it
	Reading  string      // what was read, in words
	At       Time
}

// Policy says which proofs make a new grant safe.
type Policy struct {
	Require Require
	Proofs  []ProofKind // in the order in which they are tried
	// FenceableOnly: a node that could not be fenced by this policy right now is given nothing (see Fenceable).
	FenceableOnly bool `json:",omitempty"`
}

// Require says how many of a policy's proofs are needed.
type Require string

// What a policy may require.
const (
	RequireAny Require = "any"
	RequireAll Require = "all"
)

// Accepts reports whether proofs satisfy the policy for the grant of service at epoch held by instance (I3).
// A reboot and a human's word are always accepted: each says that the whole instance is gone.
func (p Policy) Accepts(proofs []Proof, instance Instance, service ServiceName, epoch Epoch) bool {
	have := map[ProofKind]bool{}
	for _, proof := range proofs {
		if proof.covers(instance, service, epoch) {
			have[proof.Kind] = true
		}
	}
	if have[ProofRebooted] || have[ProofHuman] {
		return true
	}
	met := 0
	for _, kind := range p.Proofs {
		if have[kind] {
			met++
		}
	}
	if p.Require == RequireAll {
		return met == len(p.Proofs) && met > 0
	}
	return met > 0
}

// counted names the proof that made the policy accept, for people: the newest that it asks for, else the newest.
func (p Policy) counted(proofs []Proof, instance Instance, service ServiceName, epoch Epoch) ProofKind {
	var asked, other ProofKind
	for _, proof := range proofs {
		switch {
		case !proof.covers(instance, service, epoch):
		case slices.Contains(p.Proofs, proof.Kind), proof.Kind == ProofRebooted, proof.Kind == ProofHuman:
			asked = proof.Kind
		default:
			other = proof.Kind
		}
	}
	return cmp.Or(asked, other)
}

// covers reports whether the proof speaks of this instance and, for a client proof, of this very grant (I3).
func (p Proof) covers(instance Instance, service ServiceName, epoch Epoch) bool {
	if p.Instance != instance {
		return false
	}
	return p.Kind.Scope() == ScopeNode || (p.Service == service && p.Epoch == epoch)
}

// Verdict says how far what is proven of an instance has come for one of its grants.
type Verdict struct {
	Accepted bool
	By       ProofKind   // the proof that counted
	Missing  []ProofKind // of the policy's, those that are not proven
	Ended    bool        // the grant has ended: by this proof or otherwise
}

// Verdict is for people: it judges by the policy and the grant of now, as Apply does for a fence that is open.
func (s *State) Verdict(instance Instance, t Target) Verdict {
	policy, proofs := s.Spec.PolicyOf(t.Service), s.proofs(instance)
	v := Verdict{Accepted: policy.Accepts(proofs, instance, t.Service, t.Epoch), By: policy.counted(proofs, instance, t.Service, t.Epoch)}
	g := s.Services[t.Service].Grant
	v.Ended = g == nil || g.Epoch != t.Epoch
	if !v.Ended && g.Phase == PhaseContained && v.By != "" {
		v.Accepted = true // nothing of it runs by its own word: whatever cuts its clients off is enough
	}
	for _, kind := range policy.Proofs {
		if !slices.ContainsFunc(proofs, func(p Proof) bool { return p.Kind == kind && p.covers(instance, t.Service, t.Epoch) }) {
			v.Missing = append(v.Missing, kind)
		}
	}
	return v
}
