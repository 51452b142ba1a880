package managed

import (
	"context"
	"fmt"
	"time"

	"github.com/keepone-ha/keepone/pkg/api"
	"github.com/keepone-ha/keepone/pkg/clock"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/drive/ipmi"
	"github.com/keepone-ha/keepone/pkg/op"
)

const (
	// freshProof: a proof of off that is no older holds without another look. No machine comes from power-off to
	// corosync's membership in less.
	freshProof = 20 * time.Second
	// readLimit bounds one reading of a BMC.
	readLimit = 2 * time.Second
)

// Fencing answers one request for a fence from State: it asks once and follows.
type Fencing struct {
	Leader func() core.NodeName
	Watch  Watch
	Ask    func(context.Context, core.Command) error
	Power  func(context.Context, core.NodeName) (ipmi.State, error)
	Enough func(context.Context, core.NodeName) (bool, string)
}

// Follower turns what happens to one request into progress.
type Follower interface {
	Say(text string)
	// Look finds the request that has the token, and tells what is new of it.
	Look(state core.State, token string) (core.Request, bool)
}

// Run commits the wish and waits for its proof. However often it is asked there is one order: core sees to that. When the
// caller hangs up, the order goes on.
func (f Fencing) Run(ctx context.Context, in op.Fence, token string, follow Follower) (any, error) {
	if f.Leader() == "" {
		return nil, &api.Error{Code: api.CodeNoQuorum, Message: "there is no leader now, nothing was ordered"}
	}
	follow.Say(fmt.Sprintf("asking the cluster to fence %s", in.Node)) // the caller knows now that this daemon lives
	if err := f.Ask(ctx, core.Ask{What: core.RequestFence, Node: in.Node, Token: token, By: in.By}); err != nil {
		return nil, err
	}
	for {
		state, wait := f.Watch()
		r, ok := follow.Look(state, token)
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
		if err := wait(ctx); err != nil {
			return nil, &api.Error{Code: api.CodeUnknown, Message: fmt.Sprintf("%s is not fenced yet, the order goes on: %v%s",
				in.Node, err, f.butClients(context.WithoutCancel(ctx), state, r))}
		}
	}
}

// proven is the proof that answered a request. An old one is looked at again: the node may have been switched on since, by a
// hand that keepone does not know of, and run what keepone does not see.
func (f Fencing) proven(ctx context.Context, state core.State, r core.Request) (any, error) {
	p, known := state.NodeProof(r.Instance)
	if known && p.At.Add(freshProof) >= r.At {
		return op.Fenced{Proof: p.Kind, Scope: core.ScopeNode, Words: r.Answer}, nil
	}
	ctx, cancel := clock.WithTimeout(ctx, readLimit)
	defer cancel()
	power, err := f.Power(ctx, r.Node)
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
func (f Fencing) clients(ctx context.Context, state core.State, r core.Request) (op.Fenced, bool) {
	proofs, all := state.ClientProofs(r.Instance)
	if !all {
		return op.Fenced{}, false
	}
	enough, why := f.Enough(ctx, r.Node)
	if !enough {
		return op.Fenced{}, false
	}
	return op.Fenced{Proof: core.ProofStorage, Scope: core.ScopeClient, Words: proofs[0].Reading + "; that is enough: " + why}, true
}

// butClients says that client scope is proven and why that is not enough, empty if it is not proven.
func (f Fencing) butClients(ctx context.Context, state core.State, r core.Request) string {
	if _, all := state.ClientProofs(r.Instance); !all || r.Instance == "" {
		return ""
	}
	_, why := f.Enough(ctx, r.Node)
	return "; only its storage clients are proven to be cut off (client scope), which is not enough: " + why
}
