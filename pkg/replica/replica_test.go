package replica

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

func TestProposeReachesEveryNode(t *testing.T) {
	run(t, 3, func(t *testing.T, c *cluster) {
		mustPropose(t, c.leader(), 1)
		mustPropose(t, c.follower(), 2)
		time.Sleep(50 * time.Millisecond) // less than Raft's idle tick: the nudge spread it
		for name, m := range c.nodes {
			if s := m.State(); !marked(s, 1) || !marked(s, 2) || s.Cluster != "test" {
				t.Errorf("node %s lacks a mark", name)
			}
			if m.Leader() != c.leader().opts.Self {
				t.Errorf("node %s says that %q leads", name, m.Leader())
			}
		}
	})
}

func TestRefusedHasNoEffect(t *testing.T) {
	run(t, 3, func(t *testing.T, c *cluster) {
		for _, m := range []*member{c.leader(), c.follower()} {
			before := c.leader().State()
			outcome, err := m.Propose(t.Context(), core.Leave{Node: "nobody"})
			if outcome != core.Refused || !errors.Is(err, ErrRefused) {
				t.Errorf("%v, %v", outcome, err)
			}
			if m == c.leader() && !errors.Is(err, core.ErrUnknown) {
				t.Errorf("core's reason is lost: %v", err)
			}
			if after := c.leader().State(); after.NextID != before.NextID {
				t.Error("a refused command changed the State")
			}
		}
	})
}

func TestLeaderLoss(t *testing.T) {
	run(t, 3, func(t *testing.T, c *cluster) {
		old := c.kill(c.leader().opts.Self)
		began := time.Now()
		next := c.leader()
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("a new leader took %v", took)
		}
		mustPropose(t, next, 1)
		back := c.start(old.opts.Self, old.dir, nil)
		time.Sleep(3 * time.Second)
		if !marked(back.State(), 1) {
			t.Error("the node that came back did not catch up")
		}
	})
}

func TestIsolatedLeaderKnowsNothing(t *testing.T) {
	run(t, 3, func(t *testing.T, c *cluster) {
		old := c.leader()
		c.isolate(old.opts.Self, true)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if outcome, err := old.Propose(ctx, mark(1)); outcome != core.Unknown || !errors.Is(err, ErrUnknown) {
			t.Errorf("outcome %v, %v: nobody can know it", outcome, err)
		}
		if err := old.VerifyQuorum(t.Context()); err == nil {
			t.Error("an isolated leader verified its quorum")
		}
		delete(c.nodes, old.opts.Self)
		next := c.leader()
		mustPropose(t, next, 2)
		c.nodes[old.opts.Self] = old
		c.isolate(old.opts.Self, false)
		time.Sleep(5 * time.Second)
		if !marked(old.State(), 2) || marked(old.State(), 1) != marked(next.State(), 1) {
			t.Error("States differ after the cut healed")
		}
	})
}

func TestNoQuorumRefusesInTime(t *testing.T) {
	run(t, 3, func(t *testing.T, c *cluster) {
		f := c.follower()
		for name := range c.nodes {
			if name != f.opts.Self {
				c.kill(name)
			}
		}
		time.Sleep(2 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if outcome, err := f.Propose(ctx, mark(1)); outcome != core.Refused || !errors.Is(err, ErrNoLeader) {
			t.Errorf("%v, %v", outcome, err)
		}
	})
}

func TestLostAnswerIsUnknown(t *testing.T) {
	run(t, 3, func(t *testing.T, c *cluster) {
		f := c.follower()
		f.opts.Caller = loseAnswers{f.opts.Caller}
		if outcome, err := f.Propose(t.Context(), mark(1)); outcome != core.Unknown || !errors.Is(err, ErrUnknown) {
			t.Errorf("%v, %v", outcome, err)
		}
		if !marked(c.leader().State(), 1) {
			t.Error("the proposal itself should have arrived")
		}
	})
}

func TestNodeCannotSpeakForAnother(t *testing.T) {
	run(t, 3, func(t *testing.T, c *cluster) {
		f := c.follower()
		c.leader().check = func(by core.NodeName, cmd core.Command) error {
			return fmt.Errorf("%s may not %s", by, cmd.Kind())
		}
		outcome, err := f.Propose(t.Context(), mark(1)) // State itself would take it
		if outcome != core.Refused || !errors.Is(err, ErrRefused) || marked(c.leader().State(), 1) {
			t.Errorf("%v, %v", outcome, err)
		}
	})
}

func TestLeadContextDies(t *testing.T) {
	run(t, 3, func(t *testing.T, c *cluster) {
		mustPropose(t, c.leader(), 1)
		ctx, cancel := context.WithCancel(t.Context())
		var wait sync.WaitGroup
		var leading atomic.Int32
		terms := make(chan uint64, 10)
		for _, m := range c.nodes {
			wait.Go(func() {
				m.Lead(ctx, func(ctx context.Context, l Leadership) {
					if !marked(m.State(), 1) {
						t.Error("leads before it caught up")
					}
					terms <- l.Term
					leading.Add(1)
					<-ctx.Done()
					leading.Add(-1)
				})
			})
		}
		time.Sleep(time.Second)
		old := c.leader()
		first := <-terms
		c.isolate(old.opts.Self, true)
		time.Sleep(10 * time.Second)
		if second := <-terms; second <= first {
			t.Errorf("term %d after %d", second, first)
		}
		if n := leading.Load(); n != 1 {
			t.Errorf("%d nodes lead", n)
		}
		c.isolate(old.opts.Self, false)
		cancel()
		wait.Wait()
	})
}

// TestLeadsAfterBarrier: a new leader has what its predecessor committed, although nobody had told it that it was (I1).
func TestLeadsAfterBarrier(t *testing.T) {
	run(t, 3, func(t *testing.T, c *cluster) {
		old := c.leader()
		var cut sync.Once
		cutOff := func(s core.State) { // the leader is the first to apply; nobody hears of it
			if marked(s, 1) {
				cut.Do(func() { c.isolate(old.opts.Self, true) })
			}
		}
		c.onApply.Store(&cutOff)
		if outcome, err := old.Propose(t.Context(), mark(1)); outcome != core.Done {
			t.Fatalf("%v, %v", outcome, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wait sync.WaitGroup
		led := 0
		for _, m := range c.nodes {
			if m == old {
				continue
			}
			if marked(m.State(), 1) {
				t.Fatal("a follower was told")
			}
			wait.Go(func() {
				_ = m.Lead(ctx, func(ctx context.Context, _ Leadership) {
					led++
					if !marked(m.State(), 1) {
						t.Error("leads before it caught up")
					}
					<-ctx.Done()
				})
			})
		}
		time.Sleep(10 * time.Second)
		cancel()
		wait.Wait()
		if led != 1 {
			t.Errorf("%d nodes led", led)
		}
		c.isolate(old.opts.Self, false)
	})
}

func TestLeadAgainWhenCallbackReturns(t *testing.T) {
	run(t, 1, func(t *testing.T, c *cluster) {
		ctx, cancel := context.WithCancel(t.Context())
		calls := 0
		err := c.nodes["a"].Lead(ctx, func(context.Context, Leadership) {
			if calls++; calls == 3 {
				cancel()
			}
		})
		if calls != 3 || !errors.Is(err, context.Canceled) {
			t.Errorf("%d calls, %v", calls, err)
		}
	})
}

func TestVerifyQuorumSharesRounds(t *testing.T) {
	run(t, 3, func(t *testing.T, c *cluster) {
		leader := c.leader()
		var wait sync.WaitGroup
		before := leader.trans.clock.Load()
		for range 100 {
			wait.Go(func() {
				if err := leader.VerifyQuorum(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wait.Wait()
		if n := leader.trans.clock.Load() - before; n > 150 { // one by one they would cost 300
			t.Errorf("100 callers cost %d rounds and heartbeats", n)
		}
		if err := c.follower().VerifyQuorum(t.Context()); !errors.Is(err, ErrNotLeader) {
			t.Errorf("a follower says %v", err)
		}
	})
}

// An answer to a heartbeat that was sent before the call proves nothing about after it, though Raft counts it.
func TestVerifyQuorumWantsANewAnswer(t *testing.T) {
	tr := &transport{contacts: map[raftID]contact{}}
	tr.contacts["b/1"] = contact{term: 3, asked: tr.clock.Add(1)}
	since := tr.clock.Add(1)
	if tr.agreed("b/1", 3, since) {
		t.Error("an old answer counts")
	}
	tr.contacts["b/1"] = contact{term: 3, asked: tr.clock.Add(1)}
	if !tr.agreed("b/1", 3, since) || tr.agreed("b/1", 4, since) {
		t.Error("only a new answer of the same term counts")
	}
}

// TestVerifyQuorumCounts: only a majority that answers after the call is a quorum, and who asks while a round is under
// way waits for the next (I5).
func TestVerifyQuorumCounts(t *testing.T) {
	run(t, 3, func(t *testing.T, c *cluster) {
		leader := c.leader()
		term := leader.Term()
		if leader.agreed(term, leader.trans.clock.Add(1)) {
			t.Error("a quorum before anybody was asked")
		}
		since := leader.trans.clock.Add(1)
		if err := leader.VerifyQuorum(t.Context()); err != nil || !leader.agreed(term, since) {
			t.Errorf("no quorum after all were asked: %v", err)
		}
		later := leader.trans.clock.Load() + 100 // many answers from now
		if err := leader.verifySince(later); err != nil || leader.trans.clock.Load() < later {
			t.Errorf("an answer from before is enough: %v", err)
		}
		c.isolate(leader.opts.Self, true)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := leader.VerifyQuorum(ctx); !errors.Is(err, ErrNoQuorum) {
			t.Errorf("cut off: %v", err)
		}
		leader.quorum.mu.Lock()
		if !leader.quorum.running || leader.quorum.next != nil {
			t.Error("the round under way may be joined")
		}
		leader.quorum.mu.Unlock()
		c.isolate(leader.opts.Self, false)
	})
}

func TestTransferLeadership(t *testing.T) {
	run(t, 3, func(t *testing.T, c *cluster) {
		to := c.follower()
		if err := c.leader().TransferLeadership(t.Context(), to.opts.Self); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if l := c.leader(); l != to {
			t.Errorf("%s leads", l.opts.Self)
		}
		mustPropose(t, c.follower(), 1)
	})
}

func TestWatchMissesNothing(t *testing.T) {
	run(t, 1, func(t *testing.T, c *cluster) {
		m := c.nodes["a"]
		_, changed := m.Watch()
		select {
		case <-changed:
			t.Fatal("changed already")
		default:
		}
		mustPropose(t, m, 1)
		<-changed
		if next, _ := m.Watch(); !marked(next, 1) {
			t.Error("no newer State")
		}
	})
}

func TestSnapshotAndRestore(t *testing.T) {
	run(t, 3, func(t *testing.T, c *cluster) {
		away := c.kill(c.follower().opts.Self)
		leader := c.leader()
		for i := range 5 {
			mustPropose(t, leader, i)
		}
		rc := leader.raft.ReloadableConfig()
		rc.TrailingLogs = 0
		if err := leader.raft.ReloadConfig(rc); err != nil {
			t.Fatal(err)
		}
		if err := leader.raft.Snapshot().Error(); err != nil {
			t.Fatal(err)
		}
		back := c.start(away.opts.Self, away.dir, nil)
		time.Sleep(5 * time.Second)
		if !marked(back.State(), 4) {
			t.Error("the snapshot did not arrive")
		}
		old := c.kill(leader.opts.Self)
		again := c.start(old.opts.Self, old.dir, nil)
		time.Sleep(5 * time.Second)
		if !marked(again.State(), 4) || again.Applied() < c.leader().Applied() {
			t.Errorf("the snapshot was not restored: applied %d of %d", again.Applied(), c.leader().Applied())
		}
	})
}

// Applied never runs ahead of State: a daemon that came back would act on half of its log.
func TestAppliedIsInState(t *testing.T) {
	run(t, 3, func(t *testing.T, c *cluster) {
		away := c.kill(c.follower().opts.Self)
		leader := c.leader()
		for i := range 5 {
			mustPropose(t, leader, i)
		}
		target := leader.Applied()
		slow := func(core.State) { time.Sleep(100 * time.Millisecond) }
		c.onApply.Store(&slow)
		back := c.start(away.opts.Self, away.dir, nil)
		for range 100 {
			if back.Applied() >= target {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		if !marked(back.State(), 4) || back.Applied() < target {
			t.Errorf("applied %d of %d, in State: %t", back.Applied(), target, marked(back.State(), 4))
		}
	})
}

// A node that came back with an empty disk is another member: as its earlier self it would give away votes that it
// does not remember.
func TestEmptyDiskIsANewcomer(t *testing.T) {
	run(t, 3, func(t *testing.T, c *cluster) {
		mustPropose(t, c.leader(), 1)
		gone := c.kill(c.follower().opts.Self).opts.Self
		fresh := *c.ids[gone]
		fresh.Incarnation = "another"
		c.ids[gone] = &fresh
		back := c.start(gone, t.TempDir(), nil)
		time.Sleep(5 * time.Second)
		if !back.Empty() {
			t.Error("the newcomer took the log of its earlier self")
		}
		if err := c.leader().AddVoter(t.Context(), gone, "another"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if !marked(back.State(), 1) || len(c.leader().Members()) != 3 {
			t.Errorf("not a member again: %v", c.leader().Members())
		}
	})
}

func TestBootstrapTwice(t *testing.T) {
	run(t, 1, func(t *testing.T, c *cluster) {
		if err := c.nodes["a"].Bootstrap(t.Context()); !errors.Is(err, ErrBootstrapped) {
			t.Errorf("%v", err)
		}
	})
}

func TestTimeNeverGoesBack(t *testing.T) {
	run(t, 3, func(t *testing.T, c *cluster) {
		last := core.Time(0)
		for i := range 4 {
			time.Sleep(3 * time.Second)
			mustPropose(t, c.leader(), i)
			now := c.leader().State().Now
			if now < last.Add(2*time.Second) {
				t.Errorf("cluster time %d after %d", now, last)
			}
			last = now
			if err := c.leader().TransferLeadership(t.Context(), c.follower().opts.Self); err != nil {
				t.Error(err)
			}
		}
		if last > core.Time(time.Since(c.begin)) {
			t.Error("cluster time runs early")
		}
	})
}

func TestRemovedMemberIsOut(t *testing.T) {
	run(t, 3, func(t *testing.T, c *cluster) {
		f := c.follower().opts.Self
		if err := c.leader().Remove(t.Context(), f); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		if n := len(c.leader().Members()); n != 2 {
			t.Errorf("%d members", n)
		}
		mustPropose(t, c.leader(), 1)
		synctest.Wait()
	})
}

// TestSetElection: followers wait for as long as they are told to while they run.
func TestSetElection(t *testing.T) {
	run(t, 3, func(t *testing.T, c *cluster) {
		const slow = 4 * time.Second
		old := c.leader()
		for _, m := range c.nodes {
			m.SetElection(slow)
		}
		time.Sleep(2 * slow) // the timers that ran already
		c.kill(old.opts.Self)
		began := time.Now()
		time.Sleep(slow - 500*time.Millisecond)
		for name, m := range c.nodes {
			if m.Leads() {
				t.Errorf("%s leads %v after the leader was lost", name, time.Since(began))
			}
		}
		mustPropose(t, c.leader(), 1)
	})
}
