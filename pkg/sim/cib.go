package sim

import (
	"maps"
	"slices"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/setup"
)

// conf is what of Pacemaker's configuration operators change. A conf is never written: change makes another.
type conf struct {
	version     uint64
	maintenance bool
	standby     map[core.NodeName]bool
	unmanaged   map[core.ServiceName]bool
	stopped     map[string]bool // target-role of a resource
	moves       map[core.ServiceName]core.NodeName
}

func newConf() *conf {
	return &conf{standby: map[core.NodeName]bool{}, unmanaged: map[core.ServiceName]bool{}, stopped: map[string]bool{}, moves: map[core.ServiceName]core.NodeName{}}
}

func (c conf) change(f func(*conf)) *conf {
	c.standby, c.unmanaged, c.stopped, c.moves = maps.Clone(c.standby), maps.Clone(c.unmanaged), maps.Clone(c.stopped), maps.Clone(c.moves)
	f(&c)
	c.version++
	return &c
}

// configure is cibadmin on a node: its partition takes the change.
func (n *node) configure(f func(*conf)) {
	if n.pcmk == nil {
		return
	}
	made := n.cib.change(f)
	for _, m := range n.peers() {
		n.w.on(m, n.w.between(time.Millisecond, 20*time.Millisecond), func() { m.adopt(made) })
	}
}

// adopt takes a configuration that is newer than the node's own.
func (n *node) adopt(c *conf) {
	if n.cib == nil || c.version > n.cib.version {
		n.cib = c
		if n.pcmk != nil {
			n.pcmk.poke()
		}
	}
}

// partners are the members of this node's membership whose Pacemaker runs, as far as it knows, itself included: the end of a
// process is told at once, that of a node is found out by corosync.
func (n *node) partners() []*node {
	return slices.DeleteFunc(slices.Clone(n.view), func(m *node) bool { return m.alive() && (m.pcmk == nil || m.pcmk.away) })
}

// peers are the partners that can be talked to in truth.
func (n *node) peers() []*node {
	return slices.DeleteFunc(n.partners(), func(m *node) bool { return m.pcmk == nil || !m.alive() || !slices.Contains(m.view, n) })
}

// role is how far up a resource is on a node, as Pacemaker knows.
type role uint8

const (
	unknown  role = iota // not probed yet
	stopped              //
	started              // of a promotable one: unpromoted
	promoted             //
)

// place is what is known of a resource on a node.
type place struct {
	role   role
	failed bool
	fails  int
	last   time.Duration
}

// member is what the DC knows of a node.
type member struct {
	expected bool // it is to be here: else it left, or was fenced
	dirty    bool // a stop failed there: only a fence helps
	at       map[string]place
}

// The resources of one service. Of style one there is the container alone.
func volumeOf(s core.ServiceName) string    { return setup.Volume(s) }
func mountOf(s core.ServiceName) string     { return setup.FileSystem(s) }
func containerOf(s core.ServiceName) string { return setup.Container(s) }

const controllerID = "keepone-controller"

// resources are all that a node may have, in the order in which they are looked at.
func (w *World) resources() []string {
	ids := []string{controllerID}
	for i := range w.shape.Services {
		if s := service(i); w.shape.One {
			ids = append(ids, containerOf(s))
		} else {
			ids = append(ids, volumeOf(s), mountOf(s), containerOf(s))
		}
	}
	return ids
}

// clear takes back what operators changed.
func (c *conf) clear() {
	c.maintenance = false
	clear(c.standby)
	clear(c.unmanaged)
	clear(c.stopped)
	clear(c.moves)
}

// drive is what the CLI has Pacemaker do for an operator's wish; false: keepone has its part too, or all of it.
func (w *World) drive(c core.Ask) bool {
	at := w.nodes[w.rng.IntN(len(w.nodes))]
	top := volumeOf(c.Service)
	if w.shape.One {
		top = containerOf(c.Service)
	}
	switch c.What {
	case core.RequestSwitchover:
		to := w.nodes[w.rng.IntN(len(w.nodes))].name
		at.configure(func(f *conf) { f.moves[c.Service] = to })
		w.at(30*time.Second, func() { at.configure(func(f *conf) { delete(f.moves, c.Service) }) })
		return true
	case core.RequestStop:
		at.configure(func(f *conf) { f.stopped[top] = true })
		return true
	case core.RequestRestart:
		at.configure(func(f *conf) { f.stopped[containerOf(c.Service)] = true })
		w.at(10*time.Second, func() { at.configure(func(f *conf) { delete(f.stopped, containerOf(c.Service)) }) })
		return true
	case core.RequestStart:
		at.configure(func(f *conf) { delete(f.stopped, top) })
		return !w.raft.newest().Services[c.Service].Stopped
	case core.RequestDrain, core.RequestUndrain:
		at.configure(func(f *conf) {
			if delete(f.standby, c.Node); c.What == core.RequestDrain {
				f.standby[c.Node] = true
			}
		})
	case core.RequestMaintenance:
		at.configure(func(f *conf) { f.maintenance = true })
	case core.RequestFailover:
		return true
	case core.RequestMaintainOff, core.RequestFence, core.RequestFenceConfirm:
	}
	return false
}
