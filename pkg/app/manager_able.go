package app

import (
	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/core"
)

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
	return a.abilities.All(boottime.Now(), a.replica.State(), a.file.Name, a.instance)
}

// hasGrant reports whether this very life of the node holds the service.
func (a *App) hasGrant(name core.ServiceName) bool {
	g := a.replica.State().Services[name].Grant
	return g != nil && g.Node == a.file.Name && g.Instance == a.instance
}
