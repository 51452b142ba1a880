package fence

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

// Course is how one attempt stands: what each level said, what is proven, whether power-off is due. It is pure: time
// is an argument.
type Course struct {
	order  Order
	proofs []core.Proof
	shot   bool    // power-off may be ordered
	levels []level // the BMC, then each target's storage
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

// Event is what a level says. A proof comes with the last one.
type Event struct {
	level int
	stage stage
	note  string
	proof *core.Proof
}

// NewCourse begins an attempt. bmc and storage say what it has to work with.
func NewCourse(order Order, bmc, storage bool, now time.Time) *Course {
	if order.Patience <= 0 {
		order.Patience = DefaultPatience
	}
	if order.Limit <= 0 {
		order.Limit = DefaultLimit
	}
	c := &Course{order: order, proofs: slices.Clone(order.Proofs), levels: make([]level, 1+len(order.Targets))}
	c.levels[bmcLevel] = level{stage: trying, since: now, note: "no answer yet"}
	if !bmc {
		c.levels[bmcLevel] = level{stage: ended, since: now, note: "the node has none"}
	}
	for i, target := range order.Targets {
		switch {
		case !slices.Contains(target.Policy.Proofs, core.ProofStorage):
			c.levels[i+1] = level{stage: ended, since: now, note: "the policy does not ask for it"}
		case !storage:
			c.levels[i+1] = level{stage: ended, since: now, note: "not to be had here"}
		default:
			c.levels[i+1] = level{stage: trying, since: now, note: "no answer yet"}
		}
	}
	return c
}

// TriesPower reports whether the BMC's level may yet bring a proof.
func (c *Course) TriesPower() bool { return c.levels[bmcLevel].stage == trying }

// TriesStorage reports whether the storage level of target i may yet bring a proof.
func (c *Course) TriesStorage(i int) bool { return c.levels[i+1].stage == trying }

// Take notes what a level said, and returns its proof, if it brought one.
func (c *Course) Take(e Event, now time.Time) (core.Proof, bool) {
	l := &c.levels[e.level]
	if l.stage != e.stage {
		l.stage, l.since = e.stage, now
	}
	l.note = e.note
	if e.proof == nil {
		return core.Proof{}, false
	}
	proof := *e.proof
	proof.Instance, proof.By = c.order.Instance, c.order.By
	c.proofs = append(c.proofs, proof)
	return proof, true
}

// Live reports whether some level may still bring a proof.
func (c *Course) Live() bool {
	return slices.ContainsFunc(c.levels, func(l level) bool { return l.stage == trying || l.stage == waiting })
}

// Confirmed reports whether every target's policy accepts what is proven (I3).
func (c *Course) Confirmed() bool {
	node := slices.ContainsFunc(c.proofs, func(p core.Proof) bool {
		return p.Instance == c.order.Instance && p.Kind.Scope() == core.ScopeNode
	})
	if !node && c.whole() {
		return false
	}
	return !slices.ContainsFunc(c.order.Targets, func(t Target) bool { return !c.accepted(t) })
}

// whole reports whether only a proof of node scope will do.
func (c *Course) whole() bool { return c.order.Whole || len(c.order.Targets) == 0 }

func (c *Course) accepted(t Target) bool {
	return t.Policy.Accepts(c.proofs, c.order.Instance, t.Service, t.Epoch)
}

// Permit reports whether power-off is the last thing left for some target and may be ordered from now on: once.
func (c *Course) Permit(now time.Time) bool {
	if c.order.Shoot && !c.shot && c.untilShot(now) <= 0 {
		c.shot = true
		return true
	}
	return false
}

// NextPermit is when to look again, far away if only an event can change the answer.
func (c *Course) NextPermit(now time.Time) time.Duration {
	return max(c.untilShot(now), time.Millisecond)
}

const never = 24 * time.Hour

// untilShot is how long until power-off is the last thing left for some target.
func (c *Course) untilShot(now time.Time) time.Duration {
	if c.whole() {
		return 0
	}
	left := never
	for i, t := range c.order.Targets {
		if !c.accepted(t) && slices.Contains(t.Policy.Proofs, core.ProofBMCOff) {
			left = min(left, c.storageMay(i, now))
		}
	}
	return left
}

// storageMay is how long storage may still make power-off of target i's holder needless.
func (c *Course) storageMay(i int, now time.Time) time.Duration {
	l := c.levels[i+1]
	switch {
	case c.order.Targets[i].Policy.Require == core.RequireAll:
		return 0 // power-off is needed whatever storage says
	case l.stage == waiting:
		return never // the proof comes with the lease's end
	case l.stage == trying:
		return c.order.Patience - now.Sub(l.since)
	}
	return 0
}

// Note says how each level stands, and how the attempt ended if it was not confirmed.
func (c *Course) Note(end ...string) string {
	words := []string{"bmc: " + c.levels[bmcLevel].note}
	for i, t := range c.order.Targets {
		words = append(words, fmt.Sprintf("storage of %s: %s", t.Service, c.levels[i+1].note))
	}
	return strings.Join(append(words, end...), "; ")
}

// Limit bounds the attempt.
func (c *Course) Limit() time.Duration { return c.order.Limit }
