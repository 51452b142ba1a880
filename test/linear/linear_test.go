package linear

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// at is a call that took from one second to another.
func at(call, end int, op Op) Op {
	op.Call, op.Return = time.Duration(call)*time.Second, time.Duration(end)*time.Second
	return op
}

func acked(n uint64) Op      { return Op{Kind: Append, Number: n, Known: true} }
func unanswered(n uint64) Op { return Op{Kind: Append, Number: n} }
func counted(n int) Op       { return Op{Client: 1, Kind: Count, Seen: n, Known: true} }
func listed(records ...uint64) Op {
	return Op{Client: 1, Kind: List, Seen: len(records), Records: records, Known: true}
}

func TestCheck(t *testing.T) {
	for name, row := range map[string]struct {
		ops   []Op
		there []uint64
		want  string // part of what is wrong; empty: nothing
	}{
		"in order":                     {[]Op{at(0, 1, acked(1)), at(2, 3, counted(1)), at(4, 5, acked(2)), at(6, 7, listed(1, 2))}, []uint64{1, 2}, ""},
		"side by side, either first":   {[]Op{at(0, 9, acked(1)), at(0, 9, acked(2)), at(1, 2, counted(1))}, []uint64{2, 1}, ""},
		"a read during an append":      {[]Op{at(0, 9, acked(1)), at(1, 2, counted(0)), at(3, 4, counted(1))}, []uint64{1}, ""},
		"an acknowledged one is lost":  {[]Op{at(0, 1, acked(1)), at(2, 3, acked(2))}, []uint64{2}, "lost [1]"},
		"it is there twice":            {[]Op{at(0, 1, acked(1))}, []uint64{1, 1}, "strange [1]"},
		"nobody sent it":               {[]Op{at(0, 1, acked(1))}, []uint64{1, 7}, "strange [7]"},
		"a later one stands first":     {[]Op{at(0, 1, acked(1)), at(2, 3, acked(2))}, []uint64{2, 1}, "append 2"},
		"a read misses what was there": {[]Op{at(0, 1, acked(1)), at(2, 3, counted(0))}, []uint64{1}, "told of 0 records"},
		"a read foresees":              {[]Op{at(0, 1, counted(1)), at(2, 3, acked(1))}, []uint64{1}, "append 1"},
		"reads go back":                {[]Op{at(0, 9, acked(1)), at(1, 2, counted(1)), at(3, 4, counted(0))}, []uint64{1}, "told of 0 records"},
		"a read shows what is gone":    {[]Op{at(0, 1, unanswered(1)), at(2, 3, listed(1)), at(4, 5, acked(2))}, []uint64{2}, "not what the service has now"},
		"no answer, and not there":     {[]Op{at(0, 1, unanswered(1)), at(2, 3, counted(0))}, nil, ""},
		"no answer, and there late":    {[]Op{at(0, 1, unanswered(1)), at(2, 3, counted(0)), at(4, 5, counted(1))}, []uint64{1}, ""},
		"no answer, came and went":     {[]Op{at(0, 1, unanswered(1)), at(2, 3, counted(1)), at(4, 5, counted(0))}, []uint64{1}, "told of 0 records"},
		"a read without an answer":     {[]Op{at(0, 1, acked(1)), at(2, 3, Op{Kind: Count})}, []uint64{1}, ""},
		"four that only together fail": {[]Op{at(0, 9, acked(1)), at(0, 9, acked(2)), at(1, 8, listed(2)), at(1, 8, listed(1))}, []uint64{1, 2}, "not what the service has now"},
	} {
		t.Run(name, func(t *testing.T) {
			v := Check(row.ops, row.there, time.Second)
			if got := words(v); (got == "") != (row.want == "") || !strings.Contains(got, row.want) || v.Well() != (got == "") {
				t.Errorf("%q, expected %q", got, row.want)
			}
		})
	}
}

func words(v Verdict) string {
	var all []string
	if len(v.Lost) > 0 {
		all = append(all, fmt.Sprintf("lost %v", v.Lost))
	}
	if len(v.Strange) > 0 {
		all = append(all, fmt.Sprintf("strange %v", v.Strange))
	}
	if v.Wrong != "" {
		all = append(all, v.Wrong)
	}
	return strings.Join(all, "; ")
}

// A long history is searched in pieces; what is wrong in a late one is found, and what spans the border of two is not
// called wrong.
func TestCheckLongHistory(t *testing.T) {
	var ops []Op
	var there []uint64
	for i := range 20 * segment {
		n := uint64(i + 1)
		ops = append(ops, at(10*i, 10*i+15, Op{Client: i % 3, Kind: Append, Number: n, Known: i%50 != 0}))
		ops = append(ops, at(10*i+7, 10*i+8, counted(i+1)))
		there = append(there, n)
	}
	if v := Check(ops, there, 20*time.Second); !v.Well() || v.Acked != 20*segment*49/50 {
		t.Fatalf("%+v", v)
	}
	ops[len(ops)-1].Seen = 1
	if v := Check(ops, there, 20*time.Second); !strings.Contains(v.Wrong, "told of 1 records") {
		t.Errorf("%+v", v)
	}
}

// Check agrees with trying every order of every subset, on small histories of every shape.
func TestCheckAgainstEveryOrder(t *testing.T) {
	seen := map[bool]int{}
	rapid.Check(t, func(t *rapid.T) {
		var ops []Op
		var sent []uint64
		for i := range rapid.IntRange(1, 6).Draw(t, "calls") {
			call := rapid.IntRange(0, 6).Draw(t, "call")
			end := call + rapid.IntRange(0, 4).Draw(t, "took")
			op := Op{Client: i, Known: rapid.IntRange(0, 3).Draw(t, "known") > 0}
			switch rapid.IntRange(0, 3).Draw(t, "kind") {
			case 0:
				op.Kind, op.Seen = Count, rapid.IntRange(0, 3).Draw(t, "seen")
			case 1:
				op.Kind = List
				op.Records = rapid.Permutation(sent).Draw(t, "records")[:rapid.IntRange(0, len(sent)).Draw(t, "of them")]
				op.Seen = len(op.Records)
			default:
				op.Kind, op.Number = Append, uint64(i+1)
				sent = append(sent, op.Number)
			}
			ops = append(ops, at(call, end, op))
		}
		there := rapid.Permutation(sent).Draw(t, "there")[:rapid.IntRange(0, len(sent)).Draw(t, "how many")]
		v := Check(ops, there, 10*time.Second)
		want := everyOrder(ops, there, nil, make([]bool, len(ops)))
		seen[want]++
		if v.Well() != want {
			t.Fatalf("Check says %q, trying every order says %v", words(v), want)
		}
	})
	if seen[true] == 0 || seen[false] == 0 {
		t.Errorf("only one kind of history was tried: %v", seen)
	}
}

// everyOrder tries each call next that no call which has to come first keeps back, and each unanswered one never.
func everyOrder(ops []Op, there, have []uint64, done []bool) bool {
	left := false
	for i, op := range ops {
		if done[i] {
			continue
		}
		left = true
		if slices.ContainsFunc(keptBack(ops, done), func(k int) bool { return k == i }) {
			continue
		}
		next := have
		switch {
		case op.Kind == Append:
			next = append(slices.Clone(have), op.Number)
		case op.Known && (op.Seen != len(have) || op.Kind == List && !slices.Equal(op.Records, have)):
			continue
		}
		done[i] = true
		found := everyOrder(ops, there, next, done) || !op.Known && everyOrder(ops, there, have, done)
		done[i] = false
		if found {
			return true
		}
	}
	return !left && slices.Equal(have, there)
}

// keptBack are calls that began after another one, which is still to come and was answered, had ended.
func keptBack(ops []Op, done []bool) []int {
	var back []int
	for i, op := range ops {
		for j, other := range ops {
			if !done[j] && other.Known && other.Return < op.Call {
				back = append(back, i)
			}
		}
	}
	return back
}
