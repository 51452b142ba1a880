package sim

import (
	"strings"
	"testing"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/ocf"
	"github.com/keepone-ha/keepone/pkg/op"
)

// managedWorld is a cluster of three under Pacemaker that runs its service.
func managedWorld(t *testing.T, one bool) (*World, *node) {
	t.Helper()
	w := New(Shape{Seed: 1, Nodes: 3, Services: 1, Policy: "default", Manager: core.ManagerPacemaker, One: one}, true)
	t.Cleanup(func() {
		w.end()
		if t.Failed() {
			t.Log("\n" + strings.Join(w.trace.lines, "\n"))
		}
	})
	if !w.settle(2 * time.Minute) {
		t.Fatalf("it never came up: %s", w.unsettled())
	}
	return w, w.names[w.raft.newest().Services["one"].Grant.Node]
}

// TestManagedPowerCut is one failover that Pacemaker orders, in both styles.
func TestManagedPowerCut(t *testing.T) {
	for _, one := range []bool{false, true} {
		w, holder := managedWorld(t, one)
		w.at(0, holder.cut)
		w.Run(w.now + 30*time.Second)
		if w.checks.failovers != 1 || len(w.checks.broken) > 0 || !w.allServed() {
			t.Errorf("one %t: %d failovers, broken %v, served %t", one, w.checks.failovers, w.checks.broken, w.allServed())
		}
	}
}

// TestPacemakerKilled: a Pacemaker that dies and comes back at once knows nothing of the node's attributes, and stops nothing
// for it.
func TestPacemakerKilled(t *testing.T) {
	w, holder := managedWorld(t, false)
	before := w.raft.newest().Services["one"]
	w.at(0, func() { holder.endPacemaker(); holder.startPacemaker() })
	w.Run(w.now + time.Minute)
	if now := w.raft.newest().Services["one"]; now.Epoch != before.Epoch || now.Grant == nil || now.Grant.Run != before.Grant.Run || w.unsettled() != "" {
		t.Errorf("epoch %d, then %d; %s", before.Epoch, now.Epoch, w.unsettled())
	}
}

// handsOff keeps Pacemaker from doing anything by itself.
func handsOff(w *World, n *node) {
	n.configure(func(c *conf) { c.maintenance = true })
	w.Run(w.now + time.Second)
}

// acts has agents work on a node one after the other, for at most so long, and returns their exit codes.
func acts(w *World, n *node, most time.Duration, list ...action) []ocf.Code {
	var codes []ocf.Code
	n.agents.run(func(p *process) {
		for _, a := range list {
			codes = append(codes, n.act(p, a, 0, 0))
		}
	})
	w.Run(w.now + most)
	return codes
}

// TestStartRightAfterStop: State still says that the container runs, and its stop has ended it: a start must not be called
// done (I7).
func TestStartRightAfterStop(t *testing.T) {
	w, holder := managedWorld(t, false)
	handsOff(w, holder)
	cutOurs(w, func(a, b *node) bool { return a == holder || b == holder })
	box := containerOf("one")
	codes := acts(w, holder, 2*time.Second, action{holder, "one", box, ocf.Stop}, action{holder, "one", box, ocf.Start})
	if len(codes) != 1 || codes[0] != ocf.Success || len(w.checks.broken) > 0 {
		t.Errorf("%v, broken %v", codes, w.checks.broken)
	}
}

// TestClaimEndsWithItsAgent: what an agent waited for is not granted once it was killed (I4).
func TestClaimEndsWithItsAgent(t *testing.T) {
	w, holder := managedWorld(t, false)
	handsOff(w, holder)
	codes := acts(w, holder, 10*time.Second, action{holder, "one", containerOf("one"), ocf.Stop},
		action{holder, "one", mountOf("one"), ocf.Stop}, action{holder, "one", volumeOf("one"), ocf.Demote})
	if len(codes) != 3 || w.raft.newest().Services["one"].Grant != nil {
		t.Fatalf("not demoted: %v", codes)
	}
	w.ceph.refuses = true // nobody may have it now
	w.Run(w.now + 5*time.Second)
	acts(w, holder, 5*time.Second, action{holder, "one", volumeOf("one"), ocf.Promote})
	for _, p := range holder.acting {
		p.kill()
	}
	w.ceph.refuses = false
	w.Run(w.now + 20*time.Second)
	if g := w.raft.newest().Services["one"].Grant; g != nil {
		t.Errorf("granted at epoch %d to nobody who waits", g.Epoch)
	}
}

// TestNoticesFalseAgents: a stop and a start that say what is not so, and a fence of a node that lives.
func TestNoticesFalseAgents(t *testing.T) {
	w, holder := managedWorld(t, false)
	w.checks.fenced(holder, holder.life, op.Fenced{Proof: core.ProofBMCOff, Scope: core.ScopeNode})
	wantBroken(t, w, "and "+string(holder.life)+" lives")
	w.checks.fenced(holder, "", op.Fenced{Proof: core.ProofStorage, Scope: core.ScopeClient})
	wantBroken(t, w, "of client scope")
	h := holder.here[0]
	w.checks.acted(holder, action{holder, "one", containerOf("one"), ocf.Stop}, ocf.Success)
	wantBroken(t, w, "and the container runs")
	h.buried = tomb{h.rec.Epoch, h.rec.Attempt}
	w.checks.acted(holder, action{holder, "one", containerOf("one"), ocf.Start}, ocf.Success)
	wantBroken(t, w, "is stopped")
}
