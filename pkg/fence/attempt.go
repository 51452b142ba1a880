package fence

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Attempt carries an order out: it reads the BMC and cuts the targets' storage clients off side by side, and
// orders power-off only where storage can't satisfy a target's policy or did not in Patience. It ends as soon
// as every target's policy accepts what is proven (and, of a whole node, a proof is of node scope), when no level has anything left to try, at Limit, or when
// ctx ends; all that it started has ended by then. Parts.Proved runs in the caller's goroutine.
func Attempt(ctx context.Context, order Order, parts Parts) Result {
	a := &attempt{
		course: NewCourse(order, parts.BMC != nil, parts.Storage != nil, time.Now()),
		order:  order,
		parts:  parts,
		events: make(chan Event),
		shoot:  make(chan struct{}),
	}
	return a.run(ctx)
}

// attempt is one Attempt as it runs. Only its own goroutine touches the course; levels talk to it through events.
type attempt struct {
	course *Course
	order  Order
	parts  Parts
	events chan Event
	shoot  chan struct{} // closed once power-off may be ordered
}

func (a *attempt) run(parent context.Context) Result {
	if a.course.Confirmed() {
		return Result{Confirmed: true, Note: "proven already"}
	}
	ctx, cancel := context.WithTimeout(parent, a.course.Limit())
	var levels sync.WaitGroup
	defer levels.Wait()
	defer cancel()
	a.start(ctx, &levels)
	patience := time.NewTimer(a.course.NextPermit(time.Now()))
	defer patience.Stop()
	for a.course.Live() {
		if a.course.Permit(time.Now()) {
			close(a.shoot)
		}
		select {
		case e := <-a.events:
			if ctx.Err() != nil {
				break // too late: whoever gave the order has moved on
			}
			if a.take(e) {
				return Result{Confirmed: true, Note: a.course.Note()}
			}
			patience.Reset(a.course.NextPermit(time.Now()))
		case <-patience.C:
		case <-ctx.Done():
			if err := parent.Err(); err != nil {
				return Result{Note: a.course.Note("given up: " + err.Error())}
			}
			return Result{Note: a.course.Note(fmt.Sprintf("not confirmed in %s", a.course.Limit()))}
		}
	}
	return Result{Note: a.course.Note("nothing is left to try")}
}

func (a *attempt) start(ctx context.Context, levels *sync.WaitGroup) {
	if a.course.TriesPower() {
		levels.Go(func() { Power(ctx, a.order, a.parts.BMC, a) })
	}
	for i := range a.order.Targets {
		if a.course.TriesStorage(i) {
			levels.Go(func() { CutOff(ctx, a.order, i, a.parts.Storage, a) })
		}
	}
}

// take hands out what an event proves, and reports whether the order is fulfilled.
func (a *attempt) take(e Event) bool {
	proof, ok := a.course.Take(e, time.Now())
	if !ok {
		return false
	}
	proof.At = a.parts.Now()
	a.parts.Proved(proof)
	return a.course.Confirmed()
}

// Tell passes an event on; after the end of the attempt nobody listens.
func (a *attempt) Tell(ctx context.Context, e Event) {
	select {
	case a.events <- e:
	case <-ctx.Done():
	}
}

func (a *attempt) Permitted() bool {
	select {
	case <-a.shoot:
		return true
	default:
		return false
	}
}

func (a *attempt) AwaitPermit(ctx context.Context, most time.Duration) {
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-a.shoot:
	case <-ctx.Done():
	}
}

func (a *attempt) LeaseEnded() bool {
	select {
	case <-a.order.LeaseEnded: // nil: never
		return true
	default:
		return false
	}
}

func (a *attempt) AwaitLease(ctx context.Context) bool {
	select {
	case <-a.order.LeaseEnded:
		return true
	case <-ctx.Done():
		return false
	}
}
