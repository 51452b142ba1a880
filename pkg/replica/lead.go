package replica

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/core"
)

// barrierLimit bounds the wait for a new leader's first commit; without a quorum leadership ends sooner.
const barrierLimit = 10 * time.Second

var errLeadershipLost = errors.New("leadership was lost")

// Leadership is one time of leading.
type Leadership struct {
	Term uint64
	// Barrier is when everything that was committed before had been applied here. A lease that an earlier leader
	// acknowledged can't begin after it (I5): count one full lease from here before calling any lease ended.
	Barrier boottime.Time
}

// leadership hands out a context for each time that this node leads.
type leadership struct {
	mu      sync.Mutex
	stopped bool
	ctx     context.Context // nil: does not lead
	cancel  context.CancelCauseFunc
	changed chan struct{}
}

func (l *leadership) set(leads bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cancel != nil {
		l.cancel(errLeadershipLost)
		l.ctx, l.cancel = nil, nil
	}
	if leads && !l.stopped {
		l.ctx, l.cancel = context.WithCancelCause(context.Background())
	}
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

func (l *leadership) stop() {
	l.mu.Lock()
	l.stopped = true
	l.mu.Unlock()
	l.set(false)
}

// wait returns the context of the present leadership, once there is one.
func (l *leadership) wait(ctx context.Context) (context.Context, error) {
	for {
		l.mu.Lock()
		if l.ctx != nil {
			defer l.mu.Unlock()
			return l.ctx, nil
		}
		if l.stopped {
			defer l.mu.Unlock()
			return nil, ErrStopped
		}
		if l.changed == nil {
			l.changed = make(chan struct{})
		}
		changed := l.changed
		l.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// watchLeadership reads every change in its order: Raft waits for us to take it.
func (r *Replica) watchLeadership(notify <-chan bool) {
	defer r.wait.Done()
	led := false
	for {
		select {
		case leads := <-notify:
			r.lead.set(leads)
			r.pace(leads)
			led = leads
		case <-r.repace:
			r.pace(led)
		case <-r.stopping:
			return
		}
	}
}

// pace makes a leader send its heartbeats after 0.4 to 0.8 of an election timeout; followers wait for one to two. Raft
// goes by a tenth of the leader's own timeout for silence, for which a leader has no other use, and at rest that would
// cost more than all else. Each round of VerifyQuorum is a heartbeat too.
func (r *Replica) pace(leads bool) {
	timeout := r.electionNow()
	if leads {
		timeout *= 4
	}
	now := r.raft.ReloadableConfig()
	now.HeartbeatTimeout, now.ElectionTimeout = timeout, timeout
	if err := r.raft.ReloadConfig(now); err != nil {
		r.opts.Logger.Warn("heartbeats keep their pace", "node", string(r.opts.Self), "error", err)
	}
}

// SetElection changes the heartbeat and election timeout of a replica that runs. How long a leader leads without hearing of
// a majority stays as it was at the start, and no timeout goes below that: Raft takes no other then.
func (r *Replica) SetElection(timeout time.Duration) {
	if r.election.Swap(int64(timeout)) == int64(timeout) {
		return
	}
	select {
	case r.repace <- struct{}{}:
	default:
	}
}

func (r *Replica) electionNow() time.Duration { return max(time.Duration(r.election.Load()), r.lease) }

// Lead calls f each time that this node leads, once all that was committed before is applied here. The context that
// f gets dies with leadership; then f must return soon, for the next call waits for it. Lead returns when ctx ends
// (its cause) or the replica stops (ErrStopped).
func (r *Replica) Lead(ctx context.Context, f func(context.Context, Leadership)) error {
	for {
		leading, err := r.lead.wait(ctx)
		if err != nil {
			return err
		}
		if l, err := r.barrier(leading); err == nil {
			fctx, cancel := context.WithCancelCause(ctx)
			stop := context.AfterFunc(leading, func() { cancel(context.Cause(leading)) })
			f(fctx, l)
			stop()
			cancel(nil)
		} else {
			r.opts.Logger.Warn("leader without a barrier", "node", string(r.opts.Self), "error", err)
		}
		select {
		case <-leading.Done():
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(retryMost): // f returned early, or no barrier: again, while leadership lasts
		}
	}
}

// barrier waits until all that was committed before is applied, and makes sure that it happened within one term.
func (r *Replica) barrier(leading context.Context) (Leadership, error) {
	term := r.raft.CurrentTerm()
	if err := r.ask(leading, func() raft.Future { return r.raft.Barrier(barrierLimit) }); err != nil {
		return Leadership{}, fmt.Errorf("pass barrier: %w", err)
	}
	l := Leadership{Term: term, Barrier: r.opts.Clock()}
	if err := leading.Err(); err != nil || r.raft.CurrentTerm() != term || !r.Leads() {
		return Leadership{}, fmt.Errorf("pass barrier: %w", errLeadershipLost)
	}
	return l, nil
}

// ask asks Raft and waits for its answer, or ctx. A Raft that has stopped leaves some questions without an answer
// for ever, so that it is not asked then.
func (r *Replica) ask(ctx context.Context, question func() raft.Future) error {
	select {
	case <-r.failed:
		return ErrStopped
	case <-r.stopping:
		return ErrStopped
	default:
	}
	f := question()
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	select {
	case err := <-done:
		if errors.Is(err, raft.ErrNotLeader) {
			return ErrNotLeader
		}
		return err
	case <-r.failed:
		return ErrStopped
	case <-r.stopping:
		return ErrStopped
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// TransferLeadership hands leadership to another voter, and waits until it has it. ErrNotLeader if this node does
// not lead. Nothing is proposed meanwhile.
func (r *Replica) TransferLeadership(ctx context.Context, to core.NodeName) error {
	for _, m := range r.Members() {
		if m.Name != to || !m.Voter {
			continue
		}
		err := r.ask(ctx, func() raft.Future {
			return r.raft.LeadershipTransferToServer(m.id(), raft.ServerAddress(m.Name))
		})
		if err != nil {
			return fmt.Errorf("hand leadership to %s: %w", to, err)
		}
		return nil
	}
	return fmt.Errorf("hand leadership to %s: not a voter", to)
}
