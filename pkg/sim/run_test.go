package sim

import (
	"flag"
	"testing"
)

var (
	seeds = flag.Int("sim.seeds", 20, "how many seeds to play")
	first = flag.Uint64("sim.first", 1, "the first seed")
)

// TestSeeds plays fixed seeds.
func TestSeeds(t *testing.T) {
	for seed := *first; seed < *first+uint64(*seeds); seed++ {
		o := Play(Draw(seed), false)
		if o.Bad() {
			t.Errorf("seed %d: broken %v, stalled %q", seed, o.Broken, o.Stalled)
		}
	}
}

// TestEqualSeedsEqualRuns plays a seed twice.
func TestEqualSeedsEqualRuns(t *testing.T) {
	for seed := uint64(1); seed < 4; seed++ {
		a, b := Play(Draw(seed), false), Play(Draw(seed), true)
		if a.Trace != b.Trace || a.Time != b.Time || a.Failovers != b.Failovers {
			t.Errorf("seed %d: %x and %x", seed, a.Trace, b.Trace)
		}
	}
}
