package agent

import (
	"testing"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/release"
)

func (s step) String() string {
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
		want  step
	}{
		{"nothing wanted, nothing here", idle, core.Grant{}, Here{}, rest},
		{"nothing wanted, runs", idle, core.Grant{}, Here{Record: rec(5, 1, none), Facts: up}, clean},
		{"nothing wanted, an activation that died", idle, core.Grant{}, Here{Record: rec(5, 1, none)}, clean},
		{"nothing wanted, contained but not vacated", idle, core.Grant{}, Here{Record: rec(5, 1, contained), Facts: ended}, clean},
		{"nothing wanted, vacated", idle, core.Grant{}, Here{Record: rec(5, 1, gone)}, rest},

		{"released while it runs", leave, in(core.PhaseReleasing, 5, 1), Here{Record: rec(5, 1, none), Facts: up}, clean},
		{"released before anything", leave, in(core.PhaseReleasing, 5, 1), Here{}, vacant},
		{"released and vacated", leave, in(core.PhaseReleasing, 5, 1), Here{Record: rec(5, 1, gone)}, vacant},
		{"released, an older epoch is here", leave, in(core.PhaseReleasing, 5, 1), Here{Record: rec(4, 1, none), Facts: up}, clean},

		{"from nothing", hold, starts(5), Here{}, activate},
		{"after an older epoch vacated", hold, starts(5), Here{Record: rec(4, 3, gone)}, activate},
		{"an older epoch runs", hold, starts(5), Here{Record: rec(4, 1, none), Facts: up}, clean},
		{"another life's", hold, starts(5), Here{Record: other, Facts: up}, clean},
		{"stopped here, same attempt", hold, in(core.PhaseRunning, 5, 1), Here{Record: rec(5, 1, gone), Buried: true}, vacant},
		{"stopped here, a newer run wanted", hold, in(core.PhaseStarting, 5, 2), Here{Record: rec(5, 1, gone), Buried: true}, activate},

		{"runs", hold, in(core.PhaseRunning, 5, 1), Here{Record: rec(5, 1, none), Facts: up}, adopt},
		{"runs and is still to answer", hold, starts(5), Here{Record: rec(5, 1, none), Facts: up}, adopt},
		{"failed its probes, runs", hold, in(core.PhaseFailed, 5, 1), Here{Record: rec(5, 1, none), Facts: up}, adopt},
		{"cut short before the mount", hold, starts(5), Here{Record: rec(5, 1, none), Facts: release.Facts{Mapper: true}}, clean},
		{"cut short before the mapping", hold, starts(5), Here{Record: rec(5, 1, none)}, clean},
		{"the mapper died", hold, in(core.PhaseRunning, 5, 1), Here{Record: rec(5, 1, none), Facts: release.Facts{Init: true, Mounted: true}}, clean},
		{"ended", hold, in(core.PhaseRunning, 5, 1), Here{Record: rec(5, 1, none), Facts: ended}, lost},
		{"ended, reported", hold, in(core.PhaseFailed, 5, 1), Here{Record: rec(5, 1, none), Facts: ended}, rest},
		{"restart ordered", hold, in(core.PhaseStarting, 5, 2), Here{Record: rec(5, 1, none), Facts: ended}, restart},
		{"restart ordered while it runs", hold, in(core.PhaseStarting, 5, 2), Here{Record: rec(5, 1, none), Facts: up}, restart},
		{"restart ordered, the old run's end is known", hold, in(core.PhaseStarting, 5, 2), Here{Record: rec(5, 1, contained), Facts: ended, Buried: true}, restart},
		{"restart failed before its record", hold, in(core.PhaseFailed, 5, 2), Here{Record: rec(5, 1, contained), Facts: ended, Buried: true}, rest},
		{"restart failed and was ended", hold, in(core.PhaseFailed, 5, 2), Here{Record: rec(5, 2, contained), Facts: ended, Buried: true}, rest},
		{"restart failed, storage went too", hold, in(core.PhaseFailed, 5, 2), Here{Record: rec(5, 2, contained), Buried: true}, clean},

		{"contained at its lease's end", hold, in(core.PhaseRunning, 5, 1), Here{Record: rec(5, 1, contained), Facts: ended}, clean},
		{"somebody stops it, still shutting down", hold, in(core.PhaseRunning, 5, 1), Here{Record: rec(5, 1, halted), Facts: up, Buried: true}, clean},
		{"somebody stops it, just ended", hold, in(core.PhaseRunning, 5, 1), Here{Record: rec(5, 1, none), Facts: ended, Buried: true}, clean},
		{"staged, from nothing", hold, staged(core.PhaseStarting, core.StagePromoted, 1), Here{}, activate},
		{"staged, an older epoch is here", hold, staged(core.PhaseStarting, core.StagePromoted, 1), Here{Record: rec(4, 1, none), Facts: ended}, clean},
		{"mapped and kept", hold, staged(core.PhaseStarting, core.StagePromoted, 1), Here{Record: kept(1, none), Facts: release.Facts{Mapper: true}}, mapped},
		{"mapped, not kept yet", hold, staged(core.PhaseStarting, core.StagePromoted, 1), Here{Record: rec(5, 1, none), Facts: release.Facts{Mapper: true}}, clean},
		{"promoted, not mounted", hold, staged(core.PhasePromoted, core.StagePromoted, 1), Here{Record: kept(1, none), Facts: release.Facts{Mapper: true}}, rest},
		{"promoted, mounted", hold, staged(core.PhasePromoted, core.StagePromoted, 1), Here{Record: kept(1, none), Facts: ended}, rest},
		{"promoted, contained by the guard", hold, staged(core.PhasePromoted, core.StagePromoted, 1), Here{Record: kept(1, contained), Facts: ended, Buried: true}, rest},
		{"promoted, the mapper died", hold, staged(core.PhasePromoted, core.StagePromoted, 1), Here{Record: kept(1, none), Facts: release.Facts{Mounted: true}}, clean},
		{"promoted, stopped", hold, staged(core.PhasePromoted, core.StagePromoted, 1), Here{Record: kept(1, gone), Buried: true}, vacant},
		{"promoted again after a raise that never began, stopped", hold, staged(core.PhasePromoted, core.StagePromoted, 2), Here{Record: kept(1, gone), Buried: true}, vacant},
		{"raise ordered, stopped", hold, staged(core.PhaseStarting, core.StageRunning, 2), Here{Record: kept(1, gone), Buried: true}, vacant},
		{"raise ordered", hold, staged(core.PhaseStarting, core.StageRunning, 2), Here{Record: kept(1, none), Facts: ended}, restart},
		{"raise ordered, not mounted", hold, staged(core.PhaseStarting, core.StageRunning, 2), Here{Record: kept(1, none), Facts: release.Facts{Mapper: true}}, restart}, // which says so
		{"raise ordered after a stop of the container", hold, staged(core.PhaseStarting, core.StageRunning, 3), Here{Record: kept(2, contained), Facts: ended, Buried: true}, restart},
		{"raise failed before it began", hold, staged(core.PhaseFailed, core.StageRunning, 2), Here{Record: kept(1, none), Facts: ended}, mapped},
		{"raise failed and was ended", hold, staged(core.PhaseFailed, core.StageRunning, 2), Here{Record: kept(2, contained), Facts: ended, Buried: true}, mapped},
		{"raised, to answer", hold, staged(core.PhaseStarting, core.StageRunning, 2), Here{Record: kept(2, none), Facts: up}, adopt},
		{"raised, runs", hold, staged(core.PhaseRunning, core.StageRunning, 2), Here{Record: kept(2, none), Facts: up}, adopt},
		{"raised, ended", hold, staged(core.PhaseRunning, core.StageRunning, 2), Here{Record: kept(2, none), Facts: ended}, lost},
		{"raised, ended, reported", hold, staged(core.PhaseFailed, core.StageRunning, 2), Here{Record: kept(2, none), Facts: ended}, rest},
		{"raised, shutting down", hold, staged(core.PhaseRunning, core.StageRunning, 2), Here{Record: kept(2, halted), Facts: up, Buried: true}, rest},
		{"raised, stopped", hold, staged(core.PhaseRunning, core.StageRunning, 2), Here{Record: kept(2, contained), Facts: ended, Buried: true}, mapped},
		{"raised, the mapper died", hold, staged(core.PhaseRunning, core.StageRunning, 2), Here{Record: kept(2, none), Facts: release.Facts{Init: true, Mounted: true}}, clean},
		{"staged, releasing", leave, staged(core.PhaseReleasing, core.StagePromoted, 1), Here{Record: kept(1, none), Facts: ended}, clean},
		{"staged, contained", leave, staged(core.PhaseContained, core.StagePromoted, 1), Here{Record: kept(1, contained), Facts: ended}, clean},
		{"a stop of ours failed", hold, starts(5), Here{Record: rec(5, 1, halted), Facts: up}, clean},
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
