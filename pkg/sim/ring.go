package sim

import (
	"slices"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/setup"
)

// ring is corosync on every node: who is in whose membership, by its own timing and, where it has links of its own, by those.
type ring struct {
	w      *World
	blocks map[[2]int]bool // nothing of corosync's goes between them
	lost   time.Duration   // token and consensus: until a silent member is out
}

func newRing(w *World, spec core.Spec) *ring {
	c := setup.New(spec, setup.Options{}).Corosync
	return &ring{w: w, blocks: map[[2]int]bool{}, lost: c.Token + c.Consensus}
}

// hears reports whether two nodes' corosyncs hear each other.
func (r *ring) hears(a, b *node) bool {
	if a == b {
		return a.alive()
	}
	if !a.alive() || !b.alive() || a.view == nil || b.view == nil || r.blocks[[2]int{a.id, b.id}] || r.blocks[[2]int{b.id, a.id}] {
		return false
	}
	if r.w.shape.OwnRing || !r.w.net.rough {
		return true
	}
	for link := range links {
		if r.w.net.lies(a, b, link) && r.w.net.lies(b, a, link) {
			return true
		}
	}
	return false
}

// changed says that who hears whom may have changed: gains are seen soon, losses after token and consensus.
func (r *ring) changed() {
	r.w.at(r.w.between(200*time.Millisecond, time.Second), func() { r.form(true) })
	r.w.at(r.lost+r.w.between(0, 200*time.Millisecond), func() { r.form(false) })
}

// form has each node's view follow who hears whom; gains: only where nobody is lost by it.
func (r *ring) form(gains bool) {
	formed := map[*node]bool{}
	for _, n := range r.w.nodes {
		if n.view == nil || !n.alive() || formed[n] {
			continue
		}
		members := r.around(n, formed)
		news := false
		for _, m := range members {
			formed[m] = true
			lost := slices.ContainsFunc(m.view, func(x *node) bool { return !slices.Contains(members, x) })
			if gains && lost || slices.Equal(m.view, members) {
				continue
			}
			m.view, news = members, true
		}
		for _, m := range members {
			if news {
				m.membership() // also of one that slept through it all
			}
		}
	}
}

// around is a node's membership: all that hear each other, the lowest first, as the totem protocol settles it.
func (r *ring) around(n *node, taken map[*node]bool) []*node {
	members := []*node{n}
	for _, m := range r.w.nodes {
		if m == n || m.view == nil || taken[m] {
			continue
		}
		if !slices.ContainsFunc(members, func(x *node) bool { return !r.hears(x, m) }) {
			members = append(members, m)
		}
	}
	slices.SortFunc(members, func(a, b *node) int { return a.id - b.id })
	return members
}

// quorate is what this node's corosync says.
func (n *node) quorate() bool { return len(n.view) > len(n.w.nodes)/2 }

// block cuts corosync's own traffic between the nodes that pick names, until it is mended.
func (r *ring) block(pick func(a, b *node) bool) func() {
	set := func(on bool) {
		for _, a := range r.w.nodes {
			for _, b := range r.w.nodes {
				if a != b && pick(a, b) {
					r.blocks[[2]int{a.id, b.id}] = on
				}
			}
		}
		r.changed()
	}
	set(true)
	return func() { set(false) }
}

// heal mends corosync's own traffic.
func (r *ring) heal() {
	clear(r.blocks)
	r.changed()
}
