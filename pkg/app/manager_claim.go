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
	if err := a.mayClaim(ask); err != nil {
		return nil, err
	}
	began := time.Now()
	_, news := a.waitingFor(a.replica.State(), ask)
	failed := news.failures
	withdraw := a.claims.add(ask.Service, ask.Stage)
	defer func() { withdraw(); nudge(a.reportNow) }()
	nudge(a.reportNow)
	told := ""
	for {
		state, changed := a.replica.Watch()
		done, news := a.waitingFor(state, ask)
		switch {
		case done != nil:
			return *done, nil
		case news.failures > failed:
			return nil, api.Refuse("%s", news.text) // the cluster manager decides where it is tried next
		case news.text != told:
			told = news.text
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
func (a *App) mayClaim(ask op.Claim) error {
	state := a.replica.State()
	spec := state.Spec.Service(ask.Service)
	switch {
	case state.Spec.Manager != core.ManagerPacemaker:
		return api.Refuse(`the cluster document says manager = %q: services start by grants alone; see docs/pacemaker.md to change it`, state.Spec.Manager)
	case spec == nil:
		return api.Refuse("the cluster document has no service %q", ask.Service)
	case ask.Stage != core.StageRunning && ask.Stage != core.StagePromoted:
		return api.Refuse("no stage %q: agent and daemon are of different versions", ask.Stage)
	}
	return nil
}

// news is how a claim stands.
type news struct {
	text     string
	failures uint64 // id of the service's newest failure on this node
}

// waitingFor says whether the claim is met, and if not what it waits for.
func (a *App) waitingFor(state core.State, ask op.Claim) (*op.Claimed, news) {
	svc := state.Services[ask.Service]
	failed := lastFailure(state, ask.Service, a.file.Name)
	n := news{failures: failed.ID}
	g := svc.Grant
	switch {
	case g == nil && svc.Blocked != "":
		n.text = "waiting for the grant: " + svc.Blocked
	case g == nil:
		n.text = "waiting for the grant"
	case g.Node != a.file.Name || g.Instance != a.instance:
		n.text = fmt.Sprintf("waiting for the grant: %s still has it (%s)", g.Node, g.Phase)
	case g.Phase == core.PhaseRunning, g.Phase == core.PhasePromoted && ask.Stage == core.StagePromoted:
		return &op.Claimed{Epoch: g.Epoch, Stage: g.Stage, Device: a.device(ask.Service)}, n
	default:
		n.text = fmt.Sprintf("granted at epoch %d, %s", g.Epoch, g.Phase)
	}
	if failed.Reason != "" && g == nil {
		n.text = failed.Reason
	}
	return nil, n
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
