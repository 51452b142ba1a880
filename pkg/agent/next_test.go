package agent

import (
	"testing"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/release"
)

func (s Step) String() string {
	return [...]string{"rest", "activate", "adopt", "restart", "lost", "clean", "vacant", "mapped"}[s]
}

func TestNext(t *testing.T) {
	up := release.Facts{Init: true, Mounted: true, Mapper: true}
	ended := release.Facts{Mounted: true, Mapper: true}
	rec := func(epoch core.Epoch, attempt int, marks release.Marks) *release.Record {
		return &release.Record{Service: one, Epoch: epoch, Instance: life, Attempt: attempt, Marks: marks}
	}
	var none release.Marks
	halted, contained := release.Marks{Halted: true}, release.Marks{Contained: true}
	gone := release.Marks{Contained: true, Vacated: true}
	dirty := release.Marks{Contained: true, Dirty: true}
	other := rec(5, 1, none)
	other.Instance = "boot/a0"
	kept := func(attempt int, marks release.Marks) *release.Record {
		r := rec(5, attempt, marks)
		r.Storage.Kept = true
		return r
	}
	for _, tt := range []struct {
		name  string
		duty  duty
		grant core.Grant
		here  Here
		want  Step
	}{
		{"nothing wanted, nothing here", idle, core.Grant{}, Here{}, Rest},
		{"nothing wanted, runs", idle, core.Grant{}, Here{Record: rec(5, 1, none), Facts: up}, Clean},
		{"nothing wanted, an activation that died", idle, core.Grant{}, Here{Record: rec(5, 1, none)}, Clean},
		{"nothing wanted, contained but not vacated", idle, core.Grant{}, Here{Record: rec(5, 1, contained), Facts: ended}, Clean},
		{"nothing wanted, vacated", idle, core.Grant{}, Here{Record: rec(5, 1, gone)}, Rest},

		{"released while it runs", leave, in(core.PhaseReleasing, 5, 1), Here{Record: rec(5, 1, none), Facts: up}, Clean},
		{"released before anything", leave, in(core.PhaseReleasing, 5, 1), Here{}, Vacant},
		{"released and vacated", leave, in(core.PhaseReleasing, 5, 1), Here{Record: rec(5, 1, gone)}, Vacant},
		{"released, an older epoch is here", leave, in(core.PhaseReleasing, 5, 1), Here{Record: rec(4, 1, none), Facts: up}, Clean},

		{"from nothing", hold, starts(5), Here{}, Activate},
		{"after an older epoch vacated", hold, starts(5), Here{Record: rec(4, 3, gone)}, Activate},
		{"an older epoch runs", hold, starts(5), Here{Record: rec(4, 1, none), Facts: up}, Clean},
		{"an older epoch was cut off, and is gone", hold, starts(5), Here{Record: rec(4, 1, dirty)}, Activate},
		{"an older epoch was cut off, and is still mapped", hold, starts(5), Here{Record: rec(4, 1, dirty), Facts: release.Facts{Mapper: true}}, Clean},
		{"released before anything, an older epoch was cut off", leave, in(core.PhaseReleasing, 5, 1), Here{Record: rec(4, 1, dirty)}, Vacant},
		{"released, and can't be vacated", leave, in(core.PhaseReleasing, 5, 1), Here{Record: rec(5, 1, dirty)}, Clean},
		{"nothing wanted, was cut off, and is gone", idle, core.Grant{}, Here{Record: rec(4, 1, dirty)}, Rest},
		{"another life's", hold, starts(5), Here{Record: other, Facts: up}, Clean},
		{"stopped here, same attempt", hold, in(core.PhaseRunning, 5, 1), Here{Record: rec(5, 1, gone), Buried: true}, Vacant},
		{"stopped here, a newer run wanted", hold, in(core.PhaseStarting, 5, 2), Here{Record: rec(5, 1, gone), Buried: true}, Activate},

		{"runs", hold, in(core.PhaseRunning, 5, 1), Here{Record: rec(5, 1, none), Facts: up}, Adopt},
		{"runs and is still to answer", hold, starts(5), Here{Record: rec(5, 1, none), Facts: up}, Adopt},
		{"failed its probes, runs", hold, in(core.PhaseFailed, 5, 1), Here{Record: rec(5, 1, none), Facts: up}, Adopt},
		{"cut short before the mount", hold, starts(5), Here{Record: rec(5, 1, none), Facts: release.Facts{Mapper: true}}, Clean},
		{"cut short before the mapping", hold, starts(5), Here{Record: rec(5, 1, none)}, Clean},
		{"the mapper died", hold, in(core.PhaseRunning, 5, 1), Here{Record: rec(5, 1, none), Facts: release.Facts{Init: true, Mounted: true}}, Clean},
		{"ended", hold, in(core.PhaseRunning, 5, 1), Here{Record: rec(5, 1, none), Facts: ended}, Lost},
		{"ended, reported", hold, in(core.PhaseFailed, 5, 1), Here{Record: rec(5, 1, none), Facts: ended}, Rest},
		{"restart ordered", hold, in(core.PhaseStarting, 5, 2), Here{Record: rec(5, 1, none), Facts: ended}, Restart},
		{"restart ordered while it runs", hold, in(core.PhaseStarting, 5, 2), Here{Record: rec(5, 1, none), Facts: up}, Restart},
		{"restart ordered, the old run's end is known", hold, in(core.PhaseStarting, 5, 2), Here{Record: rec(5, 1, contained), Facts: ended, Buried: true}, Restart},
		{"restart failed before its record", hold, in(core.PhaseFailed, 5, 2), Here{Record: rec(5, 1, contained), Facts: ended, Buried: true}, Rest},
		{"restart failed and was ended", hold, in(core.PhaseFailed, 5, 2), Here{Record: rec(5, 2, contained), Facts: ended, Buried: true}, Rest},
		{"restart failed, storage went too", hold, in(core.PhaseFailed, 5, 2), Here{Record: rec(5, 2, contained), Buried: true}, Clean},

		{"contained at its lease's end", hold, in(core.PhaseRunning, 5, 1), Here{Record: rec(5, 1, contained), Facts: ended}, Clean},
		{"somebody stops it, still shutting down", hold, in(core.PhaseRunning, 5, 1), Here{Record: rec(5, 1, halted), Facts: up, Buried: true}, Clean},
		{"somebody stops it, just ended", hold, in(core.PhaseRunning, 5, 1), Here{Record: rec(5, 1, none), Facts: ended, Buried: true}, Clean},
		{"staged, from nothing", hold, staged(core.PhaseStarting, core.StagePromoted, 1), Here{}, Activate},
		{"staged, an older epoch is here", hold, staged(core.PhaseStarting, core.StagePromoted, 1), Here{Record: rec(4, 1, none), Facts: ended}, Clean},
		{"mapped and kept", hold, staged(core.PhaseStarting, core.StagePromoted, 1), Here{Record: kept(1, none), Facts: release.Facts{Mapper: true}}, Mapped},
		{"mapped, not kept yet", hold, staged(core.PhaseStarting, core.StagePromoted, 1), Here{Record: rec(5, 1, none), Facts: release.Facts{Mapper: true}}, Clean},
		{"promoted, not mounted", hold, staged(core.PhasePromoted, core.StagePromoted, 1), Here{Record: kept(1, none), Facts: release.Facts{Mapper: true}}, Rest},
		{"promoted, mounted", hold, staged(core.PhasePromoted, core.StagePromoted, 1), Here{Record: kept(1, none), Facts: ended}, Rest},
		{"promoted, contained by the guard", hold, staged(core.PhasePromoted, core.StagePromoted, 1), Here{Record: kept(1, contained), Facts: ended, Buried: true}, Rest},
		{"promoted, the mapper died", hold, staged(core.PhasePromoted, core.StagePromoted, 1), Here{Record: kept(1, none), Facts: release.Facts{Mounted: true}}, Clean},
		{"promoted, stopped", hold, staged(core.PhasePromoted, core.StagePromoted, 1), Here{Record: kept(1, gone), Buried: true}, Vacant},
		{"promoted again after a raise that never began, stopped", hold, staged(core.PhasePromoted, core.StagePromoted, 2), Here{Record: kept(1, gone), Buried: true}, Vacant},
		{"raise ordered, stopped", hold, staged(core.PhaseStarting, core.StageRunning, 2), Here{Record: kept(1, gone), Buried: true}, Vacant},
		{"raise ordered", hold, staged(core.PhaseStarting, core.StageRunning, 2), Here{Record: kept(1, none), Facts: ended}, Restart},
		{"raise ordered, not mounted", hold, staged(core.PhaseStarting, core.StageRunning, 2), Here{Record: kept(1, none), Facts: release.Facts{Mapper: true}}, Restart}, // which says so
		{"raise ordered after a stop of the container", hold, staged(core.PhaseStarting, core.StageRunning, 3), Here{Record: kept(2, contained), Facts: ended, Buried: true}, Restart},
		{"raise failed before it began", hold, staged(core.PhaseFailed, core.StageRunning, 2), Here{Record: kept(1, none), Facts: ended}, Mapped},
		{"raise failed and was ended", hold, staged(core.PhaseFailed, core.StageRunning, 2), Here{Record: kept(2, contained), Facts: ended, Buried: true}, Mapped},
		{"raised, to answer", hold, staged(core.PhaseStarting, core.StageRunning, 2), Here{Record: kept(2, none), Facts: up}, Adopt},
		{"raised, runs", hold, staged(core.PhaseRunning, core.StageRunning, 2), Here{Record: kept(2, none), Facts: up}, Adopt},
		{"raised, ended", hold, staged(core.PhaseRunning, core.StageRunning, 2), Here{Record: kept(2, none), Facts: ended}, Lost},
		{"raised, ended, reported", hold, staged(core.PhaseFailed, core.StageRunning, 2), Here{Record: kept(2, none), Facts: ended}, Rest},
		{"raised, shutting down", hold, staged(core.PhaseRunning, core.StageRunning, 2), Here{Record: kept(2, halted), Facts: up, Buried: true}, Rest},
		{"raised, stopped", hold, staged(core.PhaseRunning, core.StageRunning, 2), Here{Record: kept(2, contained), Facts: ended, Buried: true}, Mapped},
		{"raised, the mapper died", hold, staged(core.PhaseRunning, core.StageRunning, 2), Here{Record: kept(2, none), Facts: release.Facts{Init: true, Mounted: true}}, Clean},
		{"staged, releasing", leave, staged(core.PhaseReleasing, core.StagePromoted, 1), Here{Record: kept(1, none), Facts: ended}, Clean},
		{"staged, contained", leave, staged(core.PhaseContained, core.StagePromoted, 1), Here{Record: kept(1, contained), Facts: ended}, Clean},
		{"a stop of ours failed", hold, starts(5), Here{Record: rec(5, 1, halted), Facts: up}, Clean},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := next(tt.duty, tt.grant, tt.here); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

func TestWant(t *testing.T) {
	for _, tt := range []struct {
		name  string
		grant *core.Grant
		want  duty
	}{
		{"none", nil, idle},
		{"another node's", &core.Grant{Node: "b", Instance: "boot/b1", Epoch: 5}, idle},
		{"an earlier life's", &core.Grant{Node: self, Instance: "boot/a0", Epoch: 5}, idle}, // I4
		{"starting", &core.Grant{Node: self, Instance: life, Epoch: 5, Phase: core.PhaseStarting}, hold},
		{"running", &core.Grant{Node: self, Instance: life, Epoch: 5, Phase: core.PhaseRunning}, hold},
		{"failed", &core.Grant{Node: self, Instance: life, Epoch: 5, Phase: core.PhaseFailed}, hold},
		{"releasing", &core.Grant{Node: self, Instance: life, Epoch: 5, Phase: core.PhaseReleasing}, leave},
		{"contained", &core.Grant{Node: self, Instance: life, Epoch: 5, Phase: core.PhaseContained}, leave},
	} {
		s := core.State{Services: map[core.ServiceName]core.Service{one: {Name: one, Grant: tt.grant}}}
		if got, _ := want(s, self, life, one); got != tt.want {
			t.Errorf("%s: duty %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestLinkNameFits(t *testing.T) {
	seen := map[string]bool{}
	for _, name := range []core.ServiceName{"a", "front", "frontend-one", "frontend-one1", "frontend-one2", "frontend-one-and-a-long-tail"} {
		link := LinkName(name)
		if len(link) > 15 || seen[link] {
			t.Errorf("%s: %q is too long or taken", name, link)
		}
		seen[link] = true
	}
}
