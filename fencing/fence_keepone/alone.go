package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/fence"
	"github.com/keepone-ha/keepone/pkg/op"
)

// errNotAlone is why the agent does not shoot by itself.
var errNotAlone = errors.New("not powering it off alone")

// alone powers the node off without the cluster, under all of these conditions: corosync is quorate here, no leader was known
// to any daemon for two election bounds (the caller waited for that), and both are still so after alone_delay. Success is two
// readings of off. keepone's own State learns of it from the leader's own reading of the BMC, or from the node's reboot.
func (a *agent) alone(ctx context.Context, peers *peers, settings fence.Settings) (op.Fenced, error) {
	if a.Plug == a.file.Name {
		return op.Fenced{}, fmt.Errorf("%w: it is this node", errNotAlone)
	}
	if err := a.mayShoot(ctx); err != nil {
		return op.Fenced{}, err
	}
	a.say("no leader for %s, corosync is quorate: powering %s off alone in %s", 2*elections*settings.Timing.RaftElection, a.Plug, a.AloneDelay)
	if err := sleep(ctx, a.AloneDelay); err != nil {
		return op.Fenced{}, fmt.Errorf("%w: power_timeout (%s) ended before alone_delay did: %w", errNotAlone, a.PowerTimeout, err)
	}
	// Another partition may have lost this race meanwhile, or keepone found a leader: look again.
	if fenced, led, err := a.ask(ctx, peers); led || !noAnswer(err) {
		return fenced, err
	}
	if err := a.mayShoot(ctx); err != nil {
		return op.Fenced{}, err
	}
	return a.shoot(ctx, settings)
}

// mayShoot asks corosync.
func (a *agent) mayShoot(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, a.ShellTimeout)
	defer cancel()
	if err := a.quorate(ctx); err != nil {
		return fmt.Errorf("%w: %w; and %w", errNotAlone, err, errNoLeader)
	}
	return nil
}

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
