package fence_test

import (
	"slices"
	"testing"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/fence"
)

func held(phase core.Phase, policy core.Policy) core.State {
	clients := append(make([]string, 0, 4), "10.0.0.2:0/1")
	return core.State{
		Spec: core.Spec{Fencing: policy, Services: []core.ServiceSpec{{Name: "one"}}, Nodes: []core.NodeSpec{{Name: "b"}}},
		Services: map[core.ServiceName]core.Service{"one": {
			Name: "one", Epoch: 4, Grant: &core.Grant{Node: "b", Instance: "b1", Epoch: 4, Phase: phase, Clients: clients},
			Uncut: []core.Client{{Node: "b", Epoch: 3, Addresses: []string{"10.0.0.2:0/0"}}},
		}},
	}
}

var orderOfOne = core.Fence{ID: 7, Node: "b", Instance: "b1", Targets: []core.Target{{Service: "one", Epoch: 4}}}

// TestTargetsOfContained: the holder says that nothing runs, so its clients are all that is left, whatever the policy.
func TestTargetsOfContained(t *testing.T) {
	bmcOnly := core.Policy{Require: core.RequireAny, Proofs: []core.ProofKind{core.ProofBMCOff}}
	targets := fence.Targets(held(core.PhaseContained, bmcOnly), orderOfOne)
	if len(targets) != 1 || !slices.Contains(targets[0].Policy.Proofs, core.ProofStorage) {
		t.Errorf("a contained holder can't be cut off: %+v", targets)
	}
	targets = fence.Targets(held(core.PhaseRunning, bmcOnly), orderOfOne)
	if len(targets) != 1 || slices.Contains(targets[0].Policy.Proofs, core.ProofStorage) {
		t.Errorf("the policy is not the document's: %+v", targets)
	}
}

// TestTargetsLeaveState: a State is never written, not even behind the end of its slices.
func TestTargetsLeaveState(t *testing.T) {
	s := held(core.PhaseRunning, core.Policy{})
	targets := fence.Targets(s, orderOfOne)
	if got := targets[0].CutOff.Addresses; !slices.Equal(got, []string{"10.0.0.2:0/1", "10.0.0.2:0/0"}) {
		t.Errorf("cuts off %v", got)
	}
	if behind := s.Services["one"].Grant.Clients[:2]; behind[1] != "" {
		t.Errorf("State was written: %v", behind)
	}
}
