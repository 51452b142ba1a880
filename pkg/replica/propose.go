package replica

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/wire"
)

// MethodPropose is the node method that HandlePropose serves.
const MethodPropose = "propose"

const (
	retryFirst = 20 * time.Millisecond // between two looks for a leader
	retryMost  = 200 * time.Millisecond
	// proposeLimit bounds a proposal without a deadline of its own: ten elections and more.
	proposeLimit = 10 * time.Second
	// catchUp bounds how long a forwarded proposal waits to see itself applied here.
	catchUp = time.Second
)

// Propose commits c, on the leader or through it. Done: it is applied, here too as a rule. Refused: it certainly
// had no effect; the error wraps ErrRefused and on the leader also core's reason, or ErrNoLeader. Unknown: it may be
// applied yet; the error wraps ErrUnknown. ctx bounds it, and 10 s if ctx has no deadline.
func (r *Replica) Propose(ctx context.Context, c core.Command) (core.Outcome, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, proposeLimit)
		defer cancel()
	}
	pause := retryFirst
	for {
		outcome, _, err := r.proposeOnce(ctx, c)
		if !errors.Is(err, ErrNotLeader) && !errors.Is(err, ErrNoLeader) {
			return outcome, err
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, retryMost)
		case <-ctx.Done():
			return core.Refused, fmt.Errorf("propose %s: %w", c.Kind(), ErrNoLeader)
		case <-r.failed:
			return core.Refused, fmt.Errorf("propose %s: %w", c.Kind(), ErrStopped)
		case <-r.stopping:
			return core.Refused, fmt.Errorf("propose %s: %w", c.Kind(), ErrStopped)
		}
	}
}

// proposeOnce tries once, here or at the leader. ErrNotLeader and ErrNoLeader: certainly not done, worth a retry.
func (r *Replica) proposeOnce(ctx context.Context, c core.Command) (core.Outcome, uint64, error) {
	if err := ctx.Err(); err != nil {
		return core.Refused, 0, fmt.Errorf("propose %s: %w: %w", c.Kind(), ErrNoLeader, err)
	}
	switch leader := r.Leader(); leader {
	case "":
		return core.Refused, 0, ErrNoLeader
	case r.opts.Self:
		return r.commit(ctx, r.opts.Self, c)
	default:
		return r.forward(ctx, leader, c)
	}
}

// commit proposes on the leader.
func (r *Replica) commit(ctx context.Context, by core.NodeName, c core.Command) (core.Outcome, uint64, error) {
	data, err := wire.EncodeEntry(core.Entry{At: r.Now(), Wall: time.Now(), By: by, Command: c})
	if err != nil {
		return core.Refused, 0, fmt.Errorf("propose %s: %w: %w", c.Kind(), ErrRefused, err)
	}
	limit := proposeLimit
	if deadline, ok := ctx.Deadline(); ok {
		limit = max(time.Until(deadline), time.Millisecond)
	}
	future := r.raft.Apply(data, limit)
	done := make(chan error, 1)
	go func() { done <- future.Error() }()
	select {
	case err = <-done:
	case <-r.failed:
		return core.Unknown, 0, fmt.Errorf("propose %s: %w: %w", c.Kind(), ErrUnknown, ErrStopped)
	case <-ctx.Done():
		return core.Unknown, 0, fmt.Errorf("propose %s: %w: %w", c.Kind(), ErrUnknown, context.Cause(ctx))
	}
	switch {
	case err == nil:
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress), errors.Is(err, raft.ErrEnqueueTimeout):
		return core.Refused, 0, ErrNotLeader // never reached the log
	default:
		return core.Unknown, 0, fmt.Errorf("propose %s: %w: %w", c.Kind(), ErrUnknown, err)
	}
	if refusal, ok := future.Response().(error); ok {
		if errors.Is(refusal, ErrHalt) {
			return core.Unknown, 0, fmt.Errorf("propose %s: %w: %w", c.Kind(), ErrUnknown, refusal)
		}
		return core.Refused, 0, fmt.Errorf("propose %s: %w: %w", c.Kind(), ErrRefused, refusal)
	}
	select {
	case r.nudge <- struct{}{}:
	default: // one is on its way
	}
	return core.Done, future.Index(), nil
}

// spread tells the followers at once what is committed. Raft tells them with its next message, which without more
// traffic is its idle tick; and the holder-to-be waits for its grant. A barrier is that message: it costs one small
// log entry for a burst of commands, where a short idle tick would cost CPU all the time.
func (r *Replica) spread() {
	defer r.wait.Done()
	for {
		select {
		case <-r.nudge:
			r.raft.Barrier(r.electionNow()) // an error means that there is another leader, who spreads by itself
		case <-r.stopping:
			return
		}
	}
}

type proposal struct {
	Command json.RawMessage `json:"command"`
}

// proposalAnswer keeps apart what the leader knows; a lost answer is the transport's error.
type proposalAnswer struct {
	Outcome   core.Outcome `json:"outcome"`
	Index     uint64       `json:"index,omitempty"`
	NotLeader bool         `json:"notLeader,omitempty"`
	Reason    string       `json:"reason,omitempty"`
}

// forward proposes through the leader.
func (r *Replica) forward(ctx context.Context, leader core.NodeName, c core.Command) (core.Outcome, uint64, error) {
	body, err := wire.EncodeCommand(c)
	if err != nil {
		return core.Refused, 0, fmt.Errorf("propose %s: %w: %w", c.Kind(), ErrRefused, err)
	}
	var answer proposalAnswer
	if err := r.opts.Caller.Call(ctx, leader, MethodPropose, proposal{body}, &answer); err != nil {
		var sure interface{ NotSent() bool }
		if errors.As(err, &sure) && sure.NotSent() {
			return core.Refused, 0, ErrNotLeader
		}
		return core.Unknown, 0, fmt.Errorf("propose %s: %w: %w", c.Kind(), ErrUnknown, err)
	}
	switch {
	case answer.NotLeader:
		return core.Refused, 0, ErrNotLeader
	case answer.Outcome == core.Done:
		r.await(ctx, answer.Index)
		return core.Done, answer.Index, nil
	case answer.Outcome == core.Refused:
		return core.Refused, 0, fmt.Errorf("%w by %s: %s", ErrRefused, leader, answer.Reason)
	default:
		return core.Unknown, 0, fmt.Errorf("propose %s: %w: %s", c.Kind(), ErrUnknown, answer.Reason)
	}
}

// await waits, within bounds, until this node has applied the entry.
func (r *Replica) await(ctx context.Context, index uint64) {
	ctx, cancel := context.WithTimeout(ctx, catchUp)
	defer cancel()
	for {
		v := r.fsm.view.Load()
		if v.index >= index || r.Applied() >= index {
			return
		}
		select {
		case <-v.changed:
		case <-ctx.Done():
			return
		case <-r.stopping:
			return
		}
	}
}

// HandlePropose serves MethodPropose: register it with the node protocol. peer is from the certificate; what it may
// say is up to Options.Check. It never forwards on.
func (r *Replica) HandlePropose(ctx context.Context, peer core.NodeName, body json.RawMessage) (any, error) {
	var p proposal
	if err := json.Unmarshal(body, &p); err != nil {
		return proposalAnswer{Outcome: core.Refused, Reason: err.Error()}, nil
	}
	c, err := wire.DecodeCommand(p.Command)
	if err != nil {
		return proposalAnswer{Outcome: core.Refused, Reason: err.Error()}, nil
	}
	if r.opts.Check != nil {
		if err := r.opts.Check(peer, c); err != nil {
			return proposalAnswer{Outcome: core.Refused, Reason: err.Error()}, nil
		}
	}
	if !r.Leads() {
		return proposalAnswer{Outcome: core.Refused, NotLeader: true}, nil
	}
	outcome, index, err := r.commit(ctx, peer, c)
	answer := proposalAnswer{Outcome: outcome, Index: index, NotLeader: errors.Is(err, ErrNotLeader)}
	if err != nil {
		answer.Reason = err.Error()
	}
	return answer, nil
}
