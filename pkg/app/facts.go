package app

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/op"
)

// methodFacts is the node protocol's: what the leader sees, for anybody's status.
const methodFacts = "facts"

const factsLimit = 1500 * time.Millisecond

// serveFacts answers a member; only a leader that is sure of its quorum says that there is one.
func (a *App) serveFacts(ctx context.Context, _ core.NodeName, _ json.RawMessage) (any, error) {
	if !a.replica.Leads() {
		return nil, errors.New("this node does not lead")
	}
	seen := a.ownFacts()
	seen.Quorum = a.replica.VerifyQuorum(ctx) == nil
	return seen, nil
}

// ownFacts is what this node sees itself.
func (a *App) ownFacts() op.Facts {
	state := a.replica.State()
	now := boottime.Now()
	f := op.Facts{
		Self: a.file.Name, Doing: a.agent.Health(),
		View: a.observer.View(state, now, a.voters()), Leader: a.replica.Leader(), Now: a.replica.Now(), At: time.Now(),
		Clocks: a.clocks.all(), BMC: map[core.NodeName]string{}, Links: map[core.NodeName]map[int]time.Duration{},
	}
	f.View.CorosyncQuorate, f.Manager = a.manager.corosyncQuorate(), a.manager.facts(state.Spec)
	own := a.problems.of(state.Spec.Nodes)
	for _, name := range state.NodeNames() {
		f.Links[name] = a.observer.Links(name, now)
		problem, tried := state.BMCFound(f.View, name)
		if !tried {
			problem = own[name] // nobody reports to a node that does not lead
		}
		if problem != "" {
			f.BMC[name] = problem
		}
	}
	return f
}

// bestFacts asks the leader, and falls back to what this node sees itself.
func (a *App) bestFacts(ctx context.Context) op.Facts {
	ctx, cancel := context.WithTimeout(ctx, factsLimit)
	defer cancel()
	if leader := a.replica.Leader(); leader != "" {
		var seen op.Facts
		if err := a.peers.Call(ctx, leader, methodFacts, struct{}{}, &seen); err == nil {
			seen.Self, seen.Doing = a.file.Name, a.agent.Health()
			return seen
		}
	}
	own := a.ownFacts()
	own.Instead = true
	return own
}
