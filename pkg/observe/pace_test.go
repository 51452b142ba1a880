package observe

import (
	"testing"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

// A leader at rest looks seldom, but never so late that silence would be noticed later than it is there.
func TestLookAgain(t *testing.T) {
	running := core.Service{Name: "one", Grant: &core.Grant{Phase: core.PhaseRunning}}
	for _, tt := range []struct {
		name    string
		view    core.NodeView
		life    core.Life
		service core.Service
		fence   core.FenceState
		want    time.Duration
	}{
		{"at rest", core.NodeView{Live: core.LiveOnline}, core.LifeOnline, running, "", decideCalm},
		{"nearly suspect", core.NodeView{Live: core.LiveOnline, Silent: 900 * time.Millisecond}, core.LifeOnline, running, "", 100 * time.Millisecond},
		{"about to be suspect", core.NodeView{Live: core.LiveOnline, Silent: 999 * time.Millisecond}, core.LifeOnline, running, "", decideSoon},
		{"suspect", core.NodeView{Live: core.LiveSuspect}, core.LifeSuspect, running, "", decideSoon},
		{"not heard yet", core.NodeView{}, core.LifeOnline, running, "", decideSoon},
		{"down, not yet committed", core.NodeView{Live: core.LiveDown}, core.LifeSuspect, running, "", decideSoon},
		{"down for long", core.NodeView{Live: core.LiveDown}, core.LifeDown, running, "", decideCalm},
		{"fenced", core.NodeView{Live: core.LiveDown}, core.LifeFenced, running, "", decideCalm},
		{"starting", core.NodeView{Live: core.LiveOnline}, core.LifeOnline, core.Service{Grant: &core.Grant{Phase: core.PhaseStarting}}, "", decideSoon},
		{"without a grant", core.NodeView{Live: core.LiveOnline}, core.LifeOnline, core.Service{}, "", decideSoon},
		{"stopped", core.NodeView{Live: core.LiveOnline}, core.LifeOnline, core.Service{Stopped: true}, "", decideCalm},
		{"fence to be tried again", core.NodeView{Live: core.LiveDown}, core.LifeDown, running, core.FenceFailed, decideSoon},
		{"fence confirmed", core.NodeView{Live: core.LiveDown}, core.LifeFenced, running, core.FenceConfirmed, decideCalm},
	} {
		t.Run(tt.name, func(t *testing.T) {
			state := core.State{
				Spec:     core.Spec{Timing: core.Timing{Suspect: time.Second}},
				Nodes:    map[core.NodeName]core.Node{"b": {Name: "b", Life: tt.life}},
				Services: map[core.ServiceName]core.Service{"one": tt.service},
			}
			if tt.fence != "" {
				state.Fences = []core.Fence{{ID: 1, State: tt.fence}}
			}
			got := LookAgain(state, core.View{Nodes: map[core.NodeName]core.NodeView{"b": tt.view}})
			if got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}
