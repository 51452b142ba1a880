package managed

import (
	"maps"
	"sync"
	"time"

	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/core"
)

// outOfTouch is how long this node may go without a leader's verdict before it says that it can take nothing new.
const outOfTouch = 5 * time.Second

// Abilities keep the newest verdict on this node.
type Abilities struct {
	mu      sync.Mutex
	newest  map[core.ServiceName]core.Able
	at      boottime.Time
	Changed func() // called when the verdict is another one
}

// Set takes a verdict. None at all is none: who is asked does not lead yet, or no cluster manager is there.
func (s *Abilities) Set(now boottime.Time, able map[core.ServiceName]core.Able) {
	if len(able) == 0 {
		return
	}
	s.mu.Lock()
	same := maps.Equal(s.newest, able) && s.at != 0
	s.newest, s.at = able, now
	s.mu.Unlock()
	if !same {
		s.Changed()
	}
}

// All is what this node may do now. Without a verdict for a while it can take nothing new; what it holds it keeps.
func (s *Abilities) All(now boottime.Time, state core.State, self core.NodeName, instance core.Instance) map[core.ServiceName]core.Able {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[core.ServiceName]core.Able{}
	stale := s.at == 0 || now.Sub(s.at) > outOfTouch
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
