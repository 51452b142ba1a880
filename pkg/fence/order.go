package fence

import (
	"slices"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/worker"
)

// Targets are the grants that a committed order is to cut off, each with what storage must do about it (I6).
func Targets(state core.State, order core.Fence) []Target {
	var all []Target
	node := state.Spec.Node(order.Node)
	for _, t := range order.Targets {
		svc, ok := state.Services[t.Service]
		spec := state.Spec.Service(t.Service)
		if !ok || spec == nil || svc.Grant == nil || svc.Grant.Epoch != t.Epoch {
			continue
		}
		cut := worker.CutOff{Volume: spec.Volume, Epoch: t.Epoch + 1, Addresses: slices.Clone(svc.Grant.Clients)}
		for _, old := range svc.Uncut {
			cut.Addresses = append(cut.Addresses, old.Addresses...)
		}
		if node != nil {
			cut.From = node.Links
		}
		policy := state.Spec.PolicyOf(t.Service)
		if svc.Grant.Phase == core.PhaseContained {
			// Its very instance says that nothing runs: its clients are all that is left to cut off, see core.FencedOff.
			policy = core.Policy{Require: core.RequireAny, Proofs: []core.ProofKind{core.ProofStorage}}
		}
		all = append(all, Target{Target: t, Policy: policy, CutOff: cut})
	}
	return all
}

// Stands reports whether an order is still the one that its attempt began with: a power-off must never outlive it.
func Stands(state core.State, order core.Fence) bool {
	now, ok := find(state, order.ID)
	return ok && now.Open() && now.Attempt == order.Attempt && (now.Shoot || !order.Shoot)
}

// LeasesOver reports whether State says that the leases of all targets of a fence are over.
func LeasesOver(state core.State, id uint64) bool {
	order, ok := find(state, id)
	return ok && !slices.ContainsFunc(order.Targets, func(t core.Target) bool { return !t.LeaseOver })
}

func find(state core.State, id uint64) (core.Fence, bool) {
	for _, order := range state.Fences {
		if order.ID == id {
			return order, true
		}
	}
	return core.Fence{}, false
}
