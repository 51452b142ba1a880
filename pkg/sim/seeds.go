package sim

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Options of playing many seeds.
type Options struct {
	Seeds int
	First uint64
	Limit time.Duration // no seed is begun after it; 0: none
	Jobs  int           // seeds at a time
	Step  uint64        // between seeds; 0: 1
	Save  string        // folder for the stories of what goes wrong
	Out   io.Writer
}

// Summary is what many seeds came to.
type Summary struct {
	Seeds, Failovers, Violations, Stalls int
	Time                                 time.Duration // of all clusters
	Kinds                                map[string]bool
	Took                                 time.Duration
}

const shrinkRuns = 200

// Seeds plays seeds and prints their summary; each failure is shortened and told at once.
func Seeds(o Options) Summary {
	began := time.Now()
	s := Summary{Kinds: map[string]bool{}}
	next := make(chan uint64)
	var mu sync.Mutex
	var jobs sync.WaitGroup
	for range max(o.Jobs, 1) {
		jobs.Go(func() {
			for seed := range next {
				outcome := Play(Draw(seed), false)
				mu.Lock()
				s.add(outcome)
				if outcome.Bad() {
					tell(o, seed, outcome)
				}
				mu.Unlock()
			}
		})
	}
	for seed := o.First; (o.Seeds == 0 || seed < o.First+uint64(o.Seeds)*max(o.Step, 1)) && (o.Limit == 0 || time.Since(began) < o.Limit); seed += max(o.Step, 1) {
		next <- seed
	}
	close(next)
	jobs.Wait()
	s.Took = time.Since(began)
	fmt.Fprintln(o.Out, s.line(o.First))
	return s
}

func (s *Summary) add(o Outcome) {
	s.Seeds++
	s.Failovers += o.Failovers
	s.Time += o.Time
	maps.Copy(s.Kinds, o.Kinds)
	if len(o.Broken) > 0 {
		s.Violations++
	} else if o.Stalled != "" {
		s.Stalls++
	}
}

// line is for people and scripts: see docs/outputs.md.
func (s *Summary) line(first uint64) string {
	perMinute := float64(s.Failovers) / max(s.Took.Minutes(), 1e-9)
	return fmt.Sprintf("sim: seeds=%d first=%d failovers=%d cluster_hours=%.0f kinds=%d violations=%d stalls=%d per_minute=%.0f",
		s.Seeds, first, s.Failovers, s.Time.Hours(), len(s.Kinds), s.Violations, s.Stalls, perMinute)
}

// tell shortens a failure and prints it as a story.
func tell(o Options, seed uint64, bad Outcome) {
	fmt.Fprintf(o.Out, "seed %d: %v %s\n", seed, bad.Broken, bad.Stalled)
	text := Shrink(bad, shrinkRuns).Story()
	if o.Save == "" {
		fmt.Fprintf(o.Out, "%s\n", text)
		return
	}
	path := filepath.Join(o.Save, fmt.Sprintf("seed-%d.txtar", seed))
	if err := os.WriteFile(path, text, 0o644); err != nil {
		fmt.Fprintf(o.Out, "write story: %v\n", err)
		return
	}
	fmt.Fprintf(o.Out, "story: %s\n", path)
}
