// Package relay is how the fence agent has a node fenced: by the cluster as long as any daemon knows a leader, and alone only
// under its conditions. What it asks and does is handed to it.
package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keepone-ha/keepone/pkg/api"
	"github.com/keepone-ha/keepone/pkg/clock"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/op"
)

const (
	// Elections: an election takes one to two timeouts to be noticed and one to two to be won, and one split vote more; five
	// make a bound.
	Elections = 5
	// askAgain is between two rounds in which no leader was found.
	askAgain = 200 * time.Millisecond
)

// Errors of a relay.
var (
	ErrNoLeader   = errors.New("no keepone leader was found through any node")
	ErrWrongScope = errors.New("the answer proves nothing")
	ErrDeaf       = errors.New("keeponed on this node does not answer within shell_timeout")
	// ErrNotAlone is why the agent does not shoot by itself.
	ErrNotAlone = errors.New("not powering it off alone")
)

// Relay is one wish to have a node off.
type Relay struct {
	Target, Self core.NodeName
	Election     time.Duration // Raft's timeout
	AloneDelay   time.Duration
	ShellTimeout time.Duration // of one question to corosync
	PowerTimeout time.Duration // of all: for its words alone
	NoSettings   error         // why nothing can be done alone
	// Ask has the cluster fence the node, through whichever daemon answers. led reports whether any knew a leader.
	Ask     func(ctx context.Context) (fenced op.Fenced, led bool, err error)
	Quorate func(ctx context.Context) error // nil: this node's corosync has a majority
	Shoot   func(ctx context.Context) (op.Fenced, error)
	Say     func(format string, args ...any)
}

// Off has the node fenced: by the daemon of this node, by another's, and alone only if none knows a leader for two election
// bounds. A request that is lost is asked again: the cluster has one order, however often.
func (r Relay) Off(ctx context.Context) (op.Fenced, error) {
	patience := 2 * Elections * r.Election
	last := clock.Now(ctx) // since when no leader is known
	for {
		fenced, led, err := r.Ask(ctx)
		switch {
		case !NoAnswer(err):
			return fenced, err
		case ctx.Err() != nil:
			return op.Fenced{}, fmt.Errorf("%s is not proven off within power_timeout (%s): %w", r.Target, r.PowerTimeout, err)
		case led:
			last = clock.Now(ctx)
		case r.NoSettings != nil:
			return op.Fenced{}, fmt.Errorf("%w; and alone nothing can be done: %w", err, r.NoSettings)
		case clock.Now(ctx).Sub(last) >= patience:
			return r.alone(ctx)
		}
		_ = clock.Pause(ctx, askAgain) // the next round sees that ctx has ended
	}
}

// alone powers the node off without the cluster, under all of these conditions: corosync is quorate here, no leader was known
// to any daemon for two election bounds (the caller waited for that), and both are still so after alone_delay. Success is two
// readings of off. keepone's own State learns of it from the leader's own reading of the BMC, or from the node's reboot.
func (r Relay) alone(ctx context.Context) (op.Fenced, error) {
	if r.Target == r.Self {
		return op.Fenced{}, fmt.Errorf("%w: it is this node", ErrNotAlone)
	}
	if err := r.mayShoot(ctx); err != nil {
		return op.Fenced{}, err
	}
	r.Say("no leader for %s, corosync is quorate: powering %s off alone in %s", 2*Elections*r.Election, r.Target, r.AloneDelay)
	if err := clock.Pause(ctx, r.AloneDelay); err != nil {
		return op.Fenced{}, fmt.Errorf("%w: power_timeout (%s) ended before alone_delay did: %w", ErrNotAlone, r.PowerTimeout, err)
	}
	// Another partition may have lost this race meanwhile, or keepone found a leader: look again.
	if fenced, led, err := r.Ask(ctx); led || !NoAnswer(err) {
		return fenced, err
	}
	if err := r.mayShoot(ctx); err != nil {
		return op.Fenced{}, err
	}
	return r.Shoot(ctx)
}

// mayShoot asks corosync.
func (r Relay) mayShoot(ctx context.Context) error {
	ctx, cancel := clock.WithTimeout(ctx, r.ShellTimeout)
	defer cancel()
	if err := r.Quorate(ctx); err != nil {
		return fmt.Errorf("%w: %w; and %w", ErrNotAlone, err, ErrNoLeader)
	}
	return nil
}

// Daemons are those that can be asked for a fence.
type Daemons struct {
	Local   func(ctx context.Context) (op.Fenced, error)                     // this node's
	Led     func(ctx context.Context) []core.NodeName                        // others that follow a leader, the target last
	Through func(ctx context.Context, name core.NodeName) (op.Fenced, error) // asks such a one
	Say     func(format string, args ...any)
}

// Ask tries this node's daemon, then those of the others that follow a leader. led reports whether any knew one.
func (d Daemons) Ask(ctx context.Context) (fenced op.Fenced, led bool, err error) {
	fenced, err = d.Local(ctx)
	if !NoAnswer(err) {
		return checked(fenced, err)
	}
	d.Say("%v", err)
	led = api.CodeOf(err) == api.CodeUnknown // it had begun: a leader may have taken the order
	for _, name := range d.Led(ctx) {
		led = true
		d.Say("asking through %s", name)
		var answer op.Fenced
		if answer, err = d.Through(ctx, name); !NoAnswer(err) {
			return checked(answer, err)
		}
		d.Say("%v", err)
	}
	if !led {
		err = fmt.Errorf("%w (%w)", ErrNoLeader, err)
	}
	return op.Fenced{}, led, err
}

// checked takes no answer for a proof that names none. Whether client scope is enough the daemon has decided: otherwise it
// answers with an error.
func checked(fenced op.Fenced, err error) (op.Fenced, bool, error) {
	if err == nil && fenced.Scope != core.ScopeNode && fenced.Scope != core.ScopeClient {
		err = fmt.Errorf("%w: the answer names scope %q", ErrWrongScope, fenced.Scope)
	}
	return fenced, true, err
}

// NoAnswer reports whether a daemon is not there, has no leader, or went silent: another one may do better.
func NoAnswer(err error) bool {
	if err == nil {
		return false
	}
	var unreachable *api.UnreachableError
	if errors.Is(err, api.ErrNoDaemon) || errors.Is(err, ErrDeaf) || errors.As(err, &unreachable) {
		return true
	}
	code := api.CodeOf(err)
	return code == api.CodeNoQuorum || code == api.CodeNotLeader || code == api.CodeUnknown
}
