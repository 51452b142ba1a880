// Package linear judges what clients of a record-keeping service saw: whether there is one order of all their appends and
// reads that agrees with every answer, and with the time at which each call began and ended (linearizability).
//
// Records are numbers that are used once each, so what is there at the end names the only order that the appends can
// have had. That makes the model small: its state is how many records there are.
package linear

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// Kind is what a client asked for.
type Kind string

// The calls of the service.
const (
	Append Kind = "append"
	Count  Kind = "count"
	List   Kind = "list"
)

// Op is one call of one client. Times come from one clock that never goes back.
type Op struct {
	Client  int           `json:"client"`
	Kind    Kind          `json:"kind"`
	Number  uint64        `json:"number,omitempty"`  // of an append
	Seen    int           `json:"seen,omitempty"`    // how many records a read was told of
	Records []uint64      `json:"records,omitempty"` // what a list was told
	Call    time.Duration `json:"call"`
	Return  time.Duration `json:"return"`
	Known   bool          `json:"known"` // an answer came; otherwise the call may have had its effect, or may have it yet
}

// Verdict is what Check found.
type Verdict struct {
	Acked   int      // appends that were acknowledged
	Lost    []uint64 // acknowledged, and not there
	Strange []uint64 // there twice, or never sent
	Wrong   string   // why there is no such order; empty: there is one
}

// Well is true if nothing was lost and there is an order.
func (v Verdict) Well() bool { return len(v.Lost) == 0 && len(v.Strange) == 0 && v.Wrong == "" }

// never is the end of a call that nothing bounds.
const never = time.Duration(math.MaxInt64)

// step is an Op as the model takes it.
type step struct {
	Op
	place int // of an append: how many records come before it
}

// Check judges ops by what is there at the end, read after the last of them was over. limit bounds the search.
func Check(ops []Op, there []uint64, limit time.Duration) Verdict {
	v := tally(ops, there)
	if !v.Well() {
		return v
	}
	steps, wrong := place(ops, there)
	if wrong != "" {
		v.Wrong = wrong
		return v
	}
	v.Wrong = search(steps, time.Now().Add(limit))
	return v
}

// tally counts what needs no order.
func tally(ops []Op, there []uint64) Verdict {
	var v Verdict
	times, sent := map[uint64]int{}, map[uint64]bool{}
	for _, n := range there {
		times[n]++
	}
	for _, op := range ops {
		if op.Kind != Append {
			continue
		}
		sent[op.Number] = true
		if op.Known {
			v.Acked++
		}
		if op.Known && times[op.Number] == 0 {
			v.Lost = append(v.Lost, op.Number)
		}
	}
	for n, count := range times {
		if count > 1 || !sent[n] {
			v.Strange = append(v.Strange, n)
		}
	}
	slices.Sort(v.Strange)
	return v
}

// place finds each append's place, and leaves out what says nothing: reads without an answer, and appends without one that
// never had their effect.
func place(ops []Op, there []uint64) (steps []step, wrong string) {
	at := make(map[uint64]int, len(there))
	for i, n := range there {
		at[n] = i
	}
	for _, op := range ops {
		switch {
		case op.Kind == Append:
			if i, is := at[op.Number]; is {
				steps = append(steps, step{op, i})
			}
		case op.Kind == List && op.Known && (len(op.Records) > len(there) || !slices.Equal(op.Records, there[:len(op.Records)])):
			return nil, fmt.Sprintf("%s was told of records that are not what the service has now", told(op))
		case op.Known:
			steps = append(steps, step{op, 0})
		}
	}
	bound(steps)
	slices.SortStableFunc(steps, func(a, b step) int { return cmp.Compare(a.Call, b.Call) })
	return steps, ""
}

// bound gives an append without an answer its end: it came before whatever shows a record behind it.
func bound(steps []step) {
	behind := slices.Clone(steps)
	depth := func(s step) int { // how many records there are for certain when s is over
		if s.Kind == Append {
			return s.place + 1
		}
		return s.Seen
	}
	slices.SortFunc(behind, func(a, b step) int { return cmp.Compare(depth(b), depth(a)) })
	index := make([]int, len(steps))
	for i := range index {
		index[i] = i
	}
	slices.SortFunc(index, func(a, b int) int { return cmp.Compare(depth(steps[b]), depth(steps[a])) })
	soonest, next := never, 0
	for _, i := range index {
		for ; next < len(behind) && depth(behind[next]) > depth(steps[i]); next++ {
			if behind[next].Known {
				soonest = min(soonest, behind[next].Return)
			}
		}
		if !steps[i].Known {
			steps[i].Return = max(soonest, steps[i].Call)
		}
	}
}

// segment is how many calls the search takes at a time, at least: it ends where none is under way, and so at a known count.
const segment = 400

// search looks for the order, piece by piece.
func search(steps []step, until time.Time) (wrong string) {
	count := 0
	for begin := 0; begin < len(steps); {
		end, last := begin, time.Duration(math.MinInt64)
		for end < len(steps) && (end < begin+segment || steps[end].Call <= last) {
			last = max(last, steps[end].Return)
			end++
		}
		piece := steps[begin:end]
		switch porcupine.CheckOperationsTimeout(model(count), operations(piece), max(time.Until(until), time.Millisecond)) {
		case porcupine.Ok:
		case porcupine.Illegal:
			return why(piece, count)
		default:
			return fmt.Sprintf("no order was found in time, from %s on", told(piece[0].Op))
		}
		for _, s := range piece {
			if s.Kind == Append {
				count++
			}
		}
		begin = end
	}
	return ""
}

func operations(steps []step) []porcupine.Operation {
	all := make([]porcupine.Operation, len(steps))
	for i, s := range steps {
		all[i] = porcupine.Operation{ClientId: s.Client, Input: s, Call: int64(s.Call), Return: int64(s.Return)}
	}
	return all
}

// model is the service from a moment on at which it has count records.
func model(count int) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return count },
		Step: func(state, input, _ any) (bool, any) {
			have, s := state.(int), input.(step)
			if s.Kind == Append {
				return s.place == have, have + 1
			}
			return s.Seen == have, have
		},
	}
}

// why names two calls that can't both be right, if two suffice: which was over before the other began, and shows more.
func why(steps []step, count int) string {
	most, by := count, "what came before"
	byEnd := slices.Clone(steps)
	slices.SortFunc(byEnd, func(a, b step) int { return cmp.Compare(a.Return, b.Return) })
	next := 0
	for _, s := range steps { // by their beginning
		for ; next < len(byEnd) && byEnd[next].Return < s.Call; next++ {
			if e := byEnd[next]; e.Kind == Append && e.place+1 > most {
				most, by = e.place+1, told(e.Op)
			} else if e.Kind != Append && e.Seen > most {
				most, by = e.Seen, told(e.Op)
			}
		}
		if s.Kind == Append && s.place < most {
			return fmt.Sprintf("%s became record %d, though %s was over before and showed %d", told(s.Op), s.place+1, by, most)
		}
		if s.Kind != Append && s.Seen < most {
			return fmt.Sprintf("%s was told of %d records, though %s was over before and showed %d", told(s.Op), s.Seen, by, most)
		}
	}
	return fmt.Sprintf("no order of %d calls from %s on agrees with all answers", len(steps), told(steps[0].Op))
}

func told(op Op) string {
	what := string(op.Kind)
	if op.Kind == Append {
		what = fmt.Sprintf("append %d", op.Number)
	}
	return fmt.Sprintf("client %d's %s (%.3f s to %.3f s)", op.Client, what, op.Call.Seconds(), op.Return.Seconds())
}
