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
	cleaned     uint64 // counts cleanups
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
	for _, m := range n.partners() {
		n.w.on(m, n.w.between(time.Millisecond, 20*time.Millisecond), func() { m.adopt(made) })
	}
}

// adopt takes a configuration that is newer than the node's own.
func (n *node) adopt(c *conf) {
	if c.version > n.cib.version {
		n.cib = c
		n.pcmk.poke()
	}
}

// partners are the members of this node's partition whose Pacemaker runs, itself included.
func (n *node) partners() []*node {
	return slices.DeleteFunc(slices.Clone(n.view), func(m *node) bool { return m.pcmk == nil || !m.alive() || !slices.Contains(m.view, n) })
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
