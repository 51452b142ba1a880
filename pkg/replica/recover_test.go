package replica

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func recoverOptions(m *member) Options {
	return Options{Self: m.opts.Self, Incarnation: m.opts.Incarnation, DataDir: m.dir}
}

// TestRecoverGoesOnAlone loses two of three for ever: the third goes on with the State that it had.
func TestRecoverGoesOnAlone(t *testing.T) {
	run(t, 3, func(t *testing.T, c *cluster) {
		mustPropose(t, c.leader(), 1)
		time.Sleep(time.Second)
		left := c.kill(c.follower().opts.Self)
		for name := range c.nodes {
			c.kill(name)
		}
		state, err := Recover(recoverOptions(left))
		if err != nil || !marked(state, 1) {
			t.Fatalf("recovered without the mark: %v", err)
		}
		back := c.start(left.opts.Self, left.dir, nil)
		if c.leader() != back || !marked(back.State(), 1) || back.State().Cluster != "test" {
			t.Error("the node does not lead with its old State")
		}
		if members := back.Members(); len(members) != 1 || !members[0].Voter {
			t.Errorf("members: %v", members)
		}
		mustPropose(t, back, 2)
		c.kill(back.opts.Self)
		again := c.start(left.opts.Self, left.dir, nil)
		if c.leader() != again || !marked(again.State(), 1) || !marked(again.State(), 2) {
			t.Error("what was committed after the recovery did not outlive a restart")
		}
	})
}

// TestRecoverOverridesSurvivor recovers the node that was behind, while another that has applied more still runs: it
// must not keep what it alone knows.
func TestRecoverOverridesSurvivor(t *testing.T) {
	run(t, 3, func(t *testing.T, c *cluster) {
		mustPropose(t, c.leader(), 1)
		time.Sleep(time.Second)
		behind := c.kill(c.follower().opts.Self)
		for i := 2; i < 6; i++ {
			mustPropose(t, c.leader(), i)
		}
		time.Sleep(time.Second)
		c.kill(c.leader().opts.Self)
		var survivor *member
		for _, m := range c.nodes {
			survivor = m
		}
		if !marked(survivor.State(), 5) {
			t.Fatal("the other follower should be ahead")
		}
		if _, err := Recover(recoverOptions(behind)); err != nil {
			t.Fatal(err)
		}
		leader := c.start(behind.opts.Self, behind.dir, nil)
		if c.leader() != leader {
			t.Fatal("the recovered node does not lead")
		}
		mustPropose(t, leader, 7)
		if err := leader.AddNonvoter(t.Context(), survivor.opts.Self, survivor.opts.Incarnation); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if s := survivor.State(); !marked(s, 7) || !marked(s, 1) {
			t.Error("the survivor does not follow")
		}
		if s := survivor.State(); marked(s, 2) || marked(s, 5) {
			t.Error("the survivor keeps what the leader never had")
		}
		if err := leader.AddVoter(t.Context(), survivor.opts.Self, survivor.opts.Incarnation); err != nil {
			t.Fatal(err)
		}
		mustPropose(t, survivor, 8)
		c.kill(survivor.opts.Self)
		survivor = c.start(survivor.opts.Self, survivor.dir, nil)
		time.Sleep(3 * time.Second)
		if s := survivor.State(); !marked(s, 8) || marked(s, 5) {
			t.Error("a restart brought the lost entries back")
		}
	})
}

func TestRecoverRefuses(t *testing.T) {
	t.Run("no log", func(t *testing.T) {
		dir := t.TempDir()
		if _, err := Recover(Options{Self: "a", Incarnation: "1", DataDir: dir}); !errors.Is(err, ErrNoLog) {
			t.Errorf("got %v", err)
		}
		if _, err := os.Stat(filepath.Join(dir, "raft")); !errors.Is(err, os.ErrNotExist) {
			t.Error("it made a log")
		}
	})
	t.Run("while it runs", func(t *testing.T) {
		run(t, 3, func(t *testing.T, c *cluster) {
			if _, err := Recover(recoverOptions(c.leader())); err == nil || !strings.Contains(err.Error(), "stop it first") {
				t.Errorf("under a running replica: %v", err)
			}
		})
	})
}
