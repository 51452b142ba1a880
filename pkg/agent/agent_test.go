package agent

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/release"
	"github.com/keepone-ha/keepone/pkg/worker"
)

func wantSaid(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("said\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func absent(t *testing.T, got []string, words string) {
	t.Helper()
	if slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, words) }) {
		t.Errorf("%q was said: %q", words, got)
	}
}

func TestActivation(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, starts(5))
		// I6: the client is committed before Go, and only then the volume is mounted.
		wantSaid(t, b.run(10*time.Second), "start 5/1", "client "+client, "go", "mount", "announce", "started 5/1", "announced")
		if g := b.grant(); g.Phase != core.PhaseRunning || !slices.Contains(g.Clients, client) {
			t.Errorf("grant %+v", g)
		}
		p := b.plans[0]
		if p.Restart || p.Instance != life || p.Cgroup != "/sys/fs/cgroup/keepone/one/run" || p.Limit != starting {
			t.Errorf("plan %+v", p)
		}
	})
}

// TestContestedAddress: an old holder's kernel that still answers stops no takeover, but has to be outnumbered.
func TestContestedAddress(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, starts(5))
		b.bearer.OldHolder = true
		wantSaid(t, b.run(10 * time.Second)[4:6], "announce contested", "started 5/1")
	})
}

func TestPlanCutsOffWhatIsUncut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, starts(5))
		svc := b.state.Services[one]
		svc.Uncut = []core.Client{{Node: "b", Instance: "boot/b1", Epoch: 4, Addresses: []string{"10.0.0.2:0/1"}}}
		b.state.Services[one] = svc
		b.run(time.Second)
		if got := b.plans[0].Takeover; got.Epoch != 5 || !slices.Equal(got.Addresses, []string{"10.0.0.2:0/1"}) {
			t.Errorf("takeover %+v", got)
		}
	})
}

// TestNoGo: whatever comes of the commit but a committed client, the volume's content is never touched (I6).
func TestNoGo(t *testing.T) {
	for _, tt := range []struct {
		name    string
		outcome core.Outcome
		bearer  string
		words   string
	}{
		{"refused", core.Refused, "", "commit storage client"},
		{"unknown for ever", core.Unknown, "", "no quorum answered in time"},
		{"address in use", core.Done, "address 10.0.0.9 is in use", "address 10.0.0.9 is in use"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				b := newBed(t, starts(5))
				b.bearer.Stranger = tt.bearer
				b.propose = func(c core.Command) (core.Outcome, error) {
					if _, ok := c.(core.CommitClient); ok {
						return tt.outcome, errAway
					}
					return core.Done, nil
				}
				said := b.run(starting + 5*time.Second)
				absent(t, said, "go")
				absent(t, said, "mount")
				last := said[len(said)-1]
				if !slices.Contains(said, "stop 5/1") || !strings.HasPrefix(last, "vacated 5: ") || !strings.Contains(last, tt.words) {
					t.Errorf("said %q", said)
				}
			})
		})
	}
}

// TestUnknownCommit: an unknown commit is asked again, without a storm, and what State says counts.
func TestUnknownCommit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, starts(5))
		asked := 0
		b.propose = func(c core.Command) (core.Outcome, error) {
			if _, ok := c.(core.CommitClient); !ok {
				return core.Done, nil
			}
			if asked++; asked == 10 {
				return core.Unknown, b.apply(c) // committed, and the answer was lost
			}
			return core.Unknown, errAway
		}
		said := b.run(10 * time.Second)
		if asked != 10 || !slices.Contains(said, "go") || !slices.Contains(said, "started 5/1") {
			t.Errorf("asked %d times, said %q", asked, said)
		}
	})
}

func TestLeaseAwaited(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, starts(5))
		b.leased = false
		ctx, cancel := context.WithCancel(t.Context())
		ended := b.start(ctx)
		time.Sleep(5 * time.Second)
		absent(t, b.log(), "start") // I4
		b.mu.Lock()
		b.leased = true
		b.mu.Unlock()
		time.Sleep(2 * time.Second)
		cancel()
		<-ended
		if !slices.Contains(b.log(), "started 5/1") {
			t.Errorf("said %q", b.log())
		}
	})
}

func TestNoLease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, starts(5))
		b.leased = false
		wantSaid(t, b.run(starting+time.Second), "vacated 5: the leader acknowledged no lease for this grant")
	})
}

// TestFailedActivation: whatever the helper says last, what it began is taken down and the words go with the report.
func TestFailedActivation(t *testing.T) {
	for _, tt := range []struct {
		name    string
		script  []worker.Progress
		stopped release.Result
		want    string
	}{
		{"fails", []worker.Progress{
			{Step: worker.StepLease},
			{Step: worker.StepFailed, Failure: &worker.Failure{Code: worker.CodeImageEmpty, Message: "image has size 0"}},
		}, release.Result{}, "vacated 5: image has size 0"},
		{"ends without a word", []worker.Progress{{Step: worker.StepLease}}, release.Result{}, "vacated 5: the activation helper ended without a word; its log says why"},
		{"names no client", []worker.Progress{
			{Step: worker.StepLease},
			{Step: worker.StepMapped},
		}, release.Result{}, "vacated 5: the mapper names no client address"},
		{"can't vacate", []worker.Progress{{Step: worker.StepLease}}, release.Result{Contained: true, Reasons: []string{"unmount: busy"}}, "contained 5: the activation helper ended without a word; its log says why; unmount: busy"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				b := newBed(t, starts(5))
				b.progress, b.stopped = tt.script, tt.stopped
				said := b.run(time.Second)
				wantSaid(t, said[:3], "start 5/1", "stop 5/1", tt.want)
			})
		})
	}
}

// TestNeverAnswers: a container that never answers is given up at its start limit.
func TestNeverAnswers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, starts(5))
		b.health = errAway
		said := b.run(starting + 2*time.Second)
		wantSaid(t, said[4:8], "announce", "announced", "stop 5/1", "vacated 5: does not answer within its start limit of 20s: away")
	})
}

// TestFailureKeepsItsWords: the report of a failed activation is lost; the next look says the same.
// TestSlowToAnswer: a service that says no at once, again and again, is asked until its start limit.
func TestSlowToAnswer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, starts(5))
		b.health = errAway
		ctx, cancel := context.WithCancel(t.Context())
		ended := b.start(ctx)
		time.Sleep(starting - time.Second)
		b.mu.Lock()
		b.health = nil
		b.mu.Unlock()
		time.Sleep(5 * time.Second)
		cancel()
		<-ended
		if said := b.log(); !slices.Contains(said, "started 5/1") {
			t.Errorf("said %q", said)
		}
	})
}

func TestFailureKeepsItsWords(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, starts(5))
		b.bearer.Stranger = "address in use"
		lost := 0
		b.propose = func(c core.Command) (core.Outcome, error) {
			if _, ok := c.(core.Vacated); ok && lost < 3 {
				lost++
				return core.Unknown, errAway
			}
			return core.Done, nil
		}
		said := b.run(5 * time.Second)
		wantSaid(t, said, "start 5/1", "client "+client, "stop 5/1", "vacated 5: address in use")
	})
}

// TestStopWhileStarting: an operator's wish does not wait for a start that hangs.
func TestStopWhileStarting(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, starts(5))
		b.health = errAway
		ctx, cancel := context.WithCancel(t.Context())
		ended := b.start(ctx)
		time.Sleep(3 * time.Second)
		b.commit(core.Release{Service: one, Epoch: 5, Cause: core.CauseStart, Reason: "stopped by an operator"})
		time.Sleep(time.Second)
		said := b.log()
		if b.grant() != nil || said[len(said)-1] != "vacated 5: " {
			t.Errorf("said %q", said)
		}
		cancel()
		<-ended
	})
}

func TestRelease(t *testing.T) {
	for _, tt := range []struct {
		name    string
		stopped release.Result
		want    string
	}{
		{"vacates", release.Result{}, "vacated 5: "},
		{"contains alone", release.Result{Contained: true, Reasons: []string{"sync: I/O error", "unmap: busy"}}, "contained 5: sync: I/O error; unmap: busy"},
		{"not even that", release.Result{Reasons: []string{"process 7 can't be killed"}}, "stop 5/1"}, // and nothing is said (I7)
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				b := newBed(t, in(core.PhaseReleasing, 5, 1))
				b.runs(5, 1)
				b.stopped = tt.stopped
				said := b.run(3 * time.Second)
				wantSaid(t, said[:2], "stop 5/1", tt.want)
			})
		})
	}
}

// TestHeldStop: what can't be vacated is stopped ever less often, and at once when something of it has changed, when
// somebody says so, or while nobody has heard yet that it is contained.
func TestHeldStop(t *testing.T) {
	stops := func(b *bed) int {
		n := 0
		for _, said := range b.log() {
			if said == "stop 5/1" {
				n++
			}
		}
		return n
	}
	bubble(t, func(t *testing.T) {
		b := newBed(t, in(core.PhaseReleasing, 5, 1))
		b.runs(5, 1)
		b.stopped = release.Result{Contained: true, Reasons: []string{"unmount: busy"}}
		heard := false
		b.propose = func(c core.Command) (core.Outcome, error) {
			if c.Kind() == (core.Contained{}).Kind() && !heard {
				return core.Unknown, errAway
			}
			return core.Done, nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := b.start(ctx)
		wait := func(d time.Duration, least, most int) {
			t.Helper()
			before := stops(b)
			time.Sleep(d)
			if n := stops(b) - before; n < least || n > most {
				t.Errorf("%d stops in %s, want %d to %d", n, d, least, most)
			}
		}
		wait(20*time.Second, 9, 11)
		b.mu.Lock()
		heard = true
		b.mu.Unlock()
		wait(2*time.Minute, 1, 7)
		if g := b.grant(); g == nil || g.Phase != core.PhaseContained {
			t.Errorf("grant %+v", g)
		}
		wait(10*time.Minute, 9, 11)
		b.mu.Lock()
		b.here.Facts.Mounted = false
		b.mu.Unlock()
		wait(lookAgain+time.Millisecond, 1, 2)
		wait(100*time.Second, 4, 5) // the next one is due in more than 20 s
		b.mu.Lock()
		b.here.Record.Marks.Contained, b.stopped = false, release.Result{Reasons: []string{"process 7 can't be killed"}}
		b.mu.Unlock()
		wait(20*time.Second, 9, 11)
		b.mu.Lock()
		b.stopped = release.Result{}
		b.mu.Unlock()
		wait(lookAgain+time.Millisecond, 1, 1)
		if g := b.grant(); g != nil {
			t.Errorf("vacated, and %+v stays", g)
		}
		cancel()
		<-ended
	})
}

// TestNothingIsSaidOfWhatRuns: a stop that could not contain never makes the service look stopped, nor started (I7).
func TestNothingIsSaidOfWhatRuns(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, starts(5))
		b.bearer.Stranger = "address in use"
		b.stopped = release.Result{Reasons: []string{"process 7 can't be killed"}}
		said := b.run(15 * time.Second)
		absent(t, said, "vacated")
		absent(t, said, "contained")
		absent(t, said, "started")
	})
}

func TestAdopt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, in(core.PhaseRunning, 5, 1))
		b.runs(5, 1)
		wantSaid(t, b.run(time.Minute))
		if !b.here.Facts.Init {
			t.Error("the daemon's end took the container with it")
		}
	})
}

// TestAdoptUnreported: the report of the start was lost with the daemon; a slow start goes on under the next one.
func TestAdoptUnreported(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, starts(5))
		b.runs(5, 1)
		b.health = errAway
		ctx, cancel := context.WithCancel(t.Context())
		ended := b.start(ctx)
		time.Sleep(10 * time.Second)
		wantSaid(t, b.log())
		b.mu.Lock()
		b.health = nil
		b.mu.Unlock()
		time.Sleep(2 * time.Second)
		cancel()
		<-ended
		wantSaid(t, b.log(), "started 5/1")
	})
}

// TestDaemonEnds at any moment of an activation: nothing is taken down, nothing is said.
func TestDaemonEnds(t *testing.T) {
	for after := time.Duration(0); after < 200*time.Millisecond; after += 5 * time.Millisecond {
		bubble(t, func(t *testing.T) {
			b := newBed(t, starts(5))
			b.health = errAway
			said := b.run(after)
			absent(t, said, "stop")
			absent(t, said, "vacated")
		})
	}
}

// TestCutShort: the next daemon finds what the last one began, takes it down and says so.
func TestCutShort(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, starts(5))
		b.runs(5, 1)
		b.here.Facts = release.Facts{Mapper: true}
		wantSaid(t, b.run(time.Second), "stop 5/1", "vacated 5: its activation was cut short, or its storage went away")
	})
}

func TestOlderEpochIsCleanedFirst(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, starts(5))
		b.runs(4, 2)
		said := b.run(5 * time.Second)
		wantSaid(t, said[:2], "stop 4/2", "start 5/1")
	})
}

func TestNotOursIsCleaned(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, core.Grant{Node: "b", Instance: "boot/b1", Epoch: 6, Phase: core.PhaseRunning, Run: 1})
		b.runs(5, 1)
		wantSaid(t, b.run(5*time.Second), "stop 5/1")
	})
}

// TestStoppedHere: `stop` on this node ends the grant; it is never started again under the same attempt (I7).
func TestStoppedHere(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, in(core.PhaseRunning, 5, 1))
		b.runs(5, 1)
		b.here.Record.Marks, b.here.Facts, b.here.Buried = release.Marks{Contained: true, Vacated: true}, release.Facts{}, true
		b.propose = func(c core.Command) (core.Outcome, error) { return core.Refused, errAway }
		wantSaid(t, b.run(5*time.Second))
		b.propose = nil
		wantSaid(t, b.run(5*time.Second), "vacated 5: it was stopped on this node")
	})
}

func TestUnreadable(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, starts(5))
		b.lost = errors.New("decode record")
		wantSaid(t, b.run(time.Minute)) // what can't be read is not absent
		b.lost = nil
		b.services = errors.New("list records")
		if said := b.run(5 * time.Second); !slices.Contains(said, "started 5/1") {
			t.Errorf("said %q", said)
		}
	})
}

// TestAnnounceNeedsLease: addresses are told to the network for as long as the lease is good, and no longer (I5).
func TestAnnounceNeedsLease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, starts(5))
		ctx, cancel := context.WithCancel(t.Context())
		ended := b.start(ctx)
		time.Sleep(10 * time.Second)
		b.mu.Lock()
		b.leased = false
		b.mu.Unlock()
		told := len(b.log())
		time.Sleep(5 * time.Minute)
		if more := b.log()[told:]; slices.Contains(more, "announce") {
			t.Errorf("announced without a lease: %q", more)
		}
		cancel()
		<-ended
	})
}
