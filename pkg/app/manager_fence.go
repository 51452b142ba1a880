package app

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/keepone-ha/keepone/pkg/api"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/drive/ipmi"
	"github.com/keepone-ha/keepone/pkg/fence"
	"github.com/keepone-ha/keepone/pkg/op"
)

const (
	// freshProof: a proof of off that is no older holds without another look. No machine comes from power-off to
	// corosync's membership in less.
	freshProof = 20 * time.Second
	// powerLimit bounds one answer about power: a login with its retries, and for on the time a BMC takes to show it.
	powerLimit = 10 * time.Second
	// mostPowerOns is how many nodes may wait for powerLoop: a document names no more.
	mostPowerOns = 15
)

// ClientScope says whether a proof of client scope is enough for the cluster manager. Whoever knows what runs on a node
// implements it.
type ClientScope interface {
	// ClientScopeEnough reports whether nothing but keepone's resources can be on the node and the policy lets that
	// do. why is for people, either way.
	ClientScopeEnough(ctx context.Context, node core.NodeName) (enough bool, why string)
}

// openFencing serves fence and power on the local socket, and fence to the members: one whose daemon does not answer asks
// another's.
func (a *App) openFencing(local *api.Local) {
	local.Handle(op.MethodFence, api.AccessChange, a.opFence)
	local.Handle(op.MethodPower, api.AccessChange, a.opPower)
}

func (a *App) opFence(ctx context.Context, c api.Caller, body json.RawMessage, send func(any) error) (any, error) {
	var in op.Fence
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, api.Refuse("read request: %v", err)
	}
	in.By = fmt.Sprintf("%s (%s on %s)", in.By, c.Name(), a.file.Name)
	return a.fencing().run(ctx, in, send)
}

// serveFence is opFence for another member, without progress.
func (a *App) serveFence(ctx context.Context, peer core.NodeName, body json.RawMessage) (any, error) {
	var in op.Fence
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, api.Refuse("read request: %v", err)
	}
	in.By = fmt.Sprintf("%s (root on %s)", in.By, peer)
	return a.fencing().run(ctx, in, func(any) error { return nil })
}

// serveLeader tells a member which leader this node follows: whoever finds none with any peer may have to act alone.
func (a *App) serveLeader(context.Context, core.NodeName, json.RawMessage) (any, error) {
	return op.Leads{Leader: a.replica.Leader()}, nil
}

func (a *App) fencing() fencing {
	return fencing{
		leader: a.replica.Leader, watch: a.replica.Watch, ask: a.change, power: a.bmcs.Power, enough: a.clientScope.ClientScopeEnough,
	}
}

// fencing answers one request for a fence from State: it asks once and follows.
type fencing struct {
	leader func() core.NodeName
	watch  func() (core.State, <-chan struct{})
	ask    func(context.Context, core.Command) error
	power  func(context.Context, core.NodeName) (ipmi.State, error)
	enough func(context.Context, core.NodeName) (bool, string)
}

// run commits the wish and waits for its proof. However often it is asked there is one order: core sees to that. When the
// caller hangs up, the order goes on.
func (f fencing) run(ctx context.Context, in op.Fence, send func(any) error) (any, error) {
	if f.leader() == "" {
		return nil, &api.Error{Code: api.CodeNoQuorum, Message: "there is no leader now, nothing was ordered"}
	}
	follow := follower{token: rand.Text(), began: time.Now(), send: send}
	follow.say(0, fmt.Sprintf("asking the cluster to fence %s", in.Node)) // the caller knows now that this daemon lives
	if err := f.ask(ctx, core.Ask{What: core.RequestFence, Node: in.Node, Token: follow.token, By: in.By}); err != nil {
		return nil, err
	}
	for {
		state, changed := f.watch()
		r, ok := follow.look(state)
		switch {
		case ok && r.State == core.RequestDone:
			return f.proven(ctx, state, r)
		case ok:
			if fenced, ok := f.clients(ctx, state, r); ok {
				return fenced, nil
			}
			if r.State != core.RequestOpen {
				return nil, api.Refuse("%s is not fenced: %s%s", r.Node, r.Answer, f.butClients(ctx, state, r))
			}
		}
		select {
		case <-ctx.Done():
			return nil, &api.Error{Code: api.CodeUnknown, Message: fmt.Sprintf("%s is not fenced yet, the order goes on: %v%s",
				in.Node, context.Cause(ctx), f.butClients(context.WithoutCancel(ctx), state, r))}
		case <-changed:
		case <-time.After(followEvery):
		}
	}
}

// proven is the proof that answered a request. An old one is looked at again: the node may have been switched on since, by a
// hand that keepone does not know of, and run what keepone does not see.
func (f fencing) proven(ctx context.Context, state core.State, r core.Request) (any, error) {
	p, known := state.NodeProof(r.Instance)
	if known && p.At.Add(freshProof) >= r.At {
		return op.Fenced{Proof: p.Kind, Scope: core.ScopeNode, Words: r.Answer}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	power, err := f.power(ctx, r.Node)
	if err == nil && power == ipmi.On {
		return nil, api.Refuse("%s, but its BMC says on now, and keepone does not hear it: start keepone-guard there, or power it off; then ask again", r.Answer)
	}
	words := r.Answer
	if err == nil {
		words += "; its BMC says off now"
	}
	return op.Fenced{Proof: p.Kind, Scope: core.ScopeNode, Words: words}, nil
}

// clients is an answer of client scope, where that is enough.
func (f fencing) clients(ctx context.Context, state core.State, r core.Request) (op.Fenced, bool) {
	proofs, all := state.ClientProofs(r.Instance)
	if !all {
		return op.Fenced{}, false
	}
	enough, why := f.enough(ctx, r.Node)
	if !enough {
		return op.Fenced{}, false
	}
	return op.Fenced{Proof: core.ProofStorage, Scope: core.ScopeClient, Words: proofs[0].Reading + "; that is enough: " + why}, true
}

// butClients says that client scope is proven and why that is not enough, empty if it is not proven.
func (f fencing) butClients(ctx context.Context, state core.State, r core.Request) string {
	if _, all := state.ClientProofs(r.Instance); !all || r.Instance == "" {
		return ""
	}
	_, why := f.enough(ctx, r.Node)
	return "; only its storage clients are proven to be cut off (client scope), which is not enough: " + why
}

func (a *App) opPower(ctx context.Context, c api.Caller, body json.RawMessage, _ func(any) error) (any, error) {
	var in op.Power
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, api.Refuse("read request: %v", err)
	}
	if in.On {
		a.log.Info("ordering power on", "node", string(in.Node), "by", c.Name())
		if in.Later && a.switchLater(in.Node) {
			return op.Powered{}, nil
		}
		if err := a.powerOn(ctx, in.Node); err != nil {
			return nil, err
		}
		return op.Powered{On: true}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, powerLimit)
	defer cancel()
	a.bmcs.Update(a.replica.State().Spec.Nodes)
	power, err := a.bmcs.Power(ctx, in.Node)
	if errors.Is(err, fence.ErrNoBMC) {
		return nil, api.Refuse("%v", err)
	}
	if err != nil {
		return nil, fmt.Errorf("read power of %s: %w", in.Node, err)
	}
	return op.Powered{On: power == ipmi.On}, nil
}

func (a *App) powerOn(ctx context.Context, node core.NodeName) error {
	ctx, cancel := context.WithTimeout(ctx, powerLimit)
	defer cancel()
	a.bmcs.Update(a.replica.State().Spec.Nodes)
	if err := a.bmcs.PowerOn(ctx, node); err != nil {
		return fmt.Errorf("power %s on: %w", node, err)
	}
	return nil
}

// switchLater leaves a node to powerLoop; false: too many wait.
func (a *App) switchLater(node core.NodeName) bool {
	select {
	case a.toPower <- node:
		return true
	default:
		return false
	}
}

// powerLoop switches on what was fenced for a reboot. A BMC may take seconds to show it, and whoever waits for the fence
// need not wait for that.
func (a *App) powerLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case node := <-a.toPower:
			if err := a.powerOn(ctx, node); err != nil {
				a.log.Warn("a fenced node was not switched on", "node", string(node), "err", err)
			}
		}
	}
}

// saveFencing leaves on disk what the fence agent needs when this daemon is dead and no leader is found.
func (a *App) saveFencing(state core.State) error {
	text, err := fence.SettingsOf(state).Encode()
	if err == nil {
		err = replaceFile(filepath.Join(a.file.DataDir, fence.SettingsFile), text) // 0600, as temporary files are made
	}
	if err != nil {
		return fmt.Errorf("save fencing settings: %w", err)
	}
	return nil
}
