package core

import (
	"reflect"
	"testing"
)

// TestFenceable: only what another living node has tried counts, and only as much of it as the policy asks for.
func TestFenceable(t *testing.T) {
	const broken = "wrong password"
	for name, row := range map[string]struct {
		policy string
		change func(s *State, v View)
		want   Prospect
	}{
		"all well":               {policy: "both", want: Prospect{OK: true, Known: true}},
		"one of two will do":     {"default", bmcs(broken, broken), Prospect{true, true, "bmc-off: a says: wrong password"}},
		"both are asked for":     {"both", bmcs(broken, broken), Prospect{false, true, "bmc-off: a says: wrong password"}},
		"another node can":       {"bmc-only", bmcs(broken, ""), Prospect{OK: true, Known: true}},
		"nobody can":             {"bmc-only", bmcs(broken, "no route"), Prospect{false, true, "bmc-off: a says: wrong password"}},
		"only itself can":        {"bmc-only", tried("b"), Prospect{false, false, "bmc-off: no other node has tried it yet"}},
		"who can is silent":      {"bmc-only", silent, Prospect{false, true, "bmc-off: a says: wrong password"}},
		"who can has no daemon":  {"bmc-only", noDaemon, Prospect{false, true, "bmc-off: a says: wrong password"}},
		"no BMC":                 {"bmc-only", withoutBMC, Prospect{false, true, "bmc-off: it has no BMC in the cluster document"}},
		"nobody may cut off":     {"storage", cuts("no cap", "no cap"), Prospect{false, true, "storage: a says: no cap"}},
		"one may cut off":        {"storage", cuts("no cap", ""), Prospect{OK: true, Known: true}},
		"full, and may cut off":  {"storage", full, Prospect{OK: true, Known: true}},
		"of an older version":    {"storage", older, Prospect{OK: true, Known: true}},
		"nothing is known":       {"default", tried(), Prospect{false, false, "bmc-off: no other node has tried it yet; storage: no other node has tried it yet"}},
		"one unknown, one broke": {"both", oneKnown, Prospect{false, false, "bmc-off: a says: wrong password; storage: no other node has tried it yet"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := State{Spec: testSpec("a b c", "one"), Nodes: map[NodeName]Node{"a": {}, "b": {}, "c": {}}}
			s.Spec.Fencing = policies[row.policy]
			v := View{Nodes: map[NodeName]NodeView{}}
			for _, node := range s.NodeNames() {
				v.Nodes[node] = NodeView{Live: LiveOnline, Daemon: true, Report: &Report{
					Ready: map[ServiceName]Ready{"one": {OK: true, Cuts: true}}, BMCs: map[NodeName]string{"b": ""},
				}}
			}
			if row.change != nil {
				row.change(&s, v)
			}
			if got := Fenceable(s, v, "b", "one"); got != row.want {
				t.Errorf("got %+v, want %+v", got, row.want)
			}
		})
	}
}

func bmcs(a, c string) func(*State, View) {
	return func(_ *State, v View) {
		v.Nodes["a"].Report.BMCs["b"], v.Nodes["c"].Report.BMCs["b"] = a, c
	}
}

func cuts(a, c string) func(*State, View) {
	return func(_ *State, v View) {
		v.Nodes["a"].Report.Ready["one"] = Ready{Reason: a}
		v.Nodes["c"].Report.Ready["one"] = Ready{Cuts: c == "", Reason: c}
	}
}

func full(_ *State, v View) {
	v.Nodes["a"].Report.Ready["one"] = Ready{Reason: "the volume is full", Cuts: true}
	v.Nodes["c"].Report.Ready["one"] = Ready{}
}

func older(_ *State, v View) {
	v.Nodes["a"].Report.Ready["one"], v.Nodes["c"].Report.Ready["one"] = Ready{OK: true}, Ready{OK: true}
}

// tried leaves the findings of those named alone.
func tried(by ...NodeName) func(*State, View) {
	return func(_ *State, v View) {
		for _, name := range []NodeName{"a", "b", "c"} {
			if len(by) == 0 || by[0] != name {
				v.Nodes[name].Report.BMCs, v.Nodes[name].Report.Ready = nil, nil
			}
		}
	}
}

func silent(s *State, v View) {
	bmcs("wrong password", "")(s, v)
	c := v.Nodes["c"]
	c.Live = LiveSuspect
	v.Nodes["c"] = c
}

func noDaemon(s *State, v View) {
	bmcs("wrong password", "")(s, v)
	c := v.Nodes["c"]
	c.Daemon = false
	v.Nodes["c"] = c
}

func withoutBMC(s *State, _ View) { s.Spec.Node("b").BMC = nil }

func oneKnown(s *State, v View) {
	tried()(s, v)
	v.Nodes["a"].Report.BMCs = map[NodeName]string{"b": "wrong password"}
}

// TestVerdict: what a person is told of a fence is what Apply goes by.
func TestVerdict(t *testing.T) {
	storage := Proof{Kind: ProofStorage, Instance: "b1", Service: "one", Epoch: 3}
	off := Proof{Kind: ProofBMCOff, Instance: "b1"}
	for name, row := range map[string]struct {
		policy string
		phase  Phase
		proofs []Proof
		epoch  Epoch // of the grant
		want   Verdict
	}{
		"nothing":             {"default", PhaseRunning, nil, 3, Verdict{Missing: []ProofKind{ProofBMCOff, ProofStorage}}},
		"any":                 {"default", PhaseRunning, []Proof{storage}, 3, Verdict{Accepted: true, By: ProofStorage, Missing: []ProofKind{ProofBMCOff}}},
		"one of both":         {"both", PhaseRunning, []Proof{storage}, 3, Verdict{By: ProofStorage, Missing: []ProofKind{ProofBMCOff}}},
		"both":                {"both", PhaseRunning, []Proof{storage, off}, 3, Verdict{Accepted: true, By: ProofBMCOff}},
		"human":               {"both", PhaseRunning, []Proof{{Kind: ProofHuman, Instance: "b1"}}, 3, Verdict{Accepted: true, By: ProofHuman, Missing: []ProofKind{ProofBMCOff, ProofStorage}}},
		"of another instance": {"bmc-only", PhaseRunning, []Proof{{Kind: ProofBMCOff, Instance: "b0"}}, 3, Verdict{Missing: []ProofKind{ProofBMCOff}}},
		"contained":           {"bmc-only", PhaseContained, []Proof{storage}, 3, Verdict{Accepted: true, By: ProofStorage, Missing: []ProofKind{ProofBMCOff}}},
		"ended":               {"bmc-only", PhaseRunning, nil, 4, Verdict{Ended: true, Missing: []ProofKind{ProofBMCOff}}},
	} {
		t.Run(name, func(t *testing.T) {
			s := State{Spec: testSpec("a b", "one"), Fences: []Fence{{Instance: "b1", Proofs: row.proofs}}}
			s.Spec.Fencing = policies[row.policy]
			svc := Service{Name: "one", Epoch: row.epoch, Grant: &Grant{Node: "b", Instance: "b1", Epoch: row.epoch, Phase: row.phase}}
			s.Services = map[ServiceName]Service{"one": svc}
			got := s.Verdict("b1", Target{Service: "one", Epoch: 3})
			if !reflect.DeepEqual(got, row.want) {
				t.Errorf("got %+v, want %+v", got, row.want)
			}
			if _, off := s.FencedOff(svc); row.epoch == 3 && off != got.Accepted {
				t.Errorf("accepted %t, by what State goes by %t", got.Accepted, off)
			}
		})
	}
}
