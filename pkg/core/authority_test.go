package core

import (
	"errors"
	"slices"
	"testing"
	"time"
)

func TestAuthority(t *testing.T) {
	s := bed(t, OrderFence{Node: "c", Instance: "c1", Executor: "a"}) // b holds one, a carries out a fence, w leads
	id := openID(s)
	for name, c := range map[string]struct {
		command Command
		may     []NodeName
	}{
		"commit-client":       {&CommitClient{Service: "one", Epoch: 1, Instance: "b1"}, []NodeName{"b"}},
		"started":             {&Started{Service: "one"}, []NodeName{"b"}},
		"promoted":            {&Promoted{Service: "one"}, []NodeName{"b"}},
		"raise":               {&Raise{Service: "one"}, []NodeName{"w"}},
		"run-failed":          {&RunFailed{Service: "one"}, []NodeName{"b"}},
		"vacated":             {&Vacated{Service: "one"}, []NodeName{"b"}},
		"vacated, by value":   {Vacated{Service: "one"}, []NodeName{"b"}},
		"contained":           {&Contained{Service: "one"}, []NodeName{"b"}},
		"end-attempt":         {&EndAttempt{Fence: id}, []NodeName{"a"}},
		"add-proof":           {&AddProof{Fence: id, Proof: Proof{Kind: ProofStorage}}, []NodeName{"a", "w"}},
		"add-proof, no order": {&AddProof{Node: "c", Proof: Proof{Kind: ProofBMCOff}}, []NodeName{"w"}},
		"add-proof, rebooted": {&AddProof{Fence: id, Proof: Proof{Kind: ProofRebooted}}, []NodeName{"w"}},
		"add-proof, human":    {&AddProof{Node: "c", Proof: Proof{Kind: ProofHuman}}, nil},
		"ask":                 {&Ask{}, []NodeName{"a", "b", "c", "w"}},
		"configure":           {&Configure{}, []NodeName{"a", "b", "c", "w"}},
		"give":                {&Give{}, []NodeName{"w"}},
		"give, by value":      {Give{}, []NodeName{"w"}},
		"lose":                {&Lose{}, []NodeName{"w"}},
		"order-fence":         {&OrderFence{}, []NodeName{"w"}},
		"settle-lease":        {&SettleLease{}, []NodeName{"w"}},
		"boot":                {&Boot{}, []NodeName{"w"}},
		"set-life":            {&SetLife{}, []NodeName{"w"}},
		"answer":              {&Answer{}, []NodeName{"w"}},
	} {
		for _, by := range []NodeName{"a", "b", "c", "w"} {
			err := Authority(s, by, "w", c.command)
			if may := slices.Contains(c.may, by); may != (err == nil) {
				t.Errorf("%s by %s: %v", name, by, err)
			}
			if err != nil && !errors.Is(err, ErrRefused) {
				t.Errorf("%s by %s: %v", name, by, err)
			}
		}
	}
}

// online is a View in which every node is well and ready.
func online(s State, self NodeName) View {
	v := View{Settled: true, Self: self, Nodes: map[NodeName]NodeView{}, Voters: s.NodeNames(), LeaseOver: map[ServiceName]Epoch{}}
	for name, n := range s.Nodes {
		ready := map[ServiceName]Ready{"one": {OK: true}, "two": {OK: true}}
		v.Nodes[name] = NodeView{Live: LiveOnline, Instance: n.Instance, Daemon: true, Report: &Report{Instance: n.Instance, Ready: ready}}
	}
	return v
}

func TestPlacement(t *testing.T) {
	for name, c := range map[string]struct {
		first []Command
		spec  func(*ServiceSpec)
		view  func(View)
		want  NodeName
	}{
		"where it ran last":          {nil, nil, nil, "b"},
		"preferred before last":      {nil, func(s *ServiceSpec) { s.Prefer = []NodeName{"c"} }, nil, "c"},
		"eligible alone":             {nil, func(s *ServiceSpec) { s.Nodes = []NodeName{"a"} }, nil, "a"},
		"not where it failed":        {[]Command{Release{Service: "one", Epoch: 1, Avoid: true}}, nil, nil, "c"},
		"not on standby":             {[]Command{Ask{What: RequestDrain, Node: "b"}}, nil, nil, "c"},
		"not the leader, else last":  {nil, func(s *ServiceSpec) { s.Nodes = []NodeName{"a", "c"} }, nil, "c"},
		"not an unready one":         {nil, nil, func(v View) { v.Nodes["b"].Report.Ready["one"] = Ready{Reason: "no"} }, "c"},
		"not one that never answers": {nil, nil, func(v View) { delete(v.Nodes["b"].Report.Ready, "one") }, "c"},
		"not an unclean one":         {nil, nil, func(v View) { v.Nodes["b"].Report.Holds = []Target{{Service: "one"}} }, "c"},
		"never the witness":          {nil, func(s *ServiceSpec) { s.Nodes = []NodeName{"w"} }, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := bed(t, append(c.first, vacate)...)
			s.Services["two"] = Service{Name: "two", Stopped: true}
			if c.spec != nil {
				c.spec(&s.Spec.Services[0])
			}
			v := online(s, "a")
			if c.view != nil {
				c.view(v)
			}
			var got NodeName
			for _, c := range Decide(s, v, s.Now) {
				if g, ok := c.(Give); ok {
					got = g.Node
				}
			}
			if got != c.want {
				t.Errorf("given to %q, want %q", got, c.want)
			}
		})
	}
}

// TestMoveLeavesItsNode: a move without a target must not end where it began, however much that node is preferred.
func TestMoveLeavesItsNode(t *testing.T) {
	s := bed(t, switchover, release, vacate)
	s.Spec.Services[0].Prefer = []NodeName{"b"}
	for _, c := range Decide(s, online(s, "a"), s.Now) {
		if g, ok := c.(Give); ok && g.Service == "one" && g.Node == "b" {
			t.Error("came straight back")
		}
	}
}

func TestPreferLeader(t *testing.T) {
	s := bed(t)
	if got := PreferLeader(s, online(s, "b")); got != "a" {
		t.Errorf("the holder leads on, or %q instead", got)
	}
	if got := PreferLeader(s, online(s, "a")); got != "" {
		t.Errorf("moved to %q for nothing", got)
	}
	v := online(s, "b")
	for _, name := range []NodeName{"a", "c", "w"} {
		n := v.Nodes[name]
		n.Daemon = false
		v.Nodes[name] = n
	}
	if got := PreferLeader(s, v); got != "" {
		t.Errorf("moved to %q, whose daemon is dead", got)
	}
	s = bed(t, Give{Service: "two", Node: "a", Instance: "a1"}, Ask{What: RequestFence, Node: "b"})
	v = online(s, "b")
	v.Voters = []NodeName{"a", "b"}
	if got := PreferLeader(s, v); got != "a" {
		t.Errorf("%q orders the fence of the leader: a holder can, the leader can't", got)
	}
}

// TestBootSparesTheNewLife: an open order to shoot must not outlive the instance that it was for.
func TestBootSparesTheNewLife(t *testing.T) {
	order := fenceB
	order.Shoot = true
	s := bed(t, order, Boot{Node: "b", Instance: "b2"})
	if s.Fences[0].Shoot {
		t.Error("the new life would be shot")
	}
}

// TestMaintenanceKeepsTheOlderEnd: a guard that has not heard of a maintenance's early end goes by its old one (I5).
func TestMaintenanceKeepsTheOlderEnd(t *testing.T) {
	long := Ask{What: RequestMaintenance, For: time.Hour}
	s := bed(t, long, AcceptMaintenance{Node: "b", Instance: "b1"}, Ask{What: RequestMaintainOff})
	end := s.Maintenance.Until
	s = apply(t, s, maintain)
	if s.Maintenance.Until < end || !s.leaseless("b", "b1", end-1) {
		t.Errorf("until %s, was %s", time.Duration(s.Maintenance.Until), time.Duration(end))
	}
	d := &decider{s: s, v: View{LeaseOver: map[ServiceName]Epoch{"one": 1}}, now: s.Now}
	if d.leaseOver(Target{Service: "one", Epoch: 1}) {
		t.Error("a lease that is not enforced can't be over")
	}
}
