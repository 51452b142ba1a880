package app

import (
	"maps"
	"sync"
	"time"

	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/core"
)

// outOfTouch is how long this node may go without a leader's verdict before it says that it can take nothing new.
const outOfTouch = 5 * time.Second

// verdict is the leader's answer to a report: what that node may do for each service, for a cluster manager.
type verdict struct {
	Able map[core.ServiceName]core.Able `json:",omitempty"`
}

// judge is the leader's word on a member.
func (a *App) judge(peer core.NodeName) verdict {
	state := a.replica.State()
	if state.Spec.Manager != core.ManagerPacemaker || !a.leading.Load() {
		return verdict{}
	}
	view := a.observer.View(state, boottime.Now(), a.voters())
	v := verdict{Able: map[core.ServiceName]core.Able{}}
	for name, nodes := range core.Ables(state, view, a.replica.Now()) {
		if able, ok := nodes[peer]; ok {
			v.Able[name] = able
		}
	}
	return v
}

// able is what this node may do now.
func (a *App) able() map[core.ServiceName]core.Able {
	return a.abilities.all(a.replica.State(), a.file.Name, a.instance)
}

// hasGrant reports whether this very life of the node holds the service.
func (a *App) hasGrant(name core.ServiceName) bool {
	g := a.replica.State().Services[name].Grant
	return g != nil && g.Node == a.file.Name && g.Instance == a.instance
}

// abilities keeps the newest verdict on this node.
type abilities struct {
	mu      sync.Mutex
	newest  map[core.ServiceName]core.Able
	at      boottime.Time
	changed func()
}

// set takes a verdict. None at all is none: who is asked does not lead yet, or no cluster manager is there.
func (s *abilities) set(able map[core.ServiceName]core.Able) {
	if len(able) == 0 {
		return
	}
	s.mu.Lock()
	same := maps.Equal(s.newest, able) && s.at != 0
	s.newest, s.at = able, boottime.Now()
	s.mu.Unlock()
	if !same {
		s.changed()
	}
}

// all is what this node may do now. Without a verdict for a while it can take nothing new; what it holds it keeps.
func (s *abilities) all(state core.State, self core.NodeName, instance core.Instance) map[core.ServiceName]core.Able {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[core.ServiceName]core.Able{}
	stale := s.at == 0 || boottime.Now().Sub(s.at) > outOfTouch
	for _, spec := range state.Spec.Services {
		able, ok := s.newest[spec.Name]
		g := state.Services[spec.Name].Grant
		holds := g != nil && g.Node == self && g.Instance == instance
		switch {
		case ok && !stale:
		case holds:
			able = state.HolderAble(spec.Name)
		default:
			able = core.Able{Reason: "no leader is in touch with this node"}
		}
		all[spec.Name] = able
	}
	return all
}
