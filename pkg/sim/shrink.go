package sim

import (
	"slices"
	"time"
)

// Shrink looks for a shorter plan that goes wrong in the same way, in at most so many runs.
func Shrink(bad Outcome, runs int) Outcome {
	safety := len(bad.Broken) > 0
	best := bad
	try := func(p Plan) bool {
		if runs <= 0 {
			return false
		}
		runs--
		if o := Play(p, false); o.Bad() && (len(o.Broken) > 0) == safety {
			best = o
			return true
		}
		return false
	}
	for shorter := true; shorter && runs > 0; {
		shorter = dropEpisodes(best.Plan, try) || dropActs(best.Plan, try) || calmer(best.Plan, try)
	}
	return Play(best.Plan, true)
}

// dropEpisodes leaves out half of the episodes, then one after the other.
func dropEpisodes(p Plan, try func(Plan) bool) bool {
	for size := (len(p.Episodes) + 1) / 2; size > 0 && len(p.Episodes) > 1; size /= 2 {
		for i := 0; i+size <= len(p.Episodes); i += size {
			q := p
			q.Episodes = slices.Delete(slices.Clone(p.Episodes), i, i+size)
			if len(q.Episodes) > 0 && try(q) {
				return true
			}
		}
	}
	return false
}

func dropActs(p Plan, try func(Plan) bool) bool {
	for i, e := range p.Episodes {
		for k := range e.Acts {
			q := p
			q.Episodes = slices.Clone(p.Episodes)
			q.Episodes[i].Acts = slices.Delete(slices.Clone(e.Acts), k, k+1)
			if try(q) {
				return true
			}
		}
	}
	return false
}

// calmer shortens the calm, and makes the cluster smaller and plainer.
func calmer(p Plan, try func(Plan) bool) bool {
	for i, e := range p.Episodes {
		if e.Calm > 10*time.Second {
			q := p
			q.Episodes = slices.Clone(p.Episodes)
			q.Episodes[i].Calm = 10 * time.Second
			if try(q) {
				return true
			}
		}
	}
	for _, change := range []func(*Shape){
		func(s *Shape) { s.Nodes = max(3, s.Nodes/2) },
		func(s *Shape) { s.Services = 1 },
		func(s *Shape) { s.Policy = "default" },
		func(s *Shape) { s.Witness = false },
		func(s *Shape) { s.Converged = false },
	} {
		q := p
		if change(&q.Shape); q.Shape != p.Shape && try(q) {
			return true
		}
	}
	return false
}
