package core

import (
	"errors"
	"fmt"
	"slices"
)

// Check says which guarantee a step from one State to the next breaks, if any. It is written apart from Apply,
// from the guarantees' words, so that every test can hold the one against the other.
func Check(was State, e Entry, is State) error {
	var broken []error
	fail := func(format string, args ...any) { broken = append(broken, fmt.Errorf(format, args...)) }
	if is.Now < was.Now || is.NextID < was.NextID {
		fail("I2: cluster time or ids went back")
	}
	for _, name := range is.ServiceNames() {
		before, after := was.Services[name], is.Services[name]
		if after.Epoch < before.Epoch {
			fail("I2: epoch of %s went from %d back to %d", name, before.Epoch, after.Epoch)
		}
		if g := after.Grant; g != nil && g.Epoch != after.Epoch {
			fail("I1: %s has a grant at epoch %d below the newest %d", name, g.Epoch, after.Epoch)
		}
		broken = append(broken, checkGrant(was, e, before, after)...)
	}
	for name, before := range was.Services {
		if _, ok := is.Services[name]; !ok && (before.Grant != nil || before.Epoch > 0) {
			fail("I2: %s was forgotten with epoch %d", name, before.Epoch)
		}
	}
	if len(is.History) > keepEvents {
		fail("history is not bounded: %d events", len(is.History))
	}
	return errors.Join(broken...)
}

// checkGrant checks one service's step.
func checkGrant(was State, e Entry, before, after Service) (broken []error) {
	fail := func(format string, args ...any) { broken = append(broken, fmt.Errorf(format, args...)) }
	switch {
	case before.Grant == nil && after.Grant != nil:
		if after.Grant.Epoch <= before.Epoch {
			fail("I2: %s was granted again at epoch %d", after.Name, after.Grant.Epoch)
		}
		if was.Maintenance.On {
			fail("maintenance: %s was granted", after.Name)
		}
	case before.Grant != nil && after.Grant == nil:
		if !endedRightly(was, e, before) {
			fail("I3: the grant of %s on %s ended by %s without vacating or an accepted proof", before.Name, before.Grant.Node, e.Kind())
		}
	case before.Grant != nil && after.Grant != nil && before.Grant.Epoch != after.Grant.Epoch:
		fail("I1: the grant of %s changed hands in one step", after.Name)
	case before.Grant != nil && before.Grant.Instance != after.Grant.Instance:
		fail("I4: the grant of %s changed its instance", after.Name)
	}
	return broken
}

// endedRightly reports whether a grant ended by its holder's word or by a proof that the policy accepts (I3).
func endedRightly(was State, e Entry, before Service) bool {
	g := before.Grant
	if v, ok := plain(e.Command).(Vacated); ok {
		return v.Instance == g.Instance && v.Epoch == g.Epoch && v.Service == before.Name
	}
	if _, ok := plain(e.Command).(Lose); !ok {
		return false
	}
	have := func(kind ProofKind) bool {
		for _, f := range was.Fences {
			if slices.ContainsFunc(f.Proofs, func(p Proof) bool {
				about := p.Kind != ProofStorage || (p.Service == before.Name && p.Epoch == g.Epoch)
				return p.Kind == kind && p.Instance == g.Instance && about
			}) {
				return true
			}
		}
		return false
	}
	if have(ProofRebooted) || have(ProofHuman) || (g.Phase == PhaseContained && have(ProofStorage)) {
		return true
	}
	policy := was.Spec.PolicyOf(before.Name)
	if policy.Require == RequireAll {
		return !slices.ContainsFunc(policy.Proofs, func(k ProofKind) bool { return !have(k) })
	}
	return slices.ContainsFunc(policy.Proofs, have)
}
