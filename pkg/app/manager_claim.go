package app

import (
	"context"
	"encoding/json"
	"time"

	"github.com/keepone-ha/keepone/pkg/api"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/managed"
	"github.com/keepone-ha/keepone/pkg/op"
	"github.com/keepone-ha/keepone/pkg/release"
)

// opClaim waits until this node holds the service and has brought it up. The leader sees the claim in this node's
// reports, and gives the grant if this node may have it; the agent brings it up for as long as the claim lasts.
func (a *App) opClaim(ctx context.Context, _ api.Caller, body json.RawMessage, send func(any) error) (any, error) {
	var ask op.Claim
	if err := json.Unmarshal(body, &ask); err != nil {
		return nil, api.Refuse("read request: %v", err)
	}
	if err := managed.MayClaim(a.replica.State().Spec, ask); err != nil {
		return nil, err
	}
	defer nudge(a.reportNow)
	return a.claims.During(ask.Service, ask.Stage, func() (any, error) {
		nudge(a.reportNow)
		return a.awaitClaimed(ctx, ask, send)
	})
}

// awaitClaimed waits until the claim is met, its start has failed, or who asks has gone.
func (a *App) awaitClaimed(ctx context.Context, ask op.Claim, send func(any) error) (any, error) {
	began := time.Now()
	g, err := managed.Await(ctx, watching(a.replica.Watch), a.file.Name, ask,
		func(state core.State) (bool, string) { return a.waitingFor(state, ask) },
		func(text string) error { return send(op.Progress{After: time.Since(began), Text: text}) })
	if err != nil {
		return nil, err
	}
	return op.Claimed{Epoch: g.Epoch, Stage: g.Stage, Device: a.device(ask.Service)}, nil
}

// watching follows State for code that waits on it.
func watching(watch func() (core.State, <-chan struct{})) managed.Watch {
	return func() (core.State, func(context.Context) error) {
		state, changed := watch()
		return state, func(ctx context.Context) error {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-changed:
			case <-time.After(followEvery):
			}
			return nil
		}
	}
}

// waitingFor says whether the claim is met, and if not what it waits for.
func (a *App) waitingFor(state core.State, ask op.Claim) (met bool, text string) {
	return managed.Met(state, a.file.Name, a.instance, ask, func(g core.Grant) bool {
		record, err := release.Load(a.file.RunDir, ask.Service)
		if err != nil {
			return false
		}
		buried, _, err := release.Buried(a.file.RunDir, ask.Service, record.Epoch, record.Attempt)
		return err == nil && managed.Stands(g, ask, record, buried)
	})
}

// opWake has the service looked at now.
func (a *App) opWake(_ context.Context, _ api.Caller, body json.RawMessage, _ func(any) error) (any, error) {
	var ask op.Wake
	if err := json.Unmarshal(body, &ask); err != nil {
		return nil, api.Refuse("read request: %v", err)
	}
	a.agent.Wake(ask.Service)
	nudge(a.reportNow)
	return struct{}{}, nil
}
