package sim

import (
	"strings"
	"testing"
	"time"
)

// TestPowerCut is one failover in a calm cluster.
func TestPowerCut(t *testing.T) {
	w := New(Shape{Seed: 1, Nodes: 3, Services: 1, Policy: "default"}, true)
	w.Run(20 * time.Second)
	g := w.raft.newest().Services["one"].Grant
	if g == nil {
		t.Fatalf("nothing runs\n%s", strings.Join(w.trace.lines, "\n"))
	}
	w.at(0, w.names[g.Node].cut)
	w.Run(40 * time.Second)
	if w.checks.failovers != 1 || len(w.checks.broken) > 0 {
		t.Errorf("%d failovers, broken %v", w.checks.failovers, w.checks.broken)
	}
	if t.Failed() || testing.Verbose() {
		t.Log("\n" + strings.Join(w.trace.lines, "\n"))
	}
}
