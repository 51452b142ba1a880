package app

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/fence"
)

const (
	// bmcLimit bounds one look at all BMCs: a login with its retries.
	bmcLimit = 8 * time.Second
	// firstBMC spreads the nodes' first looks: a BMC has a handful of sessions.
	firstBMC = 2 * time.Second
)

// watchBMCs looks at every BMC as soon as the cluster document names it, and then again and again: a wrong password
// must be known long before the night in which it counts.
func (a *App) watchBMCs(ctx context.Context) {
	var rounds sync.WaitGroup
	defer rounds.Wait()
	rounds.Go(func() {
		a.bmcs.Watch(ctx, a.file.Name, watchBMC, a.alive, func(node core.NodeName, err error) {
			if a.problems.set(node, err) {
				nudge(a.reportNow)
			}
		})
	})
	var version uint64
	for ctx.Err() == nil {
		state, changed := a.replica.Watch()
		if state.Document.Version != version {
			version = state.Document.Version
			select {
			case <-ctx.Done():
			case <-time.After(rand.N(firstBMC)):
				a.checkBMCs(ctx)
			}
			continue
		}
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
}

// checkBMCs looks at every other node's BMC once, now, and returns what is wrong with each; empty: nothing.
func (a *App) checkBMCs(ctx context.Context) map[core.NodeName]string {
	ctx, cancel := context.WithTimeout(ctx, bmcLimit)
	defer cancel()
	nodes := a.replica.State().Spec.Nodes
	a.bmcs.Update(nodes)
	var looks sync.WaitGroup
	for _, node := range nodes {
		if node.BMC == nil || node.Name == a.file.Name {
			continue
		}
		looks.Go(func() {
			before := a.alive(node.Name)
			err := a.bmcs.Ready(ctx, node.Name, before)
			if before && !a.alive(node.Name) && errors.Is(err, fence.ErrIdentity) {
				return // it went down meanwhile: off is no contradiction
			}
			a.problems.set(node.Name, err)
		})
	}
	looks.Wait()
	nudge(a.reportNow)
	return a.problems.of(nodes)
}

// bmcProblems keeps what this node last found wrong with each other node's BMC.
type bmcProblems struct {
	mu  sync.Mutex
	all map[core.NodeName]string // empty: nothing
}

// set keeps what was found, and reports whether that is news.
func (b *bmcProblems) set(name core.NodeName, err error) (news bool) {
	found := ""
	if err != nil {
		found = err.Error()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	was, tried := b.all[name]
	b.all[name] = found
	return !tried || was != found
}

// of is what was found of those nodes that have a BMC; a node is missing until it was tried.
func (b *bmcProblems) of(nodes []core.NodeSpec) map[core.NodeName]string {
	b.mu.Lock()
	defer b.mu.Unlock()
	found := map[core.NodeName]string{}
	for _, node := range nodes {
		if problem, tried := b.all[node.Name]; tried && node.BMC != nil {
			found[node.Name] = problem
		}
	}
	return found
}
