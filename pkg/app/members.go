package app

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/pki"
	"github.com/keepone-ha/keepone/pkg/replica"
)

const (
	memberEvery = time.Second
	memberNext  = 20 * time.Millisecond // after a step that was taken
	memberLimit = 5 * time.Second
)

var errNoMember = errors.New("it is no member of this cluster")

// newClusterID tells two clusters of the same name apart.
func newClusterID(name string) string {
	const most = 40
	if len(name) > most {
		name = name[:most]
	}
	return name + "-" + rand.Text()[:8]
}

// admit revokes by membership: a certificate alone is not enough. A node that has not caught up admits all.
func (a *App) admit(name core.NodeName) error {
	if a.replica == nil {
		return nil
	}
	state := a.replica.State()
	if len(state.Nodes) == 0 {
		return nil
	}
	if _, ok := state.Nodes[name]; !ok {
		return errNoMember
	}
	return nil
}

// addresses are where a node listens: by State, and until that is known as it was when it last was.
func (a *App) addresses(name core.NodeName) []netip.AddrPort {
	links := a.seeds.of(name)
	if a.replica != nil {
		state := a.replica.State()
		if spec := state.Spec.Node(name); spec != nil {
			links = spec.Links
		}
	}
	return withPort(links, a.file.Ports.API)
}

// authority keeps a node from speaking for another, and anybody but the leader from deciding.
func (a *App) authority(by core.NodeName, c core.Command) error {
	return core.Authority(a.replica.State(), by, a.file.Name, c)
}

// redeem commits that a newcomer's token is used up and that it is a member, in one step.
func (a *App) redeem(ctx context.Context, req pki.JoinRequest, secretHash string) (any, error) {
	return struct{}{}, a.change(ctx, core.Join{
		Node: req.Name, Incarnation: req.Incarnation, PublicKey: req.PublicKey, TokenID: req.TokenID, TokenHash: secretHash,
	})
}

// memberLoop makes Raft's configuration follow the members, one step at a time, while this node leads.
func (a *App) memberLoop(ctx context.Context) {
	for ctx.Err() == nil {
		wait := memberEvery
		if a.replica.Leads() {
			moved, err := a.memberStep(ctx)
			switch {
			case err != nil:
				a.log.Warn("Raft's members do not follow yet", "err", err)
			case moved:
				wait = memberNext // a cluster that grows should not stand on two votes for long
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// memberStep does the next one thing: add who joined, remove who left, or move a vote.
func (a *App) memberStep(ctx context.Context) (moved bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, memberLimit)
	defer cancel()
	state := a.replica.State()
	members := a.replica.Members()
	known := map[core.NodeName]replica.Member{}
	for _, m := range members {
		known[m.Name] = m
	}
	for _, name := range state.NodeNames() {
		node := state.Nodes[name]
		if m, ok := known[name]; !ok || m.Incarnation != node.Incarnation {
			a.log.Info("adding member", "node", string(name))
			return true, a.replica.AddNonvoter(ctx, name, node.Incarnation)
		}
	}
	for _, m := range members {
		if _, ok := state.Nodes[m.Name]; !ok && len(state.Nodes) > 0 {
			return true, a.replica.Remove(ctx, m.Name)
		}
	}
	witness := func(name core.NodeName) bool {
		spec := state.Spec.Node(name)
		return spec != nil && spec.Witness
	}
	change := replica.PlanVoters(members, a.aliveOrSelf, witness)
	if change == nil {
		return false, nil
	}
	a.log.Info("moving a vote", "node", string(change.Name), "promote", change.Promote)
	if change.Promote {
		return true, a.replica.AddVoter(ctx, change.Name, known[change.Name].Incarnation)
	}
	if change.Name == a.file.Name {
		return false, fmt.Errorf("demote the leader %s: leadership must move first", change.Name)
	}
	return true, a.replica.Demote(ctx, change.Name)
}

// aliveOrSelf counts a member as dead only once it is down: a blip moves no vote.
func (a *App) aliveOrSelf(name core.NodeName) bool {
	if name == a.file.Name {
		return true
	}
	_, heard, ok := a.observer.Beat(name)
	const patience = 30 * time.Second // a node that only reboots keeps its vote
	return ok && boottime.Now().Sub(heard) < patience
}

// methodApplied is the node protocol's: how far a leader that is sure of its quorum has applied.
const methodApplied = "applied"

func (a *App) serveApplied(ctx context.Context, _ core.NodeName, _ json.RawMessage) (any, error) {
	if !a.leading.Load() {
		return nil, replica.ErrNotLeader
	}
	if err := a.replica.VerifyQuorum(ctx); err != nil {
		return nil, err
	}
	return a.replica.Applied(), nil
}

// catchUp waits until this node has applied all that was committed when it was called. Before that its State may
// lack a grant that it holds, and the agent would take down what it should adopt.
func (a *App) catchUp(ctx context.Context) error {
	const between = 50 * time.Millisecond
	var target uint64
	for {
		if leader := a.replica.Leader(); leader != "" && target == 0 {
			bounded, cancel := context.WithTimeout(ctx, reportLimit)
			if err := a.peers.Call(bounded, leader, methodApplied, struct{}{}, &target); err != nil {
				a.log.Debug("ask the leader how far it is", "err", err)
			}
			cancel()
		}
		if target > 0 && a.replica.Applied() >= target {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(between):
		}
	}
}

// warnIdentity says so if this node's log was made with another identity: a backup of another cluster, perhaps. The
// others refuse it, and all that this node would see of that is that nobody answers.
func (a *App) warnIdentity() {
	for _, m := range a.replica.Members() {
		if m.Name == a.file.Name && m.Incarnation == a.id.Incarnation {
			return
		}
	}
	for _, m := range a.replica.Members() {
		if m.Name == a.file.Name {
			a.log.Warn("the identity in "+filepath.Join(a.file.DataDir, "pki")+" is not the one that this node's log was made with: the "+
				"cluster will refuse it unless it has joined anew; put the right one back, or empty "+a.file.DataDir+" and join again",
				"identity", a.id.Incarnation, "log", m.Incarnation)
			return
		}
	}
}
