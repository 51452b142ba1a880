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
	"github.com/keepone-ha/keepone/pkg/managed"
	"github.com/keepone-ha/keepone/pkg/op"
)

const (
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
	return a.fenced(ctx, in, send)
}

// serveFence is opFence for another member, without progress.
func (a *App) serveFence(ctx context.Context, peer core.NodeName, body json.RawMessage) (any, error) {
	var in op.Fence
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, api.Refuse("read request: %v", err)
	}
	in.By = fmt.Sprintf("%s (root on %s)", in.By, peer)
	return a.fenced(ctx, in, func(any) error { return nil })
}

// serveLeader tells a member which leader this node follows: whoever finds none with any peer may have to act alone.
func (a *App) serveLeader(context.Context, core.NodeName, json.RawMessage) (any, error) {
	return op.Leads{Leader: a.replica.Leader()}, nil
}

func (a *App) fenced(ctx context.Context, in op.Fence, send func(any) error) (any, error) {
	f := managed.Fencing{
		Leader: a.replica.Leader, Watch: watching(a.replica.Watch), Ask: a.change, Power: a.bmcs.Power, Enough: a.clientScope.ClientScopeEnough,
	}
	return f.Run(ctx, in, rand.Text(), &following{follower{began: time.Now(), send: send}})
}

// following is a follower of a fence.
type following struct{ follower }

// Say implements managed.Follower.
func (f *following) Say(text string) { f.say(0, text) }

// Look implements managed.Follower.
func (f *following) Look(state core.State, token string) (core.Request, bool) {
	f.token = token
	return f.look(state)
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
