// Package managed is what a daemon does where a cluster manager orders the services: it keeps the claims of the manager's
// agents, says what its node may do, and answers who asks for a fence. What it waits on is handed to it.
package managed

import (
	"context"
	"fmt"
	"sync"

	"github.com/keepone-ha/keepone/pkg/api"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/op"
	"github.com/keepone-ha/keepone/pkg/release"
)

// Claims are what a cluster manager's agents wait for on this node. Each lasts as long as its caller does.
type Claims struct {
	mu      sync.Mutex
	waiting map[core.ServiceName][]core.Stage
	changed chan struct{}
}

// NewClaims makes an empty set.
func NewClaims() *Claims {
	return &Claims{waiting: map[core.ServiceName][]core.Stage{}, changed: make(chan struct{})}
}

// Add notes a claim until the function that it returns is called.
func (c *Claims) Add(name core.ServiceName, stage core.Stage) func() {
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

// During holds a claim for as long as f runs, however it ends: what nobody waits for any more must not be started.
func (c *Claims) During(name core.ServiceName, stage core.Stage, f func() (any, error)) (any, error) {
	defer c.Add(name, stage)()
	return f()
}

func (c *Claims) told() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// Claimed implements agent.Claims.
func (c *Claims) Claimed(name core.ServiceName) (bool, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.waiting[name]) > 0, c.changed
}

// All is the furthest stage that each service is claimed to.
func (c *Claims) All() map[core.ServiceName]core.Stage {
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

// MayClaim refuses what waiting can't mend.
func MayClaim(spec core.Spec, ask op.Claim) error {
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

// Watch is State as it is now, and a wait for what may be another one: its error is why ctx ended.
type Watch func() (core.State, func(context.Context) error)

// Await waits until the claim is met, its start has failed, or who asks has gone. Say tells what it waits for.
func Await(ctx context.Context, watch Watch, self core.NodeName, ask op.Claim, met func(core.State) (bool, string), say func(string) error) (core.Grant, error) {
	state, wait := watch()
	failed := lastFailure(state, ask.Service, self).ID
	told := ""
	for {
		ok, text := met(state)
		failure := lastFailure(state, ask.Service, self)
		switch {
		case ok:
			return *state.Services[ask.Service].Grant, nil
		case failure.ID > failed:
			return core.Grant{}, api.Refuse("%s", failure.Reason) // the cluster manager decides where it is tried next
		case text != told:
			told = text
			if err := say(told); err != nil {
				return core.Grant{}, err
			}
		}
		if err := wait(ctx); err != nil {
			return core.Grant{}, fmt.Errorf("claim %s: %w", ask.Service, err)
		}
		state, wait = watch()
	}
}

// Met says whether the claim is met on the node, and if not what it waits for. Stands says whether what it asks for is still
// here.
func Met(state core.State, self core.NodeName, instance core.Instance, ask op.Claim, stands func(core.Grant) bool) (met bool, text string) {
	svc := state.Services[ask.Service]
	g := svc.Grant
	switch {
	case g == nil && state.Maintenance.On:
		return false, "waiting for the grant: maintenance: nothing is granted until it ends"
	case g == nil && svc.Blocked != "":
		return false, "waiting for the grant: " + svc.Blocked
	case g == nil:
		return false, "waiting for the grant"
	case g.Node != self || g.Instance != instance:
		return false, fmt.Sprintf("waiting for the grant: %s still has it (%s)", g.Node, g.Phase)
	case g.Phase != core.PhaseRunning && (g.Phase != core.PhasePromoted || ask.Stage != core.StagePromoted):
		return false, fmt.Sprintf("granted at epoch %d, %s", g.Epoch, g.Phase)
	}
	if !stands(*g) {
		return false, fmt.Sprintf("waiting for the end of what was stopped here at epoch %d", g.Epoch)
	}
	return true, ""
}

// Stands reports whether what the claim asks for is still here, by the record and its tombstone: a stop needs no daemon, and a
// start may come right after it, before State has heard that the grant has ended (I7).
func Stands(g core.Grant, ask op.Claim, record release.Record, buried bool) bool {
	if record.Epoch != g.Epoch || record.Instance != g.Instance || record.Marks.Vacated || record.Marks.Dirty {
		return false
	}
	if g.Staged && ask.Stage == core.StagePromoted {
		return true // whether or not its container was stopped
	}
	return !buried && record.Attempt == g.Run
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
