package agent

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/release"
	"github.com/keepone-ha/keepone/pkg/worker"
)

func TestInitEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, in(core.PhaseRunning, 5, 1))
		b.runs(5, 1)
		b.progress = []worker.Progress{{Step: worker.StepLease}, {Step: worker.StepStarted}}
		ctx, cancel := context.WithCancel(t.Context())
		ended := b.start(ctx)
		synctest.Wait()
		b.mu.Lock()
		b.ends()
		b.mu.Unlock()
		time.Sleep(time.Millisecond) // not a probe later: the kernel tells
		wantSaid(t, b.log(), "run failed 5/1: the container ended")
		time.Sleep(time.Minute)
		b.commit(core.Restart{Service: one, Epoch: 5, Run: 1})
		time.Sleep(time.Second)
		cancel()
		<-ended
		wantSaid(t, b.log(), "run failed 5/1: the container ended", "stop container 5/1", "start 5/2", "announce", "started 5/2", "announced")
		if p := b.plans[0]; !p.Restart || p.Attempt != 2 {
			t.Errorf("plan %+v", p)
		}
	})
}

// TestRestartFails: the volume stays, and nothing is tried again before the leader says so.
func TestRestartFails(t *testing.T) {
	for name, script := range map[string][]worker.Progress{
		"before its record": {{Step: worker.StepFailed, Failure: &worker.Failure{Message: "no lease"}}},
		"after its record":  {{Step: worker.StepLease}, {Step: worker.StepFailed, Failure: &worker.Failure{Message: "no lease"}}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				b := newBed(t, in(core.PhaseStarting, 5, 2))
				b.runs(5, 1)
				b.progress = script
				said := b.run(time.Minute)
				absent(t, said, "stop 5")
				absent(t, said, "vacated")
				if n := len(b.plans); n != 1 || said[len(said)-1] != "run failed 5/2: no lease" {
					t.Errorf("%d starts, said %q", n, said)
				}
				if !b.here.Facts.Mounted {
					t.Error("the volume went")
				}
			})
		})
	}
}

func TestProbesFail(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, in(core.PhaseRunning, 5, 1))
		b.runs(5, 1)
		b.health = errAway
		ctx, cancel := context.WithCancel(t.Context())
		ended := b.start(ctx)
		busy := time.NewTicker(probing / 3) // a busy cluster must not keep the probes from being asked
		defer busy.Stop()
		for range 7 {
			<-busy.C
			b.commit(core.Block{Service: one})
		}
		absent(t, b.log(), "run failed")
		for range 4 {
			<-busy.C
			b.commit(core.Block{Service: one})
		}
		cancel()
		<-ended
		wantSaid(t, b.log(), "run failed 5/1: 3 probes failed in a row: away")
		if !b.here.Facts.Init {
			t.Error("the container was ended before the leader said so")
		}
	})
}

// TestVolumeFails: probes that pass say nothing of a volume that was cut off. Another run on it would fail too, so the grant
// goes back; and a cluster manager's own monitor is not forestalled.
func TestVolumeFails(t *testing.T) {
	for manager, want := range map[core.Manager][]string{
		core.ManagerKeepone:   {"stop 5/1", "vacated 5: can't be read"},
		core.ManagerPacemaker: nil,
	} {
		bubble(t, func(t *testing.T) {
			b := newBed(t, in(core.PhaseRunning, 5, 1))
			b.state.Spec.Manager = manager
			b.runs(5, 1)
			b.failing = "can't be read"
			ctx, cancel := context.WithCancel(t.Context())
			ended := b.start(ctx)
			time.Sleep(volumeEvery + lookTwice + time.Second)
			cancel()
			<-ended
			if want == nil {
				absent(t, b.log(), "stop 5/1")
				return
			}
			wantSaid(t, b.log(), want...)
		})
	}
}

// TestNoRestartOnAFailingVolume: what ended because its volume failed would not come up on it again.
func TestNoRestartOnAFailingVolume(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, in(core.PhaseStarting, 5, 2))
		b.runs(5, 1)
		b.ends()
		b.failing = "can't be read"
		ctx, cancel := context.WithCancel(t.Context())
		ended := b.start(ctx)
		time.Sleep(lookTwice + time.Second)
		cancel()
		<-ended
		wantSaid(t, b.log(), "stop container 5/1", "stop 5/1", "vacated 5: can't be read")
	})
}

// TestContainedAtLeaseEnd: the guard contained it. The volume is taken down and the grant goes back, and under a cluster
// manager too it is a failure, whoever was the first to stop the rest.
func TestContainedAtLeaseEnd(t *testing.T) {
	manager := func(b *bed) { b.state.Spec.Manager = core.ManagerPacemaker }
	for name, c := range map[string]struct {
		grant core.Grant
		with  func(*bed)
		want  []string
	}{
		"by keepone":           {in(core.PhaseRunning, 5, 1), func(*bed) {}, []string{"stop 5/1", "vacated 5: " + leaseEnded}},
		"by a cluster manager": {in(core.PhaseRunning, 5, 1), manager, []string{"stop 5/1", "vacated 5: " + leaseEnded}},
		"by a cluster manager, which was first": {in(core.PhaseRunning, 5, 1), func(b *bed) {
			manager(b)
			b.here.Record.Marks.Vacated, b.here.Facts = true, release.Facts{}
		}, []string{"vacated 5: " + leaseEnded}},
		"staged": {staged(core.PhaseRunning, core.StageRunning, 1), func(b *bed) {
			manager(b)
			b.here.Record.Storage.Kept = true
		}, []string{"run failed 5/1: " + leaseEnded, "promoted 5/1"}},
		"staged, an earlier run": {staged(core.PhaseStarting, core.StageRunning, 2), func(b *bed) {
			manager(b)
			b.here.Record.Storage.Kept = true
		}, []string{"promoted 5/2"}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				b := newBed(t, c.grant)
				b.runs(5, 1)
				b.here.Buried, b.here.Lease = true, true
				b.here.Record.Marks = release.Marks{Contained: true, Reason: "stopped"}
				b.here.Facts.Init = false
				c.with(b)
				wantSaid(t, b.run(time.Second), c.want...)
			})
		})
	}
}
