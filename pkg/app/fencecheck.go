package app

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/keepone-ha/keepone/pkg/api"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/op"
)

// methodTryFence is the node protocol's: a member tries now what a fence of the others would need of it.
const methodTryFence = "try-fence"

// tryLimit bounds what one member is waited for: its own bound, and the way there and back.
const tryLimit = bmcLimit + time.Second

// tried is what a member found.
type tried struct {
	BMCs  map[core.NodeName]string
	Ready map[core.ServiceName]core.Ready
}

func (a *App) serveTryFence(ctx context.Context, _ core.NodeName, _ json.RawMessage) (any, error) {
	return a.tryFence(ctx), nil
}

// tryFence tries every other node's BMC, and this node's right to cut storage clients off, all at once.
func (a *App) tryFence(ctx context.Context) tried {
	ctx, cancel := context.WithTimeout(ctx, bmcLimit)
	defer cancel()
	var t tried
	var both sync.WaitGroup
	both.Go(func() { t.Ready = a.storage.again(ctx, a.replica.State()) })
	both.Go(func() { t.BMCs = a.checkBMCs(ctx) })
	both.Wait()
	return t
}

// tryFences has every member try it now. It returns what is seen with what they found in place of what their reports
// said, and why a member could not be asked.
func (a *App) tryFences(ctx context.Context, state core.State) (op.Facts, map[core.NodeName]string) {
	seen := a.bestFacts(ctx)
	found, silent := map[core.NodeName]tried{}, map[core.NodeName]string{}
	var mu sync.Mutex
	var asked sync.WaitGroup
	for _, name := range state.NodeNames() {
		asked.Go(func() {
			t, err := a.tryFenceAt(ctx, name)
			mu.Lock()
			defer mu.Unlock()
			if found[name] = t; err != nil {
				silent[name] = err.Error()
			}
		})
	}
	asked.Wait()
	for _, name := range state.NodeNames() {
		v := seen.View.Nodes[name]
		if silent[name] == "" {
			v = answered(v, found[name])
		} else {
			v.Report = nil // what it found a while ago is not what was asked for
		}
		seen.View.Nodes[name] = v
	}
	for _, name := range state.NodeNames() {
		delete(seen.BMC, name)
		if problem, _ := state.BMCFound(seen.View, name); problem != "" {
			seen.BMC[name] = problem
		}
	}
	return seen, silent
}

// answered is the view of a node that has just answered.
func answered(v core.NodeView, t tried) core.NodeView {
	var r core.Report
	if v.Report != nil {
		r = *v.Report
	}
	r.BMCs, r.Ready = t.BMCs, t.Ready
	v.Live, v.Daemon, v.Report = core.LiveOnline, true, &r
	return v
}

func (a *App) tryFenceAt(ctx context.Context, name core.NodeName) (tried, error) {
	if name == a.file.Name {
		return a.tryFence(ctx), nil
	}
	ctx, cancel := context.WithTimeout(ctx, tryLimit)
	defer cancel()
	var t tried
	err := a.peers.Call(ctx, name, methodTryFence, struct{}{}, &t)
	return t, err
}

func (a *App) opFenceCheck(ctx context.Context, _ api.Caller, _ json.RawMessage, _ func(any) error) (any, error) {
	state := a.replica.State()
	seen, silent := a.tryFences(ctx, state)
	return op.FenceCheck{Look: op.Look{State: toShow(state), Facts: seen}, Silent: silent}, nil
}
