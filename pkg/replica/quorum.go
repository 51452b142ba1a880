package replica

import (
	"context"
	"fmt"
	"sync"

	"github.com/hashicorp/raft"
)

// round is one asking of the quorum, shared by all who called before it began.
type round struct {
	done chan struct{}
	err  error
}

// quorum coalesces callers of VerifyQuorum.
type quorum struct {
	mu      sync.Mutex
	next    *round // not begun yet
	running bool
}

// VerifyQuorum returns nil if at some moment after the call a majority of voters held this node for the leader of
// its term: no later leader can have passed its barrier before the call (I5). Callers share a round, but only one
// that began after they called. ErrNotLeader or ErrNoQuorum otherwise; it is bounded by two election timeouts.
func (r *Replica) VerifyQuorum(ctx context.Context) error {
	q := &r.quorum
	q.mu.Lock()
	if q.next == nil {
		q.next = &round{done: make(chan struct{})}
	}
	mine := q.next
	if !q.running {
		q.running = true
		go r.verifyRounds()
	}
	q.mu.Unlock()
	select {
	case <-mine.done:
		return mine.err
	case <-ctx.Done():
		return fmt.Errorf("verify quorum: %w: %w", ErrNoQuorum, context.Cause(ctx))
	}
}

// verifyRounds runs rounds until nobody waits.
func (r *Replica) verifyRounds() {
	q := &r.quorum
	for {
		q.mu.Lock()
		one := q.next
		q.next = nil
		if one == nil {
			q.running = false
			q.mu.Unlock()
			return
		}
		q.mu.Unlock()
		one.err = r.verifyOnce()
		close(one.done)
	}
}

// verifyOnce asks until a majority has answered to a heartbeat that was sent after the round began. Raft's
// VerifyLeader sends heartbeats at once, but counts an answer to an earlier one as well; then it is asked again.
func (r *Replica) verifyOnce() error { return r.verifySince(r.trans.clock.Add(1)) }

func (r *Replica) verifySince(began uint64) error {
	term := r.raft.CurrentTerm()
	if !r.Leads() {
		return fmt.Errorf("verify quorum: %w", ErrNotLeader)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*r.electionNow())
	defer cancel()
	for {
		if err := r.ask(ctx, r.raft.VerifyLeader); err != nil {
			return fmt.Errorf("verify quorum: %w: %w", ErrNoQuorum, err)
		}
		agreed := r.agreed(term, began)
		if !r.Leads() || r.raft.CurrentTerm() != term {
			return fmt.Errorf("verify quorum: %w", ErrNotLeader)
		}
		if agreed {
			return nil
		}
	}
}

// agreed counts the voters that hold us for the leader of term since then, ourselves included.
func (r *Replica) agreed(term uint64, since uint64) bool {
	voters, have := 0, 0
	for _, s := range r.servers() {
		if s.Suffrage != raft.Voter {
			continue
		}
		voters++
		if s.ID == r.id || r.trans.agreed(s.ID, term, since) {
			have++
		}
	}
	return have > voters/2
}
