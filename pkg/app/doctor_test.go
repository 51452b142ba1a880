package app

import (
	"testing"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

// found collects checks by node and name: the problem, or "" if it is well.
func found(run func(addCheck)) map[string]string {
	all := map[string]string{}
	run(func(node core.NodeName, what, problem, _ string) { all[string(node)+" "+what] = problem })
	return all
}

func TestDoctorClock(t *testing.T) {
	skews := map[core.NodeName]time.Duration{"a": -900 * time.Millisecond, "b": 3 * time.Second, "c": -2 * time.Hour}
	got := found(func(add addCheck) {
		for _, name := range []core.NodeName{"a", "b", "c", "unheard"} {
			doctorClock(name, skews, add)
		}
	})
	if len(got) != 3 || got["a clock"] != "" || got["b clock"] == "" || got["c clock"] == "" {
		t.Errorf("got %q", got)
	}
}

func TestDoctorVersions(t *testing.T) {
	state := core.State{Nodes: map[core.NodeName]core.Node{"a": {Name: "a"}, "b": {Name: "b"}}}
	nodes := map[core.NodeName]core.NodeView{"a": {Report: &core.Report{Version: "1"}}, "b": {Report: &core.Report{Version: "1"}}}
	check := func() map[string]string {
		return found(func(add addCheck) { doctorVersions(state, core.View{Nodes: nodes}, add) })
	}
	if got := check(); len(got) != 1 || got[" versions"] != "" {
		t.Errorf("one version: %q", got)
	}
	nodes["b"] = core.NodeView{Report: &core.Report{Version: "2"}}
	if got, want := check()[" versions"], "1 on a; 2 on b: finish the upgrade"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
