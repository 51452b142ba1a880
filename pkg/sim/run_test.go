package sim

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var (
	seeds = flag.Int("sim.seeds", 2, "how many seeds to play")
	first = flag.Uint64("sim.first", 1, "the first seed")
)

// TestSeeds plays fixed seeds: no guarantee breaks, and nothing hangs once all is mended.
func TestSeeds(t *testing.T) {
	for seed := *first; seed < *first+uint64(*seeds); seed++ {
		if o := Play(Draw(seed), false); o.Bad() {
			t.Errorf("seed %d: broken %v, stalled %q; `make sim SEED=%d SEEDS=1` tells it as a story", seed, o.Broken, o.Stalled, seed)
		}
	}
}

// TestStories plays what was found before.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("../../test/scenario/sim/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			p, err := ReadStory(text)
			if err != nil {
				t.Fatal(err)
			}
			if o := Play(p, true); o.Bad() {
				t.Errorf("broken %v, stalled %q\n%s", o.Broken, o.Stalled, o.Story())
			}
		})
	}
}

// TestEqualSeedsEqualRuns plays seeds twice: once in silence, once in words.
func TestEqualSeedsEqualRuns(t *testing.T) {
	for seed := uint64(5); seed < 6; seed++ {
		a, b := Play(Draw(seed), false), Play(Draw(seed), true)
		if a.Trace != b.Trace || a.Time != b.Time || a.Failovers != b.Failovers {
			t.Errorf("seed %d: %x at %s and %x at %s", seed, a.Trace, a.Time, b.Trace, b.Time)
		}
		if c := Play(Draw(seed+100), false); c.Trace == a.Trace {
			t.Errorf("seeds %d and %d have one trace", seed, seed+100)
		}
	}
}

func TestPlansRoundTrip(t *testing.T) {
	for seed := range uint64(200) {
		p := Draw(seed)
		again, err := Parse(p.String())
		if err != nil || again.String() != p.String() {
			t.Fatalf("seed %d: %v\n%s\n%s", seed, err, p, again)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, script := range []string{
		"seed x", "nodes", "calm 1", "at 1s power-cut n1 for 1s much 1", "calm 1s\nat 1s no-such n1 for 1s much 1", "what",
	} {
		if _, err := Parse(script); err == nil {
			t.Errorf("%q is taken", script)
		}
	}
}

// TestShrink: a story that goes wrong gets shorter and still goes wrong.
func TestShrink(t *testing.T) {
	stories, err := Parse("seed 3\nnodes 5\nservices 1\npolicy default\n" +
		"calm 1m0s\nat 1s loss n1 for 1s much 5\n" +
		"calm 1m0s\nat 1s test-broken holder for 1s much 1\nat 2s clock-jump n2 for 1s much 5\n")
	if err == nil {
		t.Fatalf("%v", stories) // the kind is known to this test alone
	}
	kinds = append(kinds, kind{name: "test-broken", begin: func(w *World, n *node, _ Act) func() {
		w.checks.breaks("on purpose on %s", n.name)
		return nil
	}})
	defer func() { kinds = kinds[:len(kinds)-1] }()
	p, err := Parse("seed 3\nnodes 6\nservices 1\npolicy default\n" +
		"calm 1m0s\nat 1s loss n1 for 1s much 5\n" +
		"calm 1m0s\nat 1s test-broken holder for 1s much 1\nat 2s clock-jump n2 for 1s much 5\n")
	if err != nil {
		t.Fatal(err)
	}
	o := Shrink(Play(p, false), 100)
	if len(o.Broken) == 0 || len(o.Plan.Episodes) != 1 || len(o.Plan.Episodes[0].Acts) != 1 || o.Plan.Shape.Nodes != 3 {
		t.Errorf("shrunk to\n%s, broken %v", o.Plan, o.Broken)
	}
	if _, err := ReadStory(o.Story()); err != nil {
		t.Error(err)
	}
}

func TestKindsHaveNames(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range kinds {
		if k.name == "" || strings.Contains(k.name, " ") || k.begin == nil || seen[k.name] {
			t.Errorf("kind %q", k.name)
		}
		seen[k.name] = true
	}
	for _, name := range slices.Concat(losing, managedLosing, slices.Concat(themes...)) {
		if !seen[name] {
			t.Errorf("no kind %q", name)
		}
	}
}
