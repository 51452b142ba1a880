package app

import (
	"errors"
	"maps"
	"testing"

	"github.com/keepone-ha/keepone/pkg/core"
)

// TestBMCProblems: what was not tried is told from what is well, and a node that lost its BMC from both.
func TestBMCProblems(t *testing.T) {
	b := &bmcProblems{all: map[core.NodeName]string{}}
	bmc := &core.BMCSpec{}
	nodes := []core.NodeSpec{{Name: "a", BMC: bmc}, {Name: "b", BMC: bmc}, {Name: "c", BMC: bmc}, {Name: "d"}}
	for _, step := range []struct {
		node core.NodeName
		err  error
		news bool
	}{
		{"a", nil, true},
		{"a", nil, false},
		{"b", errors.New("wrong password"), true},
		{"b", errors.New("wrong password"), false},
		{"d", errors.New("of an earlier document"), true},
		{"a", errors.New("no answer"), true},
		{"a", nil, true},
	} {
		if news := b.set(step.node, step.err); news != step.news {
			t.Errorf("%s %v: news %t", step.node, step.err, news)
		}
	}
	if got, want := b.of(nodes), map[core.NodeName]string{"a": "", "b": "wrong password"}; !maps.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
}

// TestAnswered: a node's fresh findings take the place of those of its report, and nothing else of it.
func TestAnswered(t *testing.T) {
	old := &core.Report{Version: "1", BMCs: map[core.NodeName]string{"b": ""}, Ready: map[core.ServiceName]core.Ready{"one": {Cuts: true}}}
	fresh := tried{BMCs: map[core.NodeName]string{"b": "wrong password"}, Ready: map[core.ServiceName]core.Ready{"one": {Reason: "no cap"}}}
	for _, was := range []*core.Report{old, nil} {
		v := answered(core.NodeView{Report: was}, fresh)
		if v.Live != core.LiveOnline || !v.Daemon || v.Report.BMCs["b"] != "wrong password" || v.Report.Ready["one"].Cuts {
			t.Errorf("%+v %+v", v, v.Report)
		}
		if was != nil && v.Report.Version != "1" {
			t.Errorf("version %q", v.Report.Version)
		}
	}
	if old.BMCs["b"] != "" {
		t.Error("the report that is kept was changed")
	}
}
