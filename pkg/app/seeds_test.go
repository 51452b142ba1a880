package app

import (
	"net/netip"
	"testing"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

func TestSeedsOutliveTheDaemon(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := loadSeeds(dir)
	if err != nil || first.election != 0 || first.of("n1") != nil {
		t.Fatalf("of an empty directory: %+v, %v", first, err)
	}
	spec := core.Spec{
		Nodes:  []core.NodeSpec{{Name: "n1", Links: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}},
		Timing: core.Timing{RaftElection: 2500 * time.Millisecond},
	}
	if err := first.save(spec); err != nil {
		t.Fatal(err)
	}
	next, err := loadSeeds(dir)
	if err != nil || len(next.of("n1")) != 1 {
		t.Fatalf("addresses %v, %v", next.of("n1"), err)
	}
	if next.election != spec.Timing.RaftElection {
		t.Errorf("raft_election %v, saved was %v", next.election, spec.Timing.RaftElection)
	}
}
