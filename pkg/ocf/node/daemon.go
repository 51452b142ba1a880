package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/keepone-ha/keepone/pkg/api"
	"github.com/keepone-ha/keepone/pkg/clock"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/ocf"
	"github.com/keepone-ha/keepone/pkg/op"
)

// Between two attempts to reach a daemon that restarts, or a cluster that elects a leader: both take about a second.
const (
	firstPause = 100 * time.Millisecond
	mostPause  = time.Second
)

// pause waits before the next attempt; false: ctx has ended.
func pause(ctx context.Context, d *time.Duration) bool {
	*d = min(max(2**d, firstPause), mostPause)
	return clock.Pause(ctx, *d) == nil && ctx.Err() == nil
}

// askLimit is for one question among several: a daemon asks its leader within 1.5 s.
const askLimit = 3 * time.Second

// Health asks the daemon how it is, within a bound of its own.
func (n Node) Health(ctx context.Context) (op.Health, error) {
	ctx, cancel := clock.WithTimeout(ctx, askLimit)
	defer cancel()
	var h op.Health
	return h, noAccess(n.Daemon.Call(ctx, op.MethodHealth, struct{}{}, nil, &h))
}

// Awake asks the daemon how it is, and asks one that is away again for as long as a restart may take.
func (n Node) Awake(ctx context.Context, patience time.Duration) (op.Health, error) {
	ctx, cancel := clock.WithTimeout(ctx, patience)
	defer cancel()
	for d := time.Duration(0); ; {
		h, err := n.Health(ctx)
		if err == nil || final(err) {
			return h, err
		}
		if !pause(ctx, &d) {
			return h, err
		}
	}
}

// noAccess gives the one error that only an operator mends its exit code.
func noAccess(err error) error {
	if errors.Is(err, api.ErrNoAccess) {
		return ocf.Fail(ocf.ErrPerm, "%v", err)
	}
	return err
}

// Probe asks the daemon whether the service is well here. answered is false if there is nobody to ask: that says
// nothing about the service.
func (n Node) Probe(ctx context.Context, service core.ServiceName, depth int) (p op.Probed, answered bool) {
	err := n.Daemon.Call(ctx, op.MethodProbe, op.Probe{Service: service, Depth: depth}, nil, &p)
	return p, err == nil
}

// Publish has the daemon set node attributes, within a bound of its own.
func (n Node) Publish(ctx context.Context, p op.Publish) error {
	ctx, cancel := clock.WithTimeout(ctx, askLimit)
	defer cancel()
	return n.Daemon.Call(ctx, op.MethodPublish, p, nil, nil)
}

// Ready waits until the daemon is well and in touch with a leader that has its quorum, and done, if there is one, says
// that it has seen what it wants. It fails at once if waiting mends nothing.
func (n Node) Ready(ctx context.Context, done func(op.Health) (bool, error)) (op.Health, error) {
	why := "the time was too short to ask even once"
	for d := time.Duration(0); ; {
		h, err := n.Health(ctx)
		if err == nil {
			err = state(h)
		}
		if err == nil && done != nil {
			err = doneOrWhy(h, done)
		}
		switch {
		case err == nil:
			return h, nil
		case final(err):
			return h, err
		case ctx.Err() == nil: // else it is our own end that is told
			why = err.Error()
		}
		if !pause(ctx, &d) {
			return op.Health{}, ocf.Fail(ocf.ErrGeneric, "not ready in time: %s", why)
		}
	}
}

var errNotDone = errors.New("not there yet")

func doneOrWhy(h op.Health, done func(op.Health) (bool, error)) error {
	ok, err := done(h)
	if err == nil && !ok {
		err = errNotDone
	}
	return err
}

// state says what is wrong with a daemon that answers.
func state(h op.Health) error {
	switch {
	case h.Manager == core.ManagerKeepone:
		return ocf.Fail(ocf.ErrConfigured, `the cluster document says manager = "keepone": resource agents may do nothing; see keepone config show`)
	case !h.Healthy:
		return fmt.Errorf("keeponed is not well: %s", h.Why)
	case h.Leader == "":
		return errors.New("no keepone leader is known")
	case !h.Quorum:
		return fmt.Errorf("leader %s is not sure of its quorum", h.Leader)
	}
	return nil
}

// Able says whether the node may bring the service up. The error is final where waiting mends nothing.
func Able(h op.Health, service core.ServiceName) (bool, error) {
	able, known := h.Services[service]
	switch {
	case !known:
		return false, ocf.Fail(ocf.ErrArgs, "the cluster document names no service %q", service)
	case able.Barred:
		return false, ocf.Fail(ocf.ErrInstalled, "this node may not have %s: %s", service, able.Reason)
	case !able.OK:
		return false, fmt.Errorf("this node can't take %s now: %s", service, able.Reason)
	}
	return true, nil
}

// final reports whether an error says by its code that asking again is of no use.
func final(err error) bool {
	var f *ocf.Failure
	return errors.As(err, &f)
}

// Claim brings the service up to a stage. A daemon that restarts meanwhile is asked again, until ctx ends: hanging up
// takes down again what was begun. A refusal is final.
func (n Node) Claim(ctx context.Context, claim op.Claim) (op.Claimed, error) {
	last := ""
	heard := func(line json.RawMessage) {
		var p op.Progress
		if json.Unmarshal(line, &p) == nil && p.Text != "" {
			last = p.Text
		}
	}
	for d := time.Duration(0); ; {
		var claimed op.Claimed
		err := noAccess(n.Daemon.Call(ctx, op.MethodClaim, claim, heard, &claimed))
		switch {
		case err == nil:
			return claimed, nil
		case final(err):
			return claimed, err
		case api.CodeOf(err) == api.CodeRefused:
			return claimed, n.refused(ctx, claim.Service, err)
		case ctx.Err() == nil:
			last = err.Error()
		}
		if !pause(ctx, &d) {
			return op.Claimed{}, ocf.Fail(ocf.ErrGeneric, "%s was not brought up in time; the last that was heard: %s", claim.Service, orNothing(last))
		}
	}
}

func orNothing(text string) string {
	if text == "" {
		return "nothing"
	}
	return text
}

// refused finds the exit code of a refusal: what the document says is of another weight than what is so just now.
func (n Node) refused(ctx context.Context, service core.ServiceName, refusal error) error {
	h, err := n.Health(ctx)
	if err == nil {
		err = state(h)
	}
	if err == nil {
		_, err = Able(h, service)
	}
	code := ocf.ErrGeneric
	var f *ocf.Failure
	if errors.As(err, &f) {
		code = f.Code
	}
	return ocf.Fail(code, "refused: %v", refusal)
}
