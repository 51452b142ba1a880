package app

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/keepone-ha/keepone/pkg/api"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/op"
	"github.com/keepone-ha/keepone/pkg/release"
)

// claims is what a cluster manager's agents wait for on this node. Each lasts as long as its caller does.
type claims struct {
	mu      sync.Mutex
	waiting map[core.ServiceName][]core.Stage
	changed chan struct{}
}

func newClaims() *claims {
	return &claims{waiting: map[core.ServiceName][]core.Stage{}, changed: make(chan struct{})}
}

// add notes a claim until the function that it returns is called.
func (c *claims) add(name core.ServiceName, stage core.Stage) func() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting[name] = append(c.waiting[name], stage)
	c.told()
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		left := c.waiting[name]
		for i, s := range left {
			if s == stage {
				left = append(left[:i:i], left[i+1:]...)
				break
			}
		}
		if c.waiting[name] = left; len(left) == 0 {
			delete(c.waiting, name)
		}
		c.told()
	}
}

// during holds a claim for as long as f runs, however it ends: what nobody waits for any more must not be started.
func (c *claims) during(name core.ServiceName, stage core.Stage, f func() (any, error)) (any, error) {
	defer c.add(name, stage)()
	return f()
}

func (c *claims) told() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// Claimed implements agent.Claims.
func (c *claims) Claimed(name core.ServiceName) (bool, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.waiting[name]) > 0, c.changed
}

// all is the furthest stage that each service is claimed to.
func (c *claims) all() map[core.ServiceName]core.Stage {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.waiting) == 0 {
		return nil
	}
	all := map[core.ServiceName]core.Stage{}
	for name, stages := range c.waiting {
		all[name] = stages[0]
		for _, s := range stages {
			if s == core.StageRunning {
				all[name] = s
			}
		}
	}
	return all
}

// opClaim waits until this node holds the service and has brought it up. The leader sees the claim in this node's
// reports, and gives the grant if this node may have it; the agent brings it up for as long as the claim lasts.
func (a *App) opClaim(ctx context.Context, _ api.Caller, body json.RawMessage, send func(any) error) (any, error) {
	var ask op.Claim
	if err := json.Unmarshal(body, &ask); err != nil {
		return nil, api.Refuse("read request: %v", err)
	}
	if err := mayClaim(a.replica.State().Spec, ask); err != nil {
		return nil, err
	}
	defer nudge(a.reportNow)
	return a.claims.during(ask.Service, ask.Stage, func() (any, error) {
		nudge(a.reportNow)
		return a.awaitClaimed(ctx, ask, send)
	})
}

// awaitClaimed waits until the claim is met, its start has failed, or who asks has gone.
func (a *App) awaitClaimed(ctx context.Context, ask op.Claim, send func(any) error) (any, error) {
	began := time.Now()
	failed := lastFailure(a.replica.State(), ask.Service, a.file.Name).ID
	told := ""
	for {
		state, changed := a.replica.Watch()
		met, text := a.waitingFor(state, ask)
		failure := lastFailure(state, ask.Service, a.file.Name)
		switch {
		case met:
			g := state.Services[ask.Service].Grant
			return op.Claimed{Epoch: g.Epoch, Stage: g.Stage, Device: a.device(ask.Service)}, nil
		case failure.ID > failed:
			return nil, api.Refuse("%s", failure.Reason) // the cluster manager decides where it is tried next
		case text != told:
			told = text
			if err := send(op.Progress{After: time.Since(began), Text: told}); err != nil {
				return nil, err
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("claim %s: %w", ask.Service, ctx.Err())
		case <-changed:
		case <-time.After(followEvery):
		}
	}
}

// mayClaim refuses what waiting can't mend.
func mayClaim(spec core.Spec, ask op.Claim) error {
	switch {
	case spec.Manager != core.ManagerPacemaker:
		return api.Refuse(`the cluster document says manager = %q: services start by grants alone; see docs/pacemaker.md to change it`, spec.Manager)
	case spec.Service(ask.Service) == nil:
		return api.Refuse("the cluster document has no service %q", ask.Service)
	case ask.Stage != core.StageRunning && ask.Stage != core.StagePromoted:
		return api.Refuse("no stage %q: agent and daemon are of different versions", ask.Stage)
	}
	return nil
}

// waitingFor says whether the claim is met, and if not what it waits for.
func (a *App) waitingFor(state core.State, ask op.Claim) (met bool, text string) {
	svc := state.Services[ask.Service]
	g := svc.Grant
	switch {
	case g == nil && state.Maintenance.On:
		return false, "waiting for the grant: maintenance: nothing is granted until it ends"
	case g == nil && svc.Blocked != "":
		return false, "waiting for the grant: " + svc.Blocked
	case g == nil:
		return false, "waiting for the grant"
	case g.Node != a.file.Name || g.Instance != a.instance:
		return false, fmt.Sprintf("waiting for the grant: %s still has it (%s)", g.Node, g.Phase)
	case g.Phase != core.PhaseRunning && (g.Phase != core.PhasePromoted || ask.Stage != core.StagePromoted):
		return false, fmt.Sprintf("granted at epoch %d, %s", g.Epoch, g.Phase)
	}
	if !a.stands(*g, ask) {
		return false, fmt.Sprintf("waiting for the end of what was stopped here at epoch %d", g.Epoch)
	}
	return true, ""
}

// stands reports whether what the claim asks for is still here: a stop needs no daemon, and a start may come right after
// it, before State has heard that the grant has ended (I7).
func (a *App) stands(g core.Grant, ask op.Claim) bool {
	record, err := release.Load(a.file.RunDir, ask.Service)
	if err != nil || record.Epoch != g.Epoch || record.Instance != g.Instance || record.Marks.Vacated || record.Marks.Dirty {
		return false
	}
	if g.Staged && ask.Stage == core.StagePromoted {
		return true // whether or not its container was stopped
	}
	buried, _, err := release.Buried(a.file.RunDir, ask.Service, record.Epoch, record.Attempt)
	return err == nil && !buried && record.Attempt == g.Run
}

// lastFailure is the newest event that tells of the service's failure on the node.
func lastFailure(state core.State, name core.ServiceName, node core.NodeName) core.Event {
	for i := len(state.History) - 1; i >= 0; i-- {
		if e := state.History[i]; e.Kind == core.EventFailed && e.Service == name && e.Node == node {
			return e
		}
	}
	return core.Event{}
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
