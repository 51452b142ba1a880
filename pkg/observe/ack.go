package observe

import (
	"slices"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/guard"
)

// Ack is the leader's answer to a heartbeat that arrived before it made sure of its quorum, with the grants of the
// heartbeat's very instance. False: there is none to give.
func Ack(state core.State, h guard.Heartbeat, term uint64, now core.Time) (guard.Ack, bool) {
	node, ok := state.Nodes[h.Node]
	if !ok || node.Instance != h.Instance {
		return guard.Ack{}, false // I4: only a committed instance can hold anything
	}
	ack := guard.Ack{Instance: h.Instance, Seq: h.Seq, Sent: h.Sent, Term: term, Lease: state.Spec.Timing.Lease}
	for _, t := range state.Leases(h.Instance) {
		ack.Grants = append(ack.Grants, guard.Right{Service: t.Service, Epoch: t.Epoch})
	}
	if m := state.Maintenance; m.On && m.Accepted[node.Name] == node.Instance {
		ack.Maintenance = max(0, m.End.Sub(now)) // I5: State knows of every holder without a lease
	}
	return ack, true
}

// StillAcks reports whether state, read after the ledger noted the ack, still renews what it names. I3: else a fence
// was ordered meanwhile, and may count on the lease as it was; the next heartbeat is soon.
func StillAcks(state core.State, ack guard.Ack) bool {
	return slices.EqualFunc(state.Leases(ack.Instance), ack.Grants, func(t core.Target, r guard.Right) bool {
		return t.Service == r.Service && t.Epoch == r.Epoch
	})
}
