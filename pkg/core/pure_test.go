package core

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"
)

func deepCopy[T any](t *testing.T, v T) T {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var c T
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func mustEqual[T any](t *testing.T, what string, want, got T) {
	t.Helper()
	w, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	g, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	if string(w) != string(g) {
		t.Errorf("%s:\nwant %s\ngot  %s", what, w, g)
	}
}

// TestPure replays a story with many turns; at each step Decide must give equal commands for equal arguments,
// and neither Decide nor Apply may write to what it was given.
func TestPure(t *testing.T) {
	spec := testSpec("a b c d e", "one", "two", "three")
	w := newWorld(spec)
	for _, line := range []string{
		"", "power-cut b", "ask switchover one c", "bmc c dead", "isolate c", "kill two", "boot b", "ask drain a", "heal c",
		"dirty d three on", "ask switchover three", "ask maintenance-on 10s", "ask maintenance-off", "ask fence e", "ask undrain a", "",
	} {
		if line != "" {
			if err := w.act(split(line)); err != nil {
				t.Fatal(err)
			}
		}
		for range 40 {
			w.now = w.now.Add(tick)
			w.elect()
			for _, name := range w.names {
				w.beat(w.nodes[name])
			}
			if w.leader != "" {
				pureStep(t, w)
			}
			w.now = w.now.Add(-tick)
			w.step()
		}
	}
	for _, line := range w.broken {
		t.Error(line)
	}
}

func split(line string) (words []string) {
	start := 0
	for i := range len(line) + 1 {
		if i == len(line) || line[i] == ' ' {
			words = append(words, line[start:i])
			start = i + 1
		}
	}
	return words
}

func pureStep(t *testing.T, w *world) {
	t.Helper()
	s, v := w.state, w.view()
	s2, v2 := deepCopy(t, s), deepCopy(t, v)
	first := Decide(s, v, w.now)
	mustEqual(t, "Decide wrote to its State", s2, s)
	mustEqual(t, "Decide wrote to its View", v2, v)
	second := Decide(s2, v2, w.now)
	if len(first) != len(second) {
		t.Fatalf("%d commands, then %d", len(first), len(second))
	}
	for i := range first {
		if !reflect.DeepEqual(first[i], second[i]) {
			t.Fatalf("command %d differs: %+v and %+v", i, first[i], second[i])
		}
		before := deepCopy(t, s)
		is, err := Apply(s, Entry{At: w.now, Command: first[i]})
		if err != nil {
			t.Fatalf("%s: %v", first[i].Kind(), err)
		}
		mustEqual(t, "Apply wrote to its State by "+first[i].Kind(), before, s)
		again, err := Apply(before, Entry{At: w.now, Command: first[i]})
		if err != nil {
			t.Fatal(err)
		}
		mustEqual(t, "Apply differs", is, again)
		s = is
	}
}

// TestBounds: State stays bounded, and what is open, or proves what is still held, is never dropped.
func TestBounds(t *testing.T) {
	s := bed(t)
	s.Spec.Fencing = policies["both"] // one proof alone does not end the grant, so it must be kept
	s = apply(t, s, evidence, Ask{What: RequestDrain, Node: "c"})
	first := openID(s)
	for i := range 3 * keepEvents {
		s = apply(t, s, Block{Service: "two", Reason: string(rune('a' + i%26))})
	}
	for range 2 * keepFences {
		s = apply(t, s, OrderFence{Node: "a", Instance: "a1"})
		s = apply(t, s, CloseFence{Fence: openID(s)}, Ask{What: RequestStart, Service: "two"}, Ask{What: RequestStop, Service: "two"})
		for _, r := range s.Requests {
			if r.State == RequestOpen && r.Kind != RequestDrain {
				s = apply(t, s, Answer{Request: r.ID, State: RequestDone})
			}
		}
	}
	if len(s.History) > keepEvents || len(s.Fences) > keepFences || len(s.Requests) > keepRequests {
		t.Errorf("not bounded: %d events, %d fences, %d requests", len(s.History), len(s.Fences), len(s.Requests))
	}
	if s.Fences[0].ID != first || len(s.proofs("b1")) != 1 {
		t.Error("the proof about a holder was dropped")
	}
	if s.Requests[0].Kind != RequestDrain {
		t.Error("an open request was dropped")
	}
	for range 3 * keepFailures {
		run := s.Services["one"].Grant.Run
		s = apply(t, s, RunFailed{Service: "one", Epoch: 1, Instance: "b1", Run: run}, Restart{Service: "one", Epoch: 1, Run: run})
	}
	if n := len(s.Services["one"].Failures); n > keepFailures {
		t.Errorf("%d failures are kept", n)
	}
}

func TestBackoff(t *testing.T) {
	r := RestartSpec{Backoff: time.Second, MaxBackoff: 5 * time.Second}
	for failures, want := range map[int]time.Duration{0: 0, 1: 0, 2: 1e9, 3: 2e9, 4: 4e9, 5: 5e9, 50: 5e9, 1000: 5e9} {
		if got := r.backoff(failures); got != want {
			t.Errorf("after %d failures: %s, want %s", failures, got, want)
		}
	}
}

func TestSpan(t *testing.T) {
	for _, c := range []struct {
		a, b Time
		want time.Duration
	}{{0, 5, 0}, {5, 0, 0}, {7, 5, 0}, {5, 7, 2}} {
		if got := span(c.a, c.b); got != c.want {
			t.Errorf("span(%d, %d) = %d", c.a, c.b, got)
		}
	}
}

func TestAccepts(t *testing.T) {
	is := func(kinds ...ProofKind) (all []Proof) {
		for _, k := range kinds {
			all = append(all, Proof{Kind: k, Instance: "b1", Service: "one", Epoch: 3})
		}
		return all
	}
	for name, c := range map[string]struct {
		policy string
		proofs []Proof
		want   bool
	}{
		"nothing":                  {"default", nil, false},
		"bmc":                      {"default", is(ProofBMCOff), true},
		"storage":                  {"default", is(ProofStorage), true},
		"watchdog is not named":    {"default", is(ProofWatchdog), false},
		"bmc-only: storage":        {"bmc-only", is(ProofStorage), false},
		"bmc-only: rebooted":       {"bmc-only", is(ProofRebooted), true},
		"bmc-only: human":          {"bmc-only", is(ProofHuman), true},
		"both: one":                {"both", is(ProofBMCOff), false},
		"both: the other":          {"both", is(ProofStorage), false},
		"both: both":               {"both", is(ProofBMCOff, ProofStorage), true},
		"both: twice the same":     {"both", is(ProofStorage, ProofStorage), false},
		"storage: bmc":             {"storage", is(ProofBMCOff), false},
		"another instance":         {"default", []Proof{{Kind: ProofBMCOff, Instance: "b2"}}, false},
		"human, another instance":  {"default", []Proof{{Kind: ProofHuman, Instance: "b2"}}, false},
		"storage, another epoch":   {"default", []Proof{{Kind: ProofStorage, Instance: "b1", Service: "one", Epoch: 2}}, false},
		"storage, another service": {"default", []Proof{{Kind: ProofStorage, Instance: "b1", Service: "two", Epoch: 3}}, false},
		"an empty policy":          {"none", is(ProofBMCOff, ProofStorage), false},
	} {
		if got := policies[c.policy].Accepts(c.proofs, "b1", "one", 3); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	if (Policy{Require: RequireAll}).Accepts(is(ProofBMCOff), "b1", "one", 3) {
		t.Error("all of nothing is nothing")
	}
}
