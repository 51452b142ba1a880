package fence

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

// Attempt carries an order out: it reads the BMC and cuts the targets' storage clients off side by side, and
// orders power-off only where storage can't satisfy a target's policy or did not in Patience. It ends as soon
// as every target's policy accepts what is proven (and, of a whole node, a proof is of node scope), when no level has anything left to try, at Limit, or when
// ctx ends; all that it started has ended by then. Parts.Proved runs in the caller's goroutine.
func Attempt(ctx context.Context, order Order, parts Parts) Result {
	if order.Patience <= 0 {
		order.Patience = DefaultPatience
	}
	if order.Limit <= 0 {
		order.Limit = DefaultLimit
	}
	a := &attempt{
		order:  order,
		parts:  parts,
		proofs: slices.Clone(order.Proofs),
		events: make(chan event),
		shoot:  make(chan struct{}),
		levels: make([]level, 1+len(order.Targets)),
	}
	return a.run(ctx)
}

// attempt is one Attempt as it runs. Only its own goroutine touches it; levels talk to it through events.
type attempt struct {
	order  Order
	parts  Parts
	proofs []core.Proof
	events chan event
	shoot  chan struct{} // closed once power-off may be ordered
	shot   bool          // shoot is closed
	levels []level       // the BMC, then each target's storage
}

// bmcLevel is the BMC's place in levels; target i has i+1.
const bmcLevel = 0

// level is how one of the levels stands.
type level struct {
	stage stage
	since time.Time // of stage
	note  string
}

type stage uint8

const (
	idle    stage = iota // never started
	trying               // may yet bring a proof
	waiting              // did all it can until the lease has ended
	ended                // has nothing left to try
)

// event is what a level says. A proof comes with the last one.
type event struct {
	level int
	stage stage
	note  string
	proof *core.Proof
}

func (a *attempt) run(parent context.Context) Result {
	if a.confirmed() {
		return Result{Confirmed: true, Note: "proven already"}
	}
	ctx, cancel := context.WithTimeout(parent, a.order.Limit)
	var levels sync.WaitGroup
	defer levels.Wait()
	defer cancel()
	a.start(ctx, &levels)
	patience := time.NewTimer(a.order.Patience)
	defer patience.Stop()
	for a.live() {
		a.permit()
		select {
		case e := <-a.events:
			if ctx.Err() != nil {
				break // too late: whoever gave the order has moved on
			}
			if a.take(e) {
				return Result{Confirmed: true, Note: a.note()}
			}
			patience.Reset(a.nextPermit())
		case <-patience.C:
		case <-ctx.Done():
			if err := parent.Err(); err != nil {
				return Result{Note: a.note("given up: " + err.Error())}
			}
			return Result{Note: a.note(fmt.Sprintf("not confirmed in %s", a.order.Limit))}
		}
	}
	return Result{Note: a.note("nothing is left to try")}
}

func (a *attempt) start(ctx context.Context, levels *sync.WaitGroup) {
	now := time.Now()
	if a.parts.BMC == nil {
		a.levels[bmcLevel] = level{stage: ended, since: now, note: "the node has none"}
	} else {
		a.levels[bmcLevel] = level{stage: trying, since: now, note: "no answer yet"}
		levels.Go(func() { a.power(ctx) })
	}
	for i, target := range a.order.Targets {
		switch {
		case !slices.Contains(target.Policy.Proofs, core.ProofStorage):
			a.levels[i+1] = level{stage: ended, since: now, note: "the policy does not ask for it"}
		case a.parts.Storage == nil:
			a.levels[i+1] = level{stage: ended, since: now, note: "not to be had here"}
		default:
			a.levels[i+1] = level{stage: trying, since: now, note: "no answer yet"}
			levels.Go(func() { a.cutOff(ctx, i) })
		}
	}
}

// tell passes an event on; after the end of the attempt nobody listens.
func (a *attempt) tell(ctx context.Context, e event) {
	select {
	case a.events <- e:
	case <-ctx.Done():
	}
}

// take notes what a level said, hands out its proof, and reports whether the order is fulfilled.
func (a *attempt) take(e event) bool {
	l := &a.levels[e.level]
	if l.stage != e.stage {
		l.stage, l.since = e.stage, time.Now()
	}
	l.note = e.note
	if e.proof == nil {
		return false
	}
	proof := *e.proof
	proof.Instance, proof.By, proof.At = a.order.Instance, a.order.By, a.parts.Now()
	a.proofs = append(a.proofs, proof)
	a.parts.Proved(proof)
	return a.confirmed()
}

// live reports whether some level may still bring a proof.
func (a *attempt) live() bool {
	return slices.ContainsFunc(a.levels, func(l level) bool { return l.stage == trying || l.stage == waiting })
}

// confirmed reports whether every target's policy accepts what is proven (I3).
func (a *attempt) confirmed() bool {
	node := slices.ContainsFunc(a.proofs, func(p core.Proof) bool {
		return p.Instance == a.order.Instance && p.Kind.Scope() == core.ScopeNode
	})
	if !node && a.whole() {
		return false
	}
	return !slices.ContainsFunc(a.order.Targets, func(t Target) bool { return !a.accepted(t) })
}

// whole reports whether only a proof of node scope will do.
func (a *attempt) whole() bool { return a.order.Whole || len(a.order.Targets) == 0 }

func (a *attempt) accepted(t Target) bool {
	return t.Policy.Accepts(a.proofs, a.order.Instance, t.Service, t.Epoch)
}

// permit lets power-off be ordered once it is the last thing left for some target.
func (a *attempt) permit() {
	if a.order.Shoot && !a.shot && a.untilShot() <= 0 {
		a.shot = true
		close(a.shoot)
	}
}

// nextPermit is when to look again, far away if only an event can change the answer.
func (a *attempt) nextPermit() time.Duration { return max(a.untilShot(), time.Millisecond) }

const never = 24 * time.Hour

// untilShot is how long until power-off is the last thing left for some target.
func (a *attempt) untilShot() time.Duration {
	if a.whole() {
		return 0
	}
	left := never
	for i, t := range a.order.Targets {
		if !a.accepted(t) && slices.Contains(t.Policy.Proofs, core.ProofBMCOff) {
			left = min(left, a.storageMay(i))
		}
	}
	return left
}

// storageMay is how long storage may still make power-off of target i's holder needless.
func (a *attempt) storageMay(i int) time.Duration {
	l := a.levels[i+1]
	switch {
	case a.order.Targets[i].Policy.Require == core.RequireAll:
		return 0 // power-off is needed whatever storage says
	case l.stage == waiting:
		return never // the proof comes with the lease's end
	case l.stage == trying:
		return a.order.Patience - time.Since(l.since)
	}
	return 0
}

// note says how each level stands, and how the attempt ended if it was not confirmed.
func (a *attempt) note(end ...string) string {
	words := []string{"bmc: " + a.levels[bmcLevel].note}
	for i, t := range a.order.Targets {
		words = append(words, fmt.Sprintf("storage of %s: %s", t.Service, a.levels[i+1].note))
	}
	return strings.Join(append(words, end...), "; ")
}
