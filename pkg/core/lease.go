package core

import "slices"

// Leases are the grants of the instance that the leader may name in an acknowledgement.
func (s *State) Leases(instance Instance) []Target {
	return slices.DeleteFunc(s.targets(instance), func(t Target) bool { return !s.Renewed(t.Service) })
}

// Renewed reports whether acknowledgements may name the service's grant. One that is contained, fenced off, the
// target of an open fence, or an earlier instance's is never named: the fence's storage proof stands on that lease
// being over, and must not be raced by one that begins anew (I3, I5).
func (s *State) Renewed(name ServiceName) bool {
	svc := s.Services[name]
	g := svc.Grant
	if g == nil || g.Phase == PhaseContained || s.Nodes[g.Node].Instance != g.Instance {
		return false
	}
	_, off := s.FencedOff(svc)
	return !off && !s.targeted(g.Instance, Target{Service: name, Epoch: g.Epoch})
}

// targeted reports whether an open fence of the instance is to cut off the grant.
func (s *State) targeted(instance Instance, grant Target) bool {
	f := s.openFence(instance)
	return f != nil && slices.ContainsFunc(f.Targets, func(t Target) bool {
		return t.Service == grant.Service && t.Epoch == grant.Epoch
	})
}
