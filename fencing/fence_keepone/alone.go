package main

import (
	"context"
	"fmt"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/fence"
	"github.com/keepone-ha/keepone/pkg/op"
)

// shoot is one attempt on the BMC alone: off is ordered until it is read twice, or ctx ends.
func (a *agent) shoot(ctx context.Context, settings fence.Settings) (op.Fenced, error) {
	var fenced op.Fenced
	err := a.withBMC(a.Plug, func(b bmc, guid string) error {
		began := time.Now()
		result := fence.Attempt(ctx, fence.Order{
			Node: a.Plug, By: string(a.file.Name), Shoot: true, Whole: true, GUID: guid, Gap: settings.Timing.OffReadings, Limit: a.PowerTimeout,
		}, fence.Parts{
			BMC: b, Now: func() core.Time { return core.Time(time.Since(began)) },
			Proved: func(p core.Proof) {
				fenced = op.Fenced{Proof: p.Kind, Scope: p.Kind.Scope(), Words: p.Reading + ", by this node alone"}
			},
		})
		if !result.Confirmed {
			return fmt.Errorf("power %s off alone: %s", a.Plug, result.Note)
		}
		return nil
	})
	return fenced, err
}
