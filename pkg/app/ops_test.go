package app

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/keepone-ha/keepone/pkg/config"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/observe"
)

func TestWithoutSecrets(t *testing.T) {
	spec := core.Spec{
		Nodes: []core.NodeSpec{{Name: "a", BMC: &core.BMCSpec{User: "admin", Password: "sealed:bmc"}}, {Name: "w"}},
		Services: []core.ServiceSpec{{
			Name: "one", Probes: []core.ProbeSpec{{Kind: "tcp"}, {Kind: "raftstatus", User: "oneadmin", Password: "sealed:probe"}},
		}},
	}
	text, err := json.Marshal(withoutSecrets(spec))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "sealed:") || !strings.Contains(string(text), "oneadmin") {
		t.Errorf("handed out: %s", text)
	}
	if spec.Nodes[0].BMC.Password == "" || spec.Services[0].Probes[1].Password == "" {
		t.Error("the replicated State was written to")
	}
}

func TestAgainst(t *testing.T) {
	held := map[core.ServiceName]core.Service{"one": {Name: "one", Grant: &core.Grant{Node: "b", Instance: "b1", Epoch: 3}}}
	free := map[core.ServiceName]core.Service{"one": {Name: "one"}}
	on := core.Maintenance{On: true, Accepted: map[core.NodeName]core.Instance{"b": "b1"}}
	for _, tt := range []struct {
		name   string
		effect config.Effect
		state  core.State
		want   string
	}{
		{"the cluster's name", config.EffectRefused, core.State{Services: free}, "can't be changed"},
		{"outside maintenance", config.EffectMaintenance, core.State{Services: held}, "maintenance on"},
		{"maintenance that the holder has not heard of", config.EffectMaintenance, core.State{Services: held, Maintenance: core.Maintenance{On: true}}, "not reached b"},
		{"in maintenance", config.EffectMaintenance, core.State{Services: held, Maintenance: on}, ""},
		{"in maintenance without a holder", config.EffectMaintenance, core.State{Services: free, Maintenance: core.Maintenance{On: true}}, ""},
		{"of what runs", config.EffectStopped, core.State{Services: held}, "keepone service stop one"},
		{"of what is stopped", config.EffectStopped, core.State{Services: free}, ""},
		{"at once", config.EffectAtOnce, core.State{Services: held}, ""},
		{"at the next start", config.EffectNextStart, core.State{Services: held}, ""},
		{"with a restart of the daemons", config.EffectRestart, core.State{Services: held}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := against(tt.state, config.Change{Effect: tt.effect, Service: "one"})
			if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

// TestLonger: a lease that gets shorter is counted at its old length for as long as the leadership lasts (I5).
func TestLonger(t *testing.T) {
	was := core.Timing{Lease: 3 * time.Second, LeaseMargin: 500 * time.Millisecond}
	for _, now := range []core.Timing{was, {Lease: time.Second, LeaseMargin: time.Millisecond}, {}} {
		if got := observe.Longer(was, now); got != was {
			t.Errorf("%+v shortened the count to %+v", now, got)
		}
	}
	if got := observe.Longer(was, core.Timing{Lease: 9 * time.Second}); got.Lease != 9*time.Second || got.LeaseMargin != was.LeaseMargin {
		t.Errorf("%+v", got)
	}
}
