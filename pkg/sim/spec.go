package sim

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

// policies are the fencing policies that clusters are drawn with.
var policies = map[string]core.Policy{
	"default": {Require: core.RequireAny, Proofs: []core.ProofKind{core.ProofBMCOff, core.ProofStorage}},
	"bmc":     {Require: core.RequireAny, Proofs: []core.ProofKind{core.ProofBMCOff}},
	"storage": {Require: core.RequireAny, Proofs: []core.ProofKind{core.ProofStorage}},
	"both":    {Require: core.RequireAll, Proofs: []core.ProofKind{core.ProofBMCOff, core.ProofStorage}},
}

// makeSpec is the cluster document of a shape, with the timing that a new cluster has.
func makeSpec(shape Shape) core.Spec {
	spec := core.Spec{
		Cluster: "sim", Manager: shape.Manager, Fencing: policies[shape.Policy],
		Timing: core.Timing{
			Heartbeat: beatEvery, Suspect: time.Second, Lease: 3 * time.Second, LeaseMargin: 300 * time.Millisecond,
			Down: 3 * time.Second, RaftElection: election, OffReadings: 200 * time.Millisecond,
		},
	}
	for i := range shape.Nodes {
		spec.Nodes = append(spec.Nodes, core.NodeSpec{
			Name: core.NodeName(fmt.Sprintf("n%d", i+1)), Links: []netip.Addr{linkAddr(i, 0), linkAddr(i, 1)},
			BMC: &core.BMCSpec{Address: fmt.Sprintf("bmc%d", i+1), GUID: guidOf(i)}, Witness: shape.Witness && i == shape.Nodes-1,
		})
	}
	for i := range shape.Services {
		spec.Services = append(spec.Services, core.ServiceSpec{
			Name: service(i), Volume: core.VolumeSpec{Pool: "rbd", Image: string(service(i))},
			Restart:    core.RestartSpec{Failures: 3, Window: 5 * time.Minute, Backoff: 2 * time.Second, MaxBackoff: 30 * time.Second},
			StartLimit: 20 * time.Second, StopLimit: 10 * time.Second,
		})
	}
	return spec
}

// linkAddr is a node's address on a link; its storage clients come from the first.
func linkAddr(node, link int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(link), 0, byte(node + 1)})
}

// strangerAddr is the storage client of nobody in the cluster.
const strangerAddr = "192.0.2.7:0/1"
