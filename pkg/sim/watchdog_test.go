package sim

import (
	"testing"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

// watched is a calm cluster whose guards have watchdogs.
func watched(t *testing.T) (*World, *node) {
	t.Helper()
	w := New(Shape{Seed: 1, Nodes: 3, Services: 1, Policy: "default", Manager: core.ManagerKeepone, Watchdog: true}, true)
	t.Cleanup(w.end)
	w.Run(20 * time.Second)
	g := w.raft.newest().Services["one"].Grant
	if g == nil || g.Phase != core.PhaseRunning {
		t.Fatal("nothing runs")
	}
	return w, w.names[g.Node]
}

// TestWatchdogBites: a guard that hangs, and a container that can't be ended, cost the node a reset, and the service goes
// on elsewhere.
func TestWatchdogBites(t *testing.T) {
	for name, do := range map[string]func(w *World, n *node){
		"hangs":          func(_ *World, n *node) { n.hangGuard() },
		"can't contain":  func(w *World, n *node) { kindOf("contains-nothing").begin(w, n, Act{}) },
		"paused":         func(_ *World, n *node) { n.pause() },
		"undying, alone": func(w *World, n *node) { n.wrong.container.undying = true; kindOf("isolate").begin(w, n, Act{Much: 1}) },
	} {
		t.Run(name, func(t *testing.T) {
			w, holder := watched(t)
			for _, n := range w.nodes { // else the BMC ends it before
				n.bmc.dead = true
			}
			w.at(0, func() { do(w, holder) })
			w.Run(w.now + 60*time.Second)
			if holder.bites == 0 || len(w.checks.broken) > 0 || !w.allServed() {
				t.Errorf("%d bites, broken %v, served %t", holder.bites, w.checks.broken, w.allServed())
			}
		})
	}
}

// A cluster that is well, has a failover, or loses its links, loses no node to a watchdog.
func TestWatchdogSparesTheHealthy(t *testing.T) {
	w, holder := watched(t)
	w.rest(time.Hour)
	w.at(0, holder.killGuard)
	w.Run(w.now + 30*time.Second)
	for _, n := range w.nodes {
		n.bmc.dead = true
	}
	w.at(0, func() { kindOf("isolate").begin(w, holder, Act{Much: 1}) })
	w.Run(w.now + 60*time.Second)
	for _, n := range w.nodes {
		if n.bites > 0 {
			t.Errorf("%s was reset", n.name)
		}
	}
	if len(w.checks.broken) > 0 {
		t.Error(w.checks.broken)
	}
}

// A watchdog that does not bite is noticed.
func TestWatchdogThatSleeps(t *testing.T) {
	w, holder := watched(t)
	for _, n := range w.nodes {
		n.bmc.dead = true
	}
	w.at(0, func() { holder.petted, holder.wrong.container.undying = time.Hour, true; holder.hangGuard() })
	w.Run(w.now + 60*time.Second)
	wantBroken(t, w, "no watchdog bites")
}
