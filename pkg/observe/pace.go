package observe

import (
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

const (
	decideSoon = 50 * time.Millisecond // silence, and a time that comes, are noticed by looking
	decideCalm = 250 * time.Millisecond
)

// LookAgain is how long nothing can happen but what wakes the leader by itself: soon while anything is under way,
// and never later than the next node could be suspect.
func LookAgain(state core.State, view core.View) time.Duration {
	wait := decideCalm
	for name, node := range view.Nodes {
		switch node.Live {
		case core.LiveOnline:
			wait = min(wait, state.Spec.Timing.Suspect-node.Silent)
		case core.LiveDown:
			if life := state.Nodes[name].Life; life != core.LifeDown && life != core.LifeFenced {
				return decideSoon
			}
		case core.LiveSuspect, core.LiveUnknown:
			return decideSoon
		}
	}
	if !state.AtRest() {
		return decideSoon
	}
	return max(wait, decideSoon)
}

// Longer counts for leases of both timings: within one leadership it never gets shorter.
func Longer(was, now core.Timing) core.Timing {
	was.Lease, was.LeaseMargin = max(was.Lease, now.Lease), max(was.LeaseMargin, now.LeaseMargin)
	return was
}
