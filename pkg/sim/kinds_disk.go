package sim

import (
	"slices"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/wire"
)

// diskKinds are what becomes of the log by an operator's hand.
var diskKinds = []kind{
	{name: "recover", begin: recovered},
	{name: "restored-disk", begin: restoredDisk},
	{name: "mixed-versions", begin: mixedVersions},
}

// recovered loses a majority of the voters for good, and has an operator recover on the survivor that was further, by the
// book: the lost ones are off, every daemon is stopped, and the lost come back as newcomers with empty disks.
func recovered(w *World, n *node, a Act) func() {
	r := w.raft
	if r.recovering {
		return nil
	}
	r.recovering = true
	w.busy++
	var kept []*node
	lost := slices.Clone(r.voters)
	keep := len(r.voters) - len(r.voters)/2 - 1
	for range max(keep, 1) {
		i := (n.id + a.Much) % len(lost)
		kept = append(kept, lost[i])
		lost = slices.Delete(lost, i, i+1)
	}
	for _, v := range lost {
		v.cut()
		v.out = true // its disk must never start keepone again
	}
	for _, m := range w.nodes {
		m.endDaemon()
		m.out = true
	}
	best := slices.MaxFunc(kept, func(x, y *node) int { return int(x.disk.stored) - int(y.disk.stored) })
	w.at(a.For/4+time.Second, func() { r.recover(best, lost) })
	return nil
}

// recover makes a survivor the only voter: what is in its log counts as committed, what only the lost had is gone.
func (r *raft) recover(best *node, lost []*node) {
	for _, e := range r.doubt {
		if !e.on[best] {
			break
		}
		best.disk.stored = r.last()
	}
	for _, m := range r.w.nodes {
		m.endDaemon()
	}
	best.boot()
	keep := max(best.disk.stored, r.first)
	r.w.say("%s recovers: %d entries are lost", best.name, r.last()-keep)
	r.states = r.states[:keep-r.first+1]
	r.forgot = true
	r.doubt, r.leader, r.voters = nil, nil, []*node{best}
	r.term++
	for _, m := range r.w.nodes { // the gap: who was further takes this node's State as a whole
		m.disk.stored = min(m.disk.stored, keep)
	}
	best.out = false
	best.startDaemon()
	r.elect(election)
	r.w.at(10*time.Second, func() { r.rejoin(best, lost) })
}

// rejoin takes the lost out and brings the survivors back, then the lost as newcomers.
func (r *raft) rejoin(best *node, lost []*node) {
	for _, m := range lost {
		r.w.commit(best, func(core.State) core.Command { return core.Leave{Node: m.name} })
	}
	for _, m := range r.w.nodes {
		if m.power && !slices.Contains(lost, m) {
			m.out = false
			m.startIfUp()
		}
	}
	r.recovering = false
	r.w.busy--
	r.w.at(20*time.Second, r.widen)
}

// widen votes in members that are up, one after the other, until there are as many voters as there were.
func (r *raft) widen() {
	want := min(len(r.w.nodes), 5)
	if want%2 == 0 {
		want--
	}
	for _, m := range r.w.nodes {
		_, member := r.newest().Nodes[m.name]
		if len(r.voters) < want && member && m.daemon != nil && !r.votes(m) && r.upToDate(m) {
			r.voters = append(r.voters, m)
		}
	}
	if len(r.voters) < want || len(r.voters)%2 == 0 {
		r.w.at(5*time.Second, r.widen)
	}
}

// claim is `keepone volume claim` after a recovery: a lock whose grant was lost with its majority has an owner that the cluster
// does not know. The operator has made sure that it is off.
func (w *World) claim() {
	for i, img := range w.ceph.images {
		lives := slices.ContainsFunc(w.nodes, func(n *node) bool {
			cl := n.here[i].client
			return cl != nil && cl.alive && cl.address == img.owner
		})
		if img.owner != "" && !lives {
			w.ceph.ban([]string{img.owner})
			img.owner = ""
		}
	}
}

// restoredDisk is a node whose disk was brought back from an older backup: its log is old, and is caught up.
func restoredDisk(w *World, n *node, a Act) func() {
	r := w.raft
	old := n.disk.stored - min(uint64(a.Much), n.disk.stored)
	if !r.othersHave(n, r.last()) {
		return nil // Raft promises nothing where the only copies go back
	}
	n.cut()
	n.disk.stored = max(old, r.first)
	w.at(a.For/4, n.boot)
	return nil
}

// mixedVersions restarts one node after the other, as an upgrade does. What one version writes the other reads: State goes
// through a snapshot as it is on disk, and a daemon of the older version says nothing in its reports of what it does not know.
func mixedVersions(w *World, _ *node, a Act) func() {
	for i, n := range w.nodes {
		w.at(time.Duration(i*a.Much)*40*time.Millisecond, func() {
			if !n.power || n.daemon == nil {
				return
			}
			n.older = true
			w.raft.reread()
			n.restartDaemon(w.between(200*time.Millisecond, 3*time.Second))
			n.killGuard()
		})
	}
	return func() {
		for _, n := range w.nodes {
			n.older = false
		}
	}
}

// reread has the newest State go to disk and back.
func (r *raft) reread() {
	text, err := wire.EncodeSnapshot(*r.newest())
	if err != nil {
		r.w.checks.breaks("I2: State can't be written: %v", err)
		return
	}
	s, err := wire.DecodeSnapshot(text)
	if err != nil {
		r.w.checks.breaks("I2: State can't be read: %v", err)
		return
	}
	r.states[len(r.states)-1] = &s
}
