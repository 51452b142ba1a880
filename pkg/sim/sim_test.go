package sim

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

// calmWorld is a cluster of three that runs its service.
func calmWorld(t *testing.T) (*World, *node) {
	t.Helper()
	w := New(Shape{Seed: 1, Nodes: 3, Services: 1, Policy: "default", Manager: core.ManagerKeepone}, true)
	t.Cleanup(func() {
		w.end()
		if t.Failed() {
			t.Log("\n" + strings.Join(w.trace.lines, "\n"))
		}
	})
	w.Run(20 * time.Second)
	g := w.raft.newest().Services["one"].Grant
	if g == nil || g.Phase != core.PhaseRunning {
		t.Fatal("nothing runs")
	}
	return w, w.names[g.Node]
}

// TestPowerCut is one failover in a calm cluster.
func TestPowerCut(t *testing.T) {
	w, holder := calmWorld(t)
	w.at(0, holder.cut)
	w.Run(24 * time.Second)
	if w.checks.failovers != 1 || len(w.checks.broken) > 0 || !w.allServed() {
		t.Errorf("%d failovers, broken %v, served %v", w.checks.failovers, w.checks.broken, w.allServed())
	}
}

// TestCalmIsShort: a calm of an hour changes nothing.
func TestCalmIsShort(t *testing.T) {
	w, _ := calmWorld(t)
	before, events := w.raft.newest().NextID, w.queue.seq
	w.rest(time.Hour)
	if w.now < time.Hour || w.raft.newest().NextID != before || w.unsettled() != "" {
		t.Errorf("after %s: %d events of the history, %q", w.now, w.raft.newest().NextID-before, w.unsettled())
	}
	if played := w.queue.seq - events; played > 5000 {
		t.Errorf("an hour of calm took %d events", played)
	}
}

// The checks have teeth: each notices the world without what it stands for.

func wantBroken(t *testing.T, w *World, what string) {
	t.Helper()
	if !slices.ContainsFunc(w.checks.broken, func(line string) bool { return strings.Contains(line, what) }) {
		t.Errorf("not noticed: %s; broken %v", what, w.checks.broken)
	}
}

// pardon takes the blocklist away, and the watches that would tell.
func (w *World) pardon() {
	for _, img := range w.ceph.images {
		img.watchers = slices.DeleteFunc(img.watchers, func(x *watcher) bool { return w.ceph.banned(x.address) })
	}
	clear(w.ceph.blocklist)
}

// TestNoticesLateWrites takes the blocklist away: the write of a holder that was paused lands when it wakes.
func TestNoticesLateWrites(t *testing.T) {
	w, holder := calmWorld(t)
	holder.pause()
	for w.now < 40*time.Second {
		w.step()
		w.pardon()
		w.checks.broken = nil // two can write: noticed before
	}
	holder.resume()
	w.Run(w.now + time.Second)
	wantBroken(t, w, "I6: a write of "+string(holder.name))
}

func TestNoticesTwoWriters(t *testing.T) {
	w, holder := calmWorld(t)
	holder.pause()
	for w.now < 40*time.Second && len(w.checks.broken) == 0 {
		w.step()
		w.pardon()
	}
	wantBroken(t, w, "can be written by")
}

// TestNoticesLateContainment takes the guard's hand off a holder that nobody hears.
func TestNoticesLateContainment(t *testing.T) {
	w, holder := calmWorld(t)
	isolate(w, holder, Act{})
	holder.guard.held[0].retry = 1 << 60
	w.Run(40 * time.Second)
	wantBroken(t, w, "I5: ")
}

// TestNoticesLostWrites takes an acknowledged write away.
func TestNoticesLostWrites(t *testing.T) {
	w, holder := calmWorld(t)
	w.at(0, func() {
		holder.cut()
		for k := range w.ceph.images[0].objects {
			w.ceph.images[0].objects[k].value = write{}
		}
	})
	w.Run(40 * time.Second)
	wantBroken(t, w, "I8: ")
}

// TestNoticesFalseWords: a holder that says that it vacated, and a BMC's reading of a node that is on.
func TestNoticesFalseWords(t *testing.T) {
	w, holder := calmWorld(t)
	w.commit(holder, func(core.State) core.Command {
		return core.Vacated{Service: "one", Epoch: 1, Instance: holder.life}
	})
	w.Run(w.now + time.Second)
	wantBroken(t, w, "says that it vacated")

	w, holder = calmWorld(t)
	w.checks.proof(core.Proof{Kind: core.ProofBMCOff, Instance: holder.life})
	wantBroken(t, w, "and it lives")
}
