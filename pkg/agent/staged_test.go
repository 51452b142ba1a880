package agent

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/release"
	"github.com/keepone-ha/keepone/pkg/worker"
)

// staged is a grant of which volume and container come and go apart.
func staged(phase core.Phase, stage core.Stage, run int) core.Grant {
	g := in(phase, 5, run)
	g.Stage, g.Staged, g.Clients = stage, true, []string{client}
	return g
}

// keeps puts a mapped volume of the grant here; with up its container runs on it.
func (b *bed) keeps(attempt int, up bool) {
	b.runs(5, attempt)
	b.here.Record.Storage.Kept = true
	b.here.Facts.Init = up
}

// live lets the agent work while f drives, then ends it and returns what was said.
func (b *bed) live(f func()) []string {
	b.t.Helper()
	ctx, cancel := context.WithCancel(b.t.Context())
	ended := b.start(ctx)
	synctest.Wait()
	f()
	time.Sleep(5 * time.Second)
	cancel()
	<-ended
	return b.log()
}

func (b *bed) change(f func(h *Here)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(&b.here)
}

// raising is what a helper says that starts a container on a mounted volume.
var raising = []worker.Progress{{Step: worker.StepLease}, {Step: worker.StepStarted}}

// TestNotClaimed: a grant that nobody waits for goes back at once, and is no failure.
func TestNotClaimed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newManagedBed(t, starts(5))
		b.claimed = false
		wantSaid(t, b.run(time.Second), "vacated 5: ")
		if n := len(b.state.Services[one].Failures); n != 0 {
			t.Errorf("%d failures", n)
		}
	})
}

// TestClaimWithdrawn at any moment of an activation: what was begun is taken down, and it is no failure.
func TestClaimWithdrawn(t *testing.T) {
	for after := time.Duration(0); after < 300*time.Millisecond; after += 7 * time.Millisecond {
		bubble(t, func(t *testing.T) {
			b := newManagedBed(t, starts(5))
			b.health = errAway
			said := b.live(func() {
				time.Sleep(after)
				b.claim(false)
			})
			if last := said[len(said)-1]; last != "vacated 5: " {
				t.Errorf("after %s: said %q", after, said)
			}
			absent(t, said, "started")
			absent(t, said, "run failed")
			if b.here.Facts != (release.Facts{}) {
				t.Errorf("after %s: left %+v", after, b.here.Facts)
			}
		})
	}
}

// TestClaimWithdrawnOnceUp: it answered; whoever wants it down stops it.
func TestClaimWithdrawnOnceUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newManagedBed(t, starts(5))
		said := b.live(func() {
			time.Sleep(time.Second)
			b.claim(false)
			time.Sleep(30 * time.Second)
		})
		wantSaid(t, said, "start 5/1", "client "+client, "go", "mount", "announce", "started 5/1", "announced")
	})
}

func TestPromotion(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newManagedBed(t, core.Grant{Node: self, Instance: life, Epoch: 5, Phase: core.PhaseStarting, Run: 1, Stage: core.StagePromoted, Staged: true})
		said := b.live(func() {
			time.Sleep(time.Second)
			b.claim(false) // it is met
			time.Sleep(time.Hour)
		})
		wantSaid(t, said, "start 5/1", "client "+client, "go", "promoted 5/1") // nothing mounted, announced or probed
		if p := b.plans[0]; p.Stage != core.StagePromoted || !b.here.Facts.Mapper {
			t.Errorf("plan %+v, here %+v", p, b.here)
		}
	})
}

func TestPromotionFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newManagedBed(t, core.Grant{Node: self, Instance: life, Epoch: 5, Phase: core.PhaseStarting, Run: 1, Stage: core.StagePromoted, Staged: true})
		b.progress = []worker.Progress{{Step: worker.StepLease}, {Step: worker.StepFailed, Failure: &worker.Failure{Message: "image has size 0"}}}
		wantSaid(t, b.run(time.Second), "start 5/1", "stop 5/1", "vacated 5: image has size 0")
	})
}

func TestRaise(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newManagedBed(t, staged(core.PhasePromoted, core.StagePromoted, 1))
		b.keeps(1, false)
		b.progress = raising
		said := b.live(func() {
			b.commit(core.Raise{Service: one, Epoch: 5, Run: 1})
			time.Sleep(time.Second)
			b.claim(false) // it is met
		})
		wantSaid(t, said, "stop container 5/1", "start 5/2", "announce", "started 5/2", "announced")
		if p := b.plans[0]; !p.Restart || p.Attempt != 2 || p.Stage != core.StageRunning {
			t.Errorf("plan %+v", p)
		}
	})
}

// TestRaiseFails: one failure with its words, the volume stays, and nothing is tried again unasked.
func TestRaiseFails(t *testing.T) {
	for name, script := range map[string][]worker.Progress{
		"not mounted":      {{Step: worker.StepFailed, Failure: &worker.Failure{Code: worker.CodeBusy, Message: "not mounted"}}},
		"after its record": {{Step: worker.StepLease}, {Step: worker.StepFailed, Failure: &worker.Failure{Message: "not mounted"}}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				b := newManagedBed(t, staged(core.PhaseStarting, core.StageRunning, 2))
				b.keeps(1, false)
				b.progress = script
				said := b.run(time.Minute)
				failed := slices.DeleteFunc(slices.Clone(said), func(s string) bool { return !strings.HasPrefix(s, "run failed") })
				wantSaid(t, failed, "run failed 5/2: not mounted")
				absent(t, said, "stop 5")
				absent(t, said, "vacated")
				if len(b.plans) != 1 || !b.here.Facts.Mapper {
					t.Errorf("%d starts, here %+v", len(b.plans), b.here.Facts)
				}
			})
		})
	}
}

// TestRaiseNotClaimed: the wait for a container's start ended before it began. The volume stays, and it is no failure.
func TestRaiseNotClaimed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newManagedBed(t, staged(core.PhaseStarting, core.StageRunning, 2))
		b.claimed = false
		b.keeps(1, false)
		wantSaid(t, b.run(time.Minute), "promoted 5/2")
		if g := b.grant(); g.Phase != core.PhasePromoted || len(b.state.Services[one].Failures) != 0 {
			t.Errorf("%+v", g)
		}
	})
}

// TestRaiseWithdrawn at any moment: the container that was begun ends, the volume stays.
func TestRaiseWithdrawn(t *testing.T) {
	for after := time.Duration(0); after < 200*time.Millisecond; after += 3 * time.Millisecond {
		bubble(t, func(t *testing.T) {
			b := newManagedBed(t, staged(core.PhaseStarting, core.StageRunning, 2))
			b.keeps(1, false)
			b.progress, b.health = raising, errAway
			said := b.live(func() {
				time.Sleep(after)
				b.claim(false)
			})
			if b.here.Facts.Init || !b.here.Facts.Mapper || b.grant().Phase != core.PhasePromoted {
				t.Errorf("after %s: here %+v, grant %+v, said %q", after, b.here.Facts, b.grant(), said)
			}
			absent(t, said, "stop 5")
			absent(t, said, "started")
			absent(t, said, "run failed")
		})
	}
}

// TestRaiseTakesALease: the volume is held, and still nothing is started without a live lease (I4).
func TestRaiseTakesALease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newManagedBed(t, staged(core.PhaseStarting, core.StageRunning, 2))
		b.keeps(1, false)
		b.leased = false
		said := b.run(starting + time.Second)
		absent(t, said, "start 5")
		absent(t, said, "stop 5/1")
		if !slices.Contains(said, "run failed 5/2: the leader acknowledged no lease for this grant") {
			t.Errorf("said %q", said)
		}
	})
}

// TestContainerStopped by the cluster manager's hand: the grant is promoted again, and the volume stays.
func TestContainerStopped(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newManagedBed(t, staged(core.PhaseRunning, core.StageRunning, 2))
		b.keeps(2, true)
		b.claimed = false
		said := b.live(func() {
			b.change(func(h *Here) { h.Buried, h.Record.Marks.Halted = true, true })
			time.Sleep(3 * time.Second)
			wantSaid(t, b.log()) // it shuts down
			b.change(func(h *Here) { h.Record.Marks.Contained = true; b.ends() })
		})
		wantSaid(t, said, "promoted 5/2")
	})
}

// TestContainerDies: one failure is told, once.
func TestContainerDies(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newManagedBed(t, staged(core.PhaseRunning, core.StageRunning, 2))
		b.keeps(2, true)
		b.claimed = false
		said := b.live(func() {
			b.change(func(*Here) { b.ends() })
			time.Sleep(time.Hour)
			wantSaid(t, b.log(), "run failed 5/2: the container ended")
			b.change(func(h *Here) { h.Buried, h.Record.Marks.Contained = true, true }) // the stop after it
		})
		wantSaid(t, said, "run failed 5/2: the container ended", "promoted 5/2")
	})
}

// TestStoppedByManager: a stop by the cluster manager's agents gives the grant back, and is no failure of the node.
func TestStoppedByManager(t *testing.T) {
	gone := release.Marks{Halted: true, Contained: true, Vacated: true, Reason: "stopped"}
	for name, g := range map[string]core.Grant{
		"running":                in(core.PhaseRunning, 5, 1),
		"starting":               starts(5),
		"promoted":               staged(core.PhasePromoted, core.StagePromoted, 1),
		"raised":                 staged(core.PhaseRunning, core.StageRunning, 1),
		"a raise was given up":   staged(core.PhasePromoted, core.StagePromoted, 2), // of attempt 2 nothing was ever here
		"a raise is given":       staged(core.PhaseStarting, core.StageRunning, 2),
		"a raise failed at once": staged(core.PhaseFailed, core.StageRunning, 2),
	} {
		for _, claimed := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					b := newManagedBed(t, g)
					b.claimed = claimed // a start that came right after the stop waits for another grant
					b.keeps(1, false)
					b.here.Record.Marks, b.here.Facts, b.here.Buried = gone, release.Facts{}, true
					wantSaid(t, b.run(5*time.Second), "vacated 5: ")
				})
			})
		}
	}
}

// TestStopUnderWay: an agent's stop is seen half-way. The daemon helps, and it is still no failure.
func TestStopUnderWay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newManagedBed(t, in(core.PhaseRunning, 5, 1))
		b.claimed = false
		b.runs(5, 1)
		b.here.Buried, b.here.Record.Marks = true, release.Marks{Halted: true, Reason: "stopped"}
		wantSaid(t, b.run(5*time.Second), "stop 5/1", "vacated 5: ")
	})
}

// TestGuardContainsPromoted: a lease ends while only the volume is here. The guard buries the run; once the lease is back
// the volume still is, and a container starts on it.
func TestGuardContainsPromoted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newManagedBed(t, staged(core.PhasePromoted, core.StagePromoted, 1))
		b.keeps(1, false)
		b.here.Buried, b.here.Record.Marks = true, release.Marks{Contained: true, Reason: "lease ended"}
		b.progress = raising
		said := b.live(func() {
			time.Sleep(time.Minute)
			wantSaid(t, b.log())
			b.commit(core.Raise{Service: one, Epoch: 5, Run: 1})
		})
		wantSaid(t, said, "stop container 5/1", "start 5/2", "announce", "started 5/2", "announced")
	})
}

// TestStagedGoes: a staged grant that is released, or lost to another, leaves nothing (I3).
func TestStagedGoes(t *testing.T) {
	for name, c := range map[string]struct {
		grant   core.Grant
		stopped release.Result
		want    []string
	}{
		"released":         {staged(core.PhaseReleasing, core.StagePromoted, 1), release.Result{}, []string{"stop 5/1", "vacated 5: "}},
		"can't be vacated": {staged(core.PhaseReleasing, core.StagePromoted, 1), release.Result{Contained: true, Reasons: []string{"unmap: busy"}}, []string{"stop 5/1", "contained 5: unmap: busy"}},
		"lost":             {core.Grant{Node: "b", Instance: "boot/b1", Epoch: 6, Phase: core.PhaseStarting, Run: 1}, release.Result{}, []string{"stop 5/1"}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				b := newManagedBed(t, c.grant)
				b.keeps(1, false)
				b.stopped = c.stopped
				wantSaid(t, b.run(1500 * time.Millisecond)[:len(c.want)], c.want...)
			})
		})
	}
}

// TestStagedAdopt: a daemon that comes back finds each state as the last one left it.
func TestStagedAdopt(t *testing.T) {
	for name, c := range map[string]struct {
		grant   core.Grant
		attempt int
		up      bool
		change  func(*Here)
		want    []string
	}{
		"mapped, unreported":    {staged(core.PhaseStarting, core.StagePromoted, 1), 1, false, nil, []string{"promoted 5/1"}},
		"promoted":              {staged(core.PhasePromoted, core.StagePromoted, 1), 1, false, nil, nil},
		"raised, unreported":    {staged(core.PhaseStarting, core.StageRunning, 2), 2, true, nil, []string{"started 5/2"}},
		"raised":                {staged(core.PhaseRunning, core.StageRunning, 2), 2, true, nil, nil},
		"ended, unreported":     {staged(core.PhaseRunning, core.StageRunning, 2), 2, false, nil, []string{"run failed 5/2: the container ended"}},
		"ended":                 {staged(core.PhaseFailed, core.StageRunning, 2), 2, false, nil, nil},
		"stopped, unreported":   {staged(core.PhaseRunning, core.StageRunning, 2), 2, false, func(h *Here) { h.Buried, h.Record.Marks.Contained = true, true }, []string{"promoted 5/2"}},
		"cut short before kept": {staged(core.PhaseStarting, core.StagePromoted, 1), 1, false, func(h *Here) { h.Record.Storage.Kept = false }, []string{"stop 5/1", "vacated 5: its activation was cut short, or its storage went away"}},
		"the mapper died":       {staged(core.PhasePromoted, core.StagePromoted, 1), 1, false, func(h *Here) { h.Facts.Mapper = false }, []string{"stop 5/1", "vacated 5: its activation was cut short, or its storage went away"}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				b := newManagedBed(t, c.grant)
				b.claimed = false
				b.keeps(c.attempt, c.up)
				if c.change != nil {
					c.change(&b.here)
				}
				wantSaid(t, b.run(time.Minute), c.want...)
			})
		})
	}
}
