package core

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// managedBed is bed under a cluster manager, with one given back.
func managedBed(t *testing.T, more ...Command) State {
	t.Helper()
	s := bed(t, vacate)
	s.Spec.Manager = ManagerPacemaker
	return apply(t, s, more...)
}

// claims makes the View in which nodes claim one that far.
func claims(v View, stage Stage, nodes ...NodeName) View {
	for _, name := range nodes {
		v.Nodes[name].Report.Claims = map[ServiceName]Stage{"one": stage}
	}
	return v
}

// TestManagedRequests: what a cluster manager orders is not asked of keepone; what keepone alone decides is.
func TestManagedRequests(t *testing.T) {
	run := []Command{giveToC, Started{Service: "one", Epoch: 2, Instance: "c1", Run: 1}}
	for name, c := range map[string]struct {
		ask     Ask
		refused bool
	}{
		"switchover": {switchover, true},
		"restart":    {Ask{What: RequestRestart, Service: "one"}, true},
		"failover":   {Ask{What: RequestFailover, Service: "one"}, false},
		"stop":       {stopOne, false},
		"drain":      {Ask{What: RequestDrain, Node: "c"}, false},
	} {
		s := managedBed(t, run...)
		_, err := Apply(s, Entry{At: s.Now, Command: c.ask})
		if c.refused != errors.Is(err, ErrRefused) || !c.refused && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if c.refused && !strings.Contains(err.Error(), "cluster manager") {
			t.Errorf("%s does not say who: %v", name, err)
		}
	}
}

// TestManagedStartAnswered: keepone starts nothing itself; with the stop taken back its part is done.
func TestManagedStartAnswered(t *testing.T) {
	s := managedBed(t, stopOne, Ask{What: RequestStart, Service: "one", Token: "s"})
	for _, a := range decided[Answer](s, online(s, "a")) {
		if a.State == RequestDone && strings.Contains(a.Answer, "cluster manager") {
			return
		}
	}
	t.Errorf("answers: %+v", decided[Answer](s, online(s, "a")))
}

// TestManagedDrainAnswer tells who has to move what is left.
func TestManagedDrainAnswer(t *testing.T) {
	s := managedBed(t, giveToC, Started{Service: "one", Epoch: 2, Instance: "c1", Run: 1}, Ask{What: RequestDrain, Node: "c"})
	got := decided[Answer](s, online(s, "a"))
	if len(got) != 1 || got[0].State != RequestOpen || !strings.Contains(got[0].Answer, "cluster manager") {
		t.Errorf("answers: %+v", got)
	}
	if len(decided[Release](s, online(s, "a"))) != 0 {
		t.Error("released under the cluster manager's feet")
	}
}

// deadDaemon makes the View in which the node's guard lives and its daemon does not.
func deadDaemon(v View, node NodeName) View {
	n := v.Nodes[node]
	n.Daemon, n.Report = false, nil
	v.Nodes[node] = n
	return v
}

// TestClaimedElsewhere: a holder whose daemon is dead is cut off once the service is started elsewhere, without a shot,
// and what else runs there is left alone, also by a second attempt.
func TestClaimedElsewhere(t *testing.T) {
	held := []Command{giveToC, Give{Service: "two", Node: "c", Instance: "c1"}}
	s := managedBed(t, held...)
	if got := decided[OrderFence](s, claims(online(s, "a"), "", "b")); len(got) != 0 {
		t.Errorf("fenced although its daemon speaks for itself: %+v", got)
	}
	if got := decided[OrderFence](s, deadDaemon(online(s, "a"), "c")); len(got) != 0 {
		t.Errorf("fenced although nobody waits: %+v", got)
	}
	v := claims(deadDaemon(online(s, "a"), "c"), "", "b")
	unfit := v.Nodes["b"].Report
	unfit.Ready = map[ServiceName]Ready{"one": {Reason: "no"}}
	if got := decided[OrderFence](s, v); len(got) != 0 {
		t.Errorf("fenced for one that can't take it: %+v", got)
	}
	unfit.Ready = map[ServiceName]Ready{"one": {OK: true}}
	orders := decided[OrderFence](s, v)
	if len(orders) != 1 || orders[0].Shoot || len(orders[0].Targets) != 1 || orders[0].Targets[0].Service != "one" {
		t.Fatalf("orders: %+v", orders)
	}
	s = apply(t, s, orders[0])
	if left := s.Leases("c1"); len(left) != 1 || left[0].Service != "two" {
		t.Errorf("leases: %+v", left)
	}
	s = apply(t, s, EndAttempt{Fence: openID(s), Attempt: 1})
	s.Now = s.Now.Add(time.Minute)
	again := decided[AssignFence](s, v)
	if len(again) != 1 || len(again[0].Targets) != 1 {
		t.Errorf("assigned again: %+v", again)
	}
}

func TestAbles(t *testing.T) {
	for name, c := range map[string]struct {
		first  []Command
		view   func(View)
		able   map[NodeName]int    // score of those that may; the others may not
		reason map[NodeName]string // part of why not
	}{
		"free, where it ran last first": {nil, nil, map[NodeName]int{"b": 100, "c": 90, "a": 80}, map[NodeName]string{"w": "not eligible"}},
		"held":                          {[]Command{giveToC}, nil, map[NodeName]int{"c": 1000, "b": 100, "a": 80}, nil},
		"held, daemon dead":             {[]Command{giveToC}, func(v View) { deadDaemon(v, "c") }, map[NodeName]int{"c": 1000, "b": 100, "a": 90}, nil},
		"one that is not ready":         {nil, func(v View) { v.Nodes["b"].Report.Ready["one"] = Ready{Reason: "no cap"} }, map[NodeName]int{"c": 100, "a": 90}, map[NodeName]string{"b": "no cap"}},
		"contained": {
			[]Command{giveToC, Contained{Service: "one", Epoch: 2, Instance: "c1"}},
			nil,
			map[NodeName]int{"b": 100, "a": 80},
			map[NodeName]string{"c": "contained"},
		},
		"being fenced": {
			[]Command{giveToC, OrderFence{Node: "c", Instance: "c1", Targets: []Target{{Service: "one", Epoch: 2}}}},
			nil,
			map[NodeName]int{"b": 100, "a": 90},
			map[NodeName]string{"c": "being fenced"},
		},
		"holder rebooted":        {[]Command{giveToC, Boot{Node: "c", Instance: "c2"}}, nil, map[NodeName]int{"c": 90, "b": 100, "a": 80}, nil},
		"stopped by an operator": {[]Command{stopOne}, nil, nil, map[NodeName]string{"a": "service start one", "b": "service start one"}},
		"maintenance":            {[]Command{maintain}, nil, nil, map[NodeName]string{"b": "maintenance"}},
		"held in maintenance":    {[]Command{giveToC, maintain}, nil, map[NodeName]int{"c": 1000}, map[NodeName]string{"b": "maintenance"}},
		"holder drained": {
			[]Command{giveToC, Ask{What: RequestDrain, Node: "c"}}, nil, map[NodeName]int{"c": 1, "b": 100, "a": 90}, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := managedBed(t, c.first...)
			v := online(s, "a")
			if c.view != nil {
				c.view(v)
			}
			for node, able := range Ables(s, v, s.Now)["one"] {
				score, ok := c.able[node]
				if able.OK != ok || able.Score != score || able.OK == (able.Reason != "") || !strings.Contains(able.Reason, c.reason[node]) {
					t.Errorf("%s: %+v", node, able)
				}
			}
		})
	}
}

func TestPlaceClaimed(t *testing.T) {
	for name, c := range map[string]struct {
		first []Command
		view  func(View)
		want  Give
		block string
	}{
		"nobody claims":          {nil, func(View) {}, Give{}, ""},
		"claimed":                {nil, func(v View) { claims(v, "", "c") }, Give{Node: "c"}, ""},
		"claimed to be promoted": {nil, func(v View) { claims(v, StagePromoted, "c") }, Give{Node: "c", Stage: StagePromoted}, ""},
		"claimed twice":          {nil, func(v View) { claims(v, "", "c", "b") }, Give{Node: "b"}, ""},
		"one of two can't":       {nil, func(v View) { claims(v, "", "c", "b").Nodes["b"].Report.Ready["one"] = Ready{Reason: "no"} }, Give{Node: "c"}, ""},
		"it can't":               {nil, func(v View) { claims(v, "", "b").Nodes["b"].Report.Ready["one"] = Ready{Reason: "no cap"} }, Give{}, "b: no cap"},
		"stopped by an operator": {[]Command{stopOne}, func(v View) { claims(v, "", "b") }, Give{}, "b: an operator stopped it"},
		"on standby":             {[]Command{Ask{What: RequestDrain, Node: "b"}}, func(v View) { claims(v, "", "b") }, Give{}, "b: standby"},
		"in maintenance":         {[]Command{maintain}, func(v View) { claims(v, "", "b") }, Give{}, ""},
		"what is left is in the way": {nil, func(v View) {
			claims(v, "", "b").Nodes["b"].Report.Holds = []Target{{Service: "one", Epoch: 1}}
		}, Give{}, "b: an earlier activation"},
		"a claim of another life": {nil, func(v View) { claims(v, "", "b").Nodes["b"].Report.Instance = "b0" }, Give{}, "b: its daemon"},
	} {
		t.Run(name, func(t *testing.T) {
			s := managedBed(t, c.first...)
			v := online(s, "a")
			c.view(v)
			var got Give
			for _, give := range decided[Give](s, v) {
				got = give
			}
			if got.Node != c.want.Node || got.Stage != c.want.Stage {
				t.Errorf("%+v, want %+v", got, c.want)
			}
			var block string
			for _, b := range decided[Block](s, v) {
				block = b.Reason
			}
			if (block == "") != (c.block == "") || !strings.HasPrefix(block, c.block) {
				t.Errorf("blocked %q, want %q", block, c.block)
			}
		})
	}
}

// staged holds one on c, promoted.
var staged = []Command{
	Give{Service: "one", Node: "c", Instance: "c1", Expect: 1, Stage: StagePromoted},
	CommitClient{Service: "one", Epoch: 2, Instance: "c1", Address: "c:1"},
	Promoted{Service: "one", Epoch: 2, Instance: "c1", Run: 1},
}

var (
	promote = Promoted{Service: "one", Epoch: 2, Instance: "c1", Run: 1}
	raise   = Raise{Service: "one", Epoch: 2, Run: 1}
	raised  = Started{Service: "one", Epoch: 2, Instance: "c1", Run: 2}
	fell    = RunFailed{Service: "one", Epoch: 2, Instance: "c1", Run: 2}
)

func TestStages(t *testing.T) {
	s := managedBed(t, staged...)
	want := func(phase Phase, stage Stage, run int) {
		t.Helper()
		if g := s.Services["one"].Grant; g == nil || g.Phase != phase || g.Stage != stage || g.Run != run || !g.Staged {
			t.Errorf("%+v, want %s %q run %d", g, phase, stage, run)
		}
	}
	want(PhasePromoted, StagePromoted, 1)
	s = apply(t, s, raise)
	want(PhaseStarting, StageRunning, 2)
	s = apply(t, s, raised)
	want(PhaseRunning, StageRunning, 2)
	s = apply(t, s, fell)
	want(PhaseFailed, StageRunning, 2)
	s = apply(t, s, Raise{Service: "one", Epoch: 2, Run: 2})
	want(PhaseStarting, StageRunning, 3)
	s = apply(t, s, Promoted{Service: "one", Epoch: 2, Instance: "c1", Run: 3})
	want(PhasePromoted, StagePromoted, 3)
	s = apply(t, s, Vacated{Service: "one", Epoch: 2, Instance: "c1"})
	if svc := s.Services["one"]; svc.Grant != nil || len(svc.Failures) != 1 {
		t.Errorf("vacated: %+v", svc)
	}
}

// TestStagedPhases: the way from the grant to the container is storage's. Of a failover that includes what the cluster
// manager took to mount; of a start nobody waited for it.
func TestStagedPhases(t *testing.T) {
	for cause, want := range map[Cause]time.Duration{
		CauseStart: 2 * time.Second, CauseFailover: 5 * time.Second, CauseSwitchover: 5 * time.Second, CauseRelocate: 5 * time.Second,
	} {
		s := managedBed(t)
		began := s.Now
		give := staged[0].(Give)
		give.Cause = cause
		for _, step := range []struct {
			after time.Duration
			do    Command
		}{
			{0, give},
			{time.Second, staged[1]},
			{2 * time.Second, staged[2]},
			{5 * time.Second, raise},
			{6 * time.Second, Started{Service: "one", Epoch: 2, Instance: "c1", Run: 2, Start: 700 * time.Millisecond}},
		} {
			var err error
			if s, err = Apply(s, Entry{At: began.Add(step.after), Command: step.do}); err != nil {
				t.Fatal(err)
			}
		}
		if e := s.History[len(s.History)-1]; e.Phases == nil || e.Phases.Storage != want || e.Phases.Start != 700*time.Millisecond {
			t.Errorf("%s: %s with %+v, want storage %s", cause, e.Kind, e.Phases, want)
		}
	}
}

func TestStageRefusals(t *testing.T) {
	plain := []Command{giveToC, Started{Service: "one", Epoch: 2, Instance: "c1", Run: 1}}
	stopped := Release{Service: "one", Epoch: 2, Cause: CauseStart}
	contain := Contained{Service: "one", Epoch: 2, Instance: "c1"}
	for name, c := range map[string]struct {
		first []Command
		then  Command
	}{
		"promoted: not staged":          {plain, promote},
		"promoted: twice":               {staged, promote},
		"promoted: another run":         {append(staged[:3:3], raise), promote},
		"promoted: another instance":    {staged[:2], Promoted{Service: "one", Epoch: 2, Instance: "c0", Run: 1}},
		"promoted: another epoch":       {staged[:2], Promoted{Service: "one", Epoch: 1, Instance: "c1", Run: 1}},
		"promoted: releasing":           {append(staged[:2:2], stopped), promote},
		"promoted: contained":           {append(staged[:2:2], contain), promote},
		"promoted: no grant":            {nil, Promoted{Service: "one", Epoch: 1, Instance: "b1", Run: 1}},
		"raise: not staged":             {plain, raise},
		"raise: another run":            {staged, Raise{Service: "one", Epoch: 2}},
		"raise: another epoch":          {staged, Raise{Service: "one", Epoch: 1, Run: 1}},
		"raise: starting":               {staged[:2], raise},
		"raise: running":                {append(staged[:3:3], raise, raised), Raise{Service: "one", Epoch: 2, Run: 2}},
		"raise: releasing":              {append(staged[:3:3], stopped), raise},
		"raise: contained":              {append(staged[:3:3], contain), raise},
		"started: promoted, nothing up": {staged, Started{Service: "one", Epoch: 2, Instance: "c1", Run: 1}},
		"client: promoted":              {staged, CommitClient{Service: "one", Epoch: 2, Instance: "c1", Address: "c:2"}},
		"failed: promoted":              {staged, RunFailed{Service: "one", Epoch: 2, Instance: "c1", Run: 1}},
		"restart: promoted":             {staged, Restart{Service: "one", Epoch: 2, Run: 1}},
		"give: promoted elsewhere":      {staged, Give{Service: "one", Node: "a", Instance: "a1", Expect: 2}},
	} {
		s := managedBed(t, c.first...)
		if is, err := Apply(s, Entry{At: s.Now, Command: c.then}); !errors.Is(err, ErrStale) && !errors.Is(err, ErrHeld) {
			t.Errorf("%s: %v, then %+v", name, err, is.Services["one"].Grant)
		}
	}
}

// TestLeadClaimed: a raise waits for the container's claim; nothing else moves what a cluster manager orders.
func TestLeadClaimed(t *testing.T) {
	failed := append(staged[:3:3], raise, fell)
	for name, c := range map[string]struct {
		first []Command
		stage Stage
		nodes []NodeName
		raise bool
	}{
		"promoted, nobody claims":         {staged, "", nil, false},
		"promoted, claimed":               {staged, "", []NodeName{"c"}, true},
		"promoted, claimed as it is":      {staged, StagePromoted, []NodeName{"c"}, false},
		"promoted, claimed elsewhere":     {staged, "", []NodeName{"b"}, false},
		"failed, nobody claims":           {failed, "", nil, false},
		"failed, claimed":                 {failed, "", []NodeName{"c"}, true},
		"starting, claimed":               {staged[:2], "", []NodeName{"c"}, false},
		"stopped by an operator, claimed": {append(staged[:3:3], stopOne), "", []NodeName{"c"}, false},
		"in maintenance, claimed":         {append(staged[:3:3], Ask{What: RequestMaintenance, For: 24 * time.Hour}), "", []NodeName{"c"}, false},
		"contained, claimed":              {append(staged[:3:3], Contained{Service: "one", Epoch: 2, Instance: "c1"}), "", []NodeName{"c"}, false},
	} {
		s := managedBed(t, c.first...)
		s.Now = s.Now.Add(time.Hour) // keepone's own bounds and restarts rest
		v := claims(online(s, "a"), c.stage, c.nodes...)
		if got := len(decided[Raise](s, v)) > 0; got != c.raise {
			t.Errorf("%s: raised %t", name, got)
		}
		if got := decided[Restart](s, v); len(got) > 0 {
			t.Errorf("%s: %+v", name, got)
		}
		if svc := s.Services["one"]; !svc.Stopped && len(decided[Release](s, v)) > 0 {
			t.Errorf("%s: released", name)
		}
	}
}

// TestPromotedIsFenced: a holder that has only the volume mapped is a writer all the same (I3).
func TestPromotedIsFenced(t *testing.T) {
	s := managedBed(t, staged...)
	if left := s.Leases("c1"); len(left) != 1 {
		t.Errorf("leases: %+v", left)
	}
	v := claims(online(s, "a"), "", "b")
	v.Nodes["c"] = NodeView{Live: LiveDown, Silent: 4 * time.Second, Instance: "c1"}
	if got := decided[Give](s, v); len(got) != 0 {
		t.Errorf("given: %+v", got)
	}
	orders := decided[OrderFence](s, v)
	if len(orders) != 1 || len(orders[0].Targets) != 1 {
		t.Fatalf("orders: %+v", orders)
	}
	s = apply(t, s, SetLife{Node: "c", Instance: "c1", Life: LifeDown}, orders[0])
	s = apply(t, s, SettleLease{Fence: openID(s), Services: []ServiceName{"one"}}, storage(openID(s), "c1", "one", 2), Lose{Service: "one", Epoch: 2})
	if svc := s.Services["one"]; len(svc.Uncut) != 1 || svc.Uncut[0].Addresses[0] != "c:1" {
		t.Errorf("uncut: %+v", svc.Uncut)
	}
}
