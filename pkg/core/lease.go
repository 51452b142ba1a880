package core

import "slices"

// Leases are the grants of the instance that the leader may name in an acknowledgement. A grant that is
// contained, fenced off, or the target of an open fence is never named: the fence's storage proof stands on
// that lease being over, and must not be raced by one that begins anew (I3, I5).
func (s *State) Leases(instance Instance) []Target {
	return slices.DeleteFunc(s.targets(instance), func(t Target) bool {
		svc := s.Services[t.Service]
		_, off := s.FencedOff(svc)
		return off || svc.Grant.Phase == PhaseContained || s.targeted(instance, t)
	})
}

// targeted reports whether an open fence of the instance is to cut off the grant.
func (s *State) targeted(instance Instance, grant Target) bool {
	f := s.openFence(instance)
	return f != nil && slices.ContainsFunc(f.Targets, func(t Target) bool {
		return t.Service == grant.Service && t.Epoch == grant.Epoch
	})
}
