package ipmi

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// idleLimit: BMCs have few sessions (four as a rule) and every node of the cluster uses them, so one that
	// rests is given back. It races the BMC's own limit of 60 s (IPMI 2.0 §6.12.15) and is far below it.
	idleLimit = 5 * time.Second
	// After a login that got no answer the next one waits, doubling from first to last, so that a struggling
	// BMC is not flooded. last is small beside the bound of a fence.
	firstPause = 50 * time.Millisecond
	lastPause  = 500 * time.Millisecond
	// A refused login is remembered this long: BMCs lock accounts after a few wrong passwords.
	refusedPause = 5 * time.Second
	// closeLimit bounds the good-bye to a BMC.
	closeLimit = 300 * time.Millisecond
	// maxHanging library calls may be left behind; then no more are made.
	maxHanging = 4
)

// BMC is the handle of one BMC. Calls are serialised: it has one session at most, kept while it is in use.
// Every call ends within Config.Limit and as soon as its context ends.
type BMC struct {
	cfg  Config
	host string
	port int

	turn chan struct{} // holds one element while a call runs
	done chan struct{} // closed by Close
	once sync.Once

	// What follows belongs to the one who holds turn.
	session   *session
	idle      *time.Timer
	pause     time.Duration
	notBefore time.Time
	refused   error // a login that was refused, until notBefore

	hanging atomic.Int32   // goroutines that are in the library
	joined  sync.WaitGroup // the same
}

// Close ends the session. Calls that run, and later ones, end with ErrClosed.
func (b *BMC) Close() error {
	b.once.Do(func() { close(b.done) })
	b.turn <- struct{}{}
	defer func() { <-b.turn }()
	b.drop()
	b.joined.Wait()
	return nil
}

// call makes one call: it takes its turn, logs in if needed, and tries until f has an answer or time is up.
// What f returns travels by value, so that a try that was given up can't change the answer of a later one.
func call[T any](ctx context.Context, b *BMC, verb string, f func(context.Context, *session) (T, error)) (T, error) {
	var none T
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Limit)
	defer cancel()
	select {
	case b.turn <- struct{}{}:
		defer func() { <-b.turn }()
	case <-ctx.Done():
		return none, b.fail(ctx, verb, ErrBusy)
	case <-b.done:
		return none, b.fail(ctx, verb, ErrClosed)
	}
	answer, err := tries(ctx, b, f)
	if err != nil {
		return none, b.fail(ctx, verb, err)
	}
	return answer, nil
}

// tries runs f on the session, on a new one if an old one does not answer. Only who holds turn calls it.
func tries[T any](ctx context.Context, b *BMC, f func(context.Context, *session) (T, error)) (T, error) {
	var none T
	for {
		err := b.ready(ctx)
		if err == nil {
			s := b.session
			var answer T
			answer, err = run(ctx, b, s, func(ctx context.Context) (T, error) { return f(ctx, s) })
			if err == nil || !retryable(err) {
				b.rest()
				return answer, err
			}
			b.drop()
		}
		if !retryable(err) || ctx.Err() != nil {
			return none, err
		}
	}
}

// ready makes sure of a session.
func (b *BMC) ready(ctx context.Context) error {
	select {
	case <-b.done:
		return ErrClosed
	default:
	}
	if b.idle != nil {
		b.idle.Stop()
	}
	if b.session != nil {
		return nil
	}
	if wait := time.Until(b.notBefore); wait > 0 {
		if b.refused != nil {
			return b.refused
		}
		if err := b.sleep(ctx, wait); err != nil {
			return err
		}
	}
	s, err := b.open(ctx)
	switch {
	case err == nil:
		b.session, b.pause, b.refused = s, 0, nil
	case errors.Is(err, ErrPassword) || errors.Is(err, ErrPrivilege) || errors.Is(err, ErrCipher):
		b.refused, b.notBefore = err, time.Now().Add(refusedPause)
	default:
		b.pause = min(max(2*b.pause, firstPause), lastPause)
		b.refused, b.notBefore = nil, time.Now().Add(b.pause)
	}
	return err
}

func (b *BMC) sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ErrUnreachable
	case <-b.done:
		return ErrClosed
	}
}

// run makes library calls on s for at most Config.Try. They run in a goroutine of their own and lose their
// socket when time is up, so that nothing in the library can hold up a caller.
func run[T any](ctx context.Context, b *BMC, s *session, f func(context.Context) (T, error)) (T, error) {
	type result struct {
		answer T
		err    error
	}
	var none T
	if b.hanging.Load() >= maxHanging {
		return none, fmt.Errorf("%w (earlier calls hang)", ErrBusy)
	}
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Try)
	defer cancel()
	results := make(chan result, 1)
	b.behind(func() {
		answer, err := f(ctx)
		results <- result{answer, err}
	})
	select {
	case r := <-results:
		return r.answer, classify(r.err)
	case <-ctx.Done():
		s.abort()
		return none, ErrUnreachable
	case <-b.done:
		s.abort()
		return none, ErrClosed
	}
}

// behind runs f in a goroutine that Close joins.
func (b *BMC) behind(f func()) {
	b.hanging.Add(1)
	b.joined.Go(func() {
		defer b.hanging.Add(-1)
		f()
	})
}

// rest gives the session back if nobody uses it for a while.
func (b *BMC) rest() {
	b.idle = time.AfterFunc(idleLimit, func() {
		select {
		case b.turn <- struct{}{}:
			b.drop()
			<-b.turn
		default: // in use again
		}
	})
}

// drop ends the session, politely if the BMC answers soon.
func (b *BMC) drop() {
	if b.idle != nil {
		b.idle.Stop()
	}
	s := b.session
	b.session = nil
	if s == nil {
		return
	}
	b.behind(s.close)
}

// fail words the error of a call. A context that its owner ended says so; time that ran out is ErrUnreachable.
func (b *BMC) fail(ctx context.Context, verb string, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		err = context.Canceled
	}
	return fmt.Errorf("%s BMC %s: %w", verb, b.cfg.Address, err)
}
