package core

import (
	"slices"
	"testing"
	"time"
)

// decided returns the commands of one kind that the leader a makes.
func decided[C Command](s State, v View) (all []C) {
	for _, c := range Decide(s, v, s.Now) {
		if c, ok := c.(C); ok {
			all = append(all, c)
		}
	}
	return all
}

// TestMayShoot: power-off takes a BMC, the very life that it is for, and a quorum that goes on without it.
func TestMayShoot(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*State, View)
		want   bool
	}{
		"well":          {func(*State, View) {}, true},
		"no BMC":        {func(s *State, _ View) { s.Spec.Node("b").BMC = nil }, false},
		"committed new": {func(s *State, _ View) { *s = apply(t, *s, Boot{Node: "b", Instance: "b2"}) }, false},
		"heard as new":  {func(_ *State, v View) { v.Nodes["b"] = NodeView{Live: LiveOnline, Instance: "b2"} }, false},
		"proven off":    {func(s *State, _ View) { *s = apply(t, *s, evidence) }, false},
		"one vote away": {func(_ *State, v View) { v.Nodes["c"] = NodeView{Live: LiveDown} }, false},
		"heard, and no vote": {func(_ *State, v View) {
			c := v.Nodes["c"]
			c.Report = nil
			v.Nodes["c"] = c
		}, false},
	} {
		s := bed(t)
		v := online(s, "a")
		c.change(&s, v)
		d := &decider{s: s, v: v, now: s.Now}
		if got := d.mayShoot("b", "b1"); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// TestContainedIsNotShot: nothing runs there; its clients are all that is left to cut off.
func TestContainedIsNotShot(t *testing.T) {
	s := bed(t, contained)
	s.Spec.Fencing = policies["bmc-only"]
	orders := decided[OrderFence](s, online(s, "a"))
	if len(orders) != 1 || orders[0].Shoot {
		t.Fatalf("orders: %+v", orders)
	}
	s = apply(t, s, orders[0])
	s = apply(t, s, EndAttempt{Fence: openID(s), Attempt: 1})
	s.Now = s.Now.Add(time.Minute)
	again := decided[AssignFence](s, online(s, "a"))
	if len(again) != 1 || again[0].Shoot {
		t.Errorf("assigned again: %+v", again)
	}
	s = bed(t, contained)
	if len(s.Leases("b1")) != 0 {
		t.Error("what is contained gets a lease")
	}
}

// TestGrownFence: a node is fenced for one contained service, then falls silent with another: the fence takes
// that one in as well.
func TestGrownFence(t *testing.T) {
	s := bed(t, Give{Service: "two", Node: "b", Instance: "b1"}, contained)
	s = apply(t, s, decided[OrderFence](s, online(s, "a"))[0], downB)
	v := online(s, "a")
	v.Nodes["b"] = NodeView{Live: LiveDown, Silent: 4 * time.Second, Instance: "b1"}
	again := decided[AssignFence](s, v)
	if len(again) != 1 || len(again[0].Targets) != 2 {
		t.Errorf("assigned: %+v", again)
	}
}

// TestRebootProves: a node that is back as another instance proves the old one gone only if it says that it
// holds nothing (I3).
func TestRebootProves(t *testing.T) {
	s := bed(t, downB, Boot{Node: "b", Instance: "b2"})
	v := online(s, "a")
	if len(decided[Lose](s, v)) != 1 {
		t.Error("a reboot is a proof")
	}
	v.Nodes["b"].Report.Holds = []Target{{Service: "one", Epoch: 1}}
	if len(decided[Lose](s, v)) != 0 {
		t.Error("it still holds something")
	}
	v.Nodes["b"].Report.Holds, v.Nodes["b"].Report.Instance = nil, "b1"
	if len(decided[Lose](s, v)) != 0 {
		t.Error("the report is of the old life")
	}
}

// TestImageAhead: an image that carries an epoch above ours was granted by a State that we have forgotten (I2),
// but while clients are uncut, one above is what their cutting off wrote.
func TestImageAhead(t *testing.T) {
	ahead := func(s State, epoch Epoch) []RaiseEpoch {
		v := online(s, "a")
		v.Nodes["c"].Report.Ready["one"] = Ready{OK: true, Epoch: epoch}
		return decided[RaiseEpoch](s, v)
	}
	if got := ahead(bed(t, vacate), 2); len(got) != 1 || got[0].Epoch != 2 {
		t.Errorf("one above: %+v", got)
	}
	if got := ahead(bed(t, evidence, lose), 2); len(got) != 0 {
		t.Errorf("one above, uncut: %+v", got)
	}
	if got := ahead(bed(t, evidence, lose), 3); len(got) != 1 {
		t.Errorf("two above, uncut: %+v", got)
	}
}

// TestProvenOffIsNeverGiven: whatever State says of its life, an instance that is proven off gets nothing (I3).
func TestProvenOffIsNeverGiven(t *testing.T) {
	s := bed(t, vacate, AddProof{Node: "c", Proof: Proof{Kind: ProofBMCOff, Instance: "c1"}})
	node := s.Nodes["c"]
	node.Life = LifeOnline
	s.Nodes["c"] = node
	if _, err := Apply(s, Entry{At: s.Now, Command: giveToC}); err == nil {
		t.Error("given to an instance that is proven off")
	}
}

// TestBlockedIsNotStale: what stood in the way is taken back once it no longer does.
func TestBlockedIsNotStale(t *testing.T) {
	s := bed(t, Block{Service: "one", Reason: "b has to be fenced"})
	if got := decided[Block](s, online(s, "a")); len(got) != 1 || got[0].Reason != "" {
		t.Errorf("blocks: %+v", got)
	}
}

// TestStopInMaintenance: hands off, but for what the operator asks for.
func TestStopInMaintenance(t *testing.T) {
	s := bed(t, maintain, stopOne)
	if got := decided[Release](s, online(s, "a")); len(got) != 1 {
		t.Errorf("releases: %+v", got)
	}
}

// TestConfirmOfAnEarlierLife: the node is back, and can't prove that its old life is gone; a human can.
func TestConfirmOfAnEarlierLife(t *testing.T) {
	s := bed(t, Boot{Node: "b", Instance: "b2"}, confirmB)
	if _, off := s.FencedOff(s.Services["one"]); !off {
		t.Error("the old life is vouched for")
	}
	if s.Nodes["b"].Life != LifeOnline {
		t.Errorf("the new life is %s", s.Nodes["b"].Life)
	}
}

// TestNotBlockedBeforeSettled: a new leader has no reports yet. That says nothing of the nodes, so nothing is called
// blocked and no wish is refused for it.
func TestNotBlockedBeforeSettled(t *testing.T) {
	for _, settled := range []bool{false, true} {
		s := bed(t, vacate)
		v := online(s, "a")
		v.Settled = settled
		for name, n := range v.Nodes {
			n.Report = nil
			v.Nodes[name] = n
		}
		if said := len(decided[Block](s, v)) > 0; said != settled {
			t.Errorf("settled %t: blocked %t", settled, said)
		}
	}
	for _, wish := range []Ask{
		{What: RequestSwitchover, Service: "one", Token: "t"},
		{What: RequestFence, Node: "b", Token: "t"}, // for the votes that Raft would be left with
	} {
		for _, settled := range []bool{false, true} {
			s := bed(t, wish)
			v := online(s, "a")
			v.Settled = settled
			for name, n := range v.Nodes {
				n.Report = nil
				v.Nodes[name] = n
			}
			if refused := len(decided[Answer](s, v)) > 0; refused != settled {
				t.Errorf("settled %t: %s refused %t", settled, wish.What, refused)
			}
		}
	}
}

// TestUnaskedShotNeedsCorosync: where Pacemaker manages, keepone shoots unasked only if corosync is known to be quorate on
// its side: else the other one may be about to shoot (I3).
func TestUnaskedShotNeedsCorosync(t *testing.T) {
	yes, no := true, false
	for _, c := range []struct {
		by       Manager
		corosync *bool
		want     bool
	}{
		{ManagerKeepone, nil, true},
		{ManagerPacemaker, nil, false},
		{ManagerPacemaker, &no, false},
		{ManagerPacemaker, &yes, true},
	} {
		s := bed(t, downB)
		s.Spec.Manager, s.Spec.Fencing = c.by, policies["bmc-only"]
		v := online(s, "a")
		v.CorosyncQuorate = c.corosync
		v.Nodes["b"] = NodeView{Live: LiveDown, Silent: 4 * time.Second, Instance: "b1"}
		if orders := decided[OrderFence](s, v); len(orders) != 1 || orders[0].Shoot != c.want {
			t.Errorf("%s, %v: orders %+v", c.by, c.corosync, orders)
		}
	}
}

// TestNobodyFencesItself: a leader whose own service is called lost hands leadership over first; one that is contained
// there needs its clients cut off only, and that it may do itself.
func TestNobodyFencesItself(t *testing.T) {
	failover := Ask{What: RequestFailover, Service: "one"}
	for self, want := range map[NodeName]int{"a": 1, "b": 0} {
		s := bed(t, failover)
		if orders := decided[OrderFence](s, online(s, self)); len(orders) != want {
			t.Errorf("led by %s: %d orders", self, len(orders))
		}
	}
	s := bed(t, contained)
	if orders := decided[OrderFence](s, online(s, "b")); len(orders) != 1 || orders[0].Shoot {
		t.Errorf("contained: orders %+v", orders)
	}
}

// TestCutOffIsReleased: a fence cut a holder's clients off and came to nothing more, for the holder is heard again. No run of
// its grant can write: it is neither kept nor restarted in place.
func TestCutOffIsReleased(t *testing.T) {
	for _, manager := range []Manager{ManagerKeepone, ManagerPacemaker} {
		s := bed(t)
		s.Spec.Fencing, s.Spec.Manager = policies["both"], manager
		if got := decided[Release](s, online(s, "a")); len(got) > 0 {
			t.Fatalf("%s: released: %+v", manager, got)
		}
		s = apply(t, s, OrderFence{Node: "b", Instance: "b1", Executor: "a", Targets: s.targets("b1")})
		s = apply(t, s, SettleLease{Fence: openID(s), Services: []ServiceName{"one"}}, storage(openID(s), "b1", "one", 1), CloseFence{Fence: openID(s)})
		if got := decided[Release](s, online(s, "a")); len(got) != 1 || got[0].Service != "one" || got[0].Cause != CauseRelocate {
			t.Errorf("%s: released: %+v", manager, got)
		}
	}
}

// TestLeaseOfAnEndedGrantIsOver: of two services the holder gave one up by its own word, and is stuck with the other. The
// first must not keep the fence waiting for a lease that nobody counts any more.
func TestLeaseOfAnEndedGrantIsOver(t *testing.T) {
	s := bed(
		t, Give{Service: "two", Node: "b", Instance: "b1", Cause: CauseStart},
		OrderFence{Node: "b", Instance: "b1", Targets: []Target{{Service: "one", Epoch: 1}, {Service: "two", Epoch: 1}}, Executor: "a"},
	)
	if settled := decided[SettleLease](s, online(s, "a")); len(settled) != 0 {
		t.Fatalf("both leases live: %+v", settled)
	}
	s = apply(t, s, Vacated{Service: "two", Epoch: 1, Instance: "b1"})
	settled := decided[SettleLease](s, online(s, "a"))
	if len(settled) != 1 || !slices.Equal(settled[0].Services, []ServiceName{"two"}) {
		t.Errorf("settled %+v, want that of two", settled)
	}
}
