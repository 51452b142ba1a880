package sim

import (
	"slices"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

const election = 400 * time.Millisecond

// raft is what Raft promises, not how: one log; an entry is committed once a majority of the voters has it, and then
// every later leader does; at most one leader of a term can commit; one that was deposed finds out when it asks a
// majority; an entry of a leader that was lost may or may not turn up in the next one's log.
type raft struct {
	w       *World
	states  []*core.State // after each committed entry; states[0] is after the first one kept
	first   uint64        // index of states[0]
	term    uint64
	voters  []*node
	leader  *node    // of the newest term; it may not know, or be gone
	doubt   []*entry // in logs, and known to nobody as committed
	pending bool     // an election is on its way

	recovering bool // an operator recovers what is left of it
	forgot     bool // what only the lost had committed is gone
}

// entry is a proposal in a leader's log.
type entry struct {
	core.Entry
	term  uint64
	on    map[*node]bool // whose log has it
	done  bool
	index uint64 // 0: not committed
	err   error  // why Apply refused it
}

// disk is what of Raft outlives a daemon and its node.
type disk struct {
	stored uint64 // index up to which the log has every committed entry
	lazy   bool   // fsync says yes and does nothing: the end of power costs the newest entries
	torn   bool   // the end of power tears the newest entry
}

// lose is what the end of power does to a log that was not on disk.
func (d *disk) lose(n *node) {
	switch r := n.w.raft; {
	case !d.lazy && !d.torn:
	case r.othersHave(n, d.stored): // Raft needs a majority of disks that keep their word
		lost := uint64(1)
		if d.lazy {
			lost += n.w.rng.Uint64N(5)
		}
		d.stored -= min(lost, d.stored)
		n.w.say("%s lost its log's end", n.name)
	}
}

// othersHave reports whether a majority has all up to index without n.
func (r *raft) othersHave(n *node, index uint64) bool {
	have := 0
	for _, v := range r.voters {
		if v != n && v.disk.stored >= index && !v.disk.lazy && !v.disk.torn {
			have++
		}
	}
	return have > len(r.voters)/2
}

// newRaft founds the cluster and lets every node join.
func newRaft(w *World, spec core.Spec) *raft {
	r := &raft{w: w, first: 1, term: 1}
	state := core.State{}
	found := func(c core.Command) {
		is, err := core.Apply(state, core.Entry{By: w.nodes[0].name, Command: c})
		if err != nil {
			panic(err)
		}
		state = is
	}
	found(core.Init{Cluster: "sim", Spec: spec})
	for _, n := range w.nodes {
		id := string(n.name)
		found(core.IssueToken{ID: id, Hash: id, Node: n.name, For: time.Hour})
		found(core.Join{Node: n.name, Incarnation: "1", TokenID: id, TokenHash: id})
	}
	r.states = []*core.State{&state}
	count := min(len(w.nodes), 5)
	if count%2 == 0 {
		count--
	}
	r.voters = slices.Clone(w.nodes[:count])
	if w.shape.Witness && count < len(w.nodes) {
		r.voters[count-1] = w.nodes[len(w.nodes)-1]
	}
	for _, n := range w.nodes {
		n.disk.stored = 1
	}
	return r
}

func (r *raft) last() uint64 { return r.first + uint64(len(r.states)) - 1 }

func (r *raft) state(index uint64) *core.State { return r.states[max(index, r.first)-r.first] }

// newest is what is committed, whoever knows it.
func (r *raft) newest() *core.State { return r.states[len(r.states)-1] }

func (r *raft) votes(n *node) bool { return slices.Contains(r.voters, n) }

// reaches lists the voters with a living daemon that n can talk to, itself included.
func (r *raft) reaches(n *node) []*node {
	var found []*node
	for _, v := range r.voters {
		if v.daemon != nil && r.w.net.connected(n, v) {
			found = append(found, v)
		}
	}
	return found
}

func (r *raft) majority(n *node) bool { return len(r.reaches(n)) > len(r.voters)/2 }

// holds reports whether n leads and can commit now.
func (r *raft) holds(n *node, term uint64) bool {
	return n.daemon != nil && n.daemon.leads && n.daemon.term == term && r.term == term && n.alive() && r.majority(n)
}

// reconsider looks at who can talk to whom: a leader without a majority steps down after a while, a majority
// without a leader elects one after a while, and who was out of touch catches up.
func (r *raft) reconsider() {
	if r.voters == nil {
		return
	}
	for _, n := range r.w.nodes {
		if d := n.daemon; d != nil && d.leads && n.alive() && (d.term != r.term || !r.majority(n)) {
			r.w.on(n, r.w.between(election/4, election), func() {
				if n.daemon == d && d.leads && (d.term != r.term || !r.majority(n)) {
					d.follow()
				}
			})
		}
	}
	if l := r.leader; l == nil || l.daemon == nil || !l.daemon.leads || !l.alive() || !r.majority(l) {
		r.elect(r.w.between(election, 2*election))
	}
	if l := r.leader; l != nil {
		for _, n := range r.w.nodes {
			if n.daemon != nil && (!n.daemon.ready || n.daemon.hint != l || n.daemon.applied < r.last()) {
				r.tell(n, r.w.between(5*time.Millisecond, 60*time.Millisecond))
			}
		}
	}
}

// elect holds an election after d, if there is need then.
func (r *raft) elect(d time.Duration) {
	if r.pending || r.recovering && len(r.voters) > 1 {
		return
	}
	r.pending = true
	r.w.at(d, func() {
		r.pending = false
		if l := r.leader; l != nil && l.daemon != nil && r.holds(l, l.daemon.term) {
			return
		}
		var could []*node
		for _, v := range r.voters {
			if v.daemon != nil && v.alive() && r.majority(v) && r.upToDate(v) {
				could = append(could, v)
			}
		}
		switch {
		case len(could) == 0: // the next change of connections looks again; so does time
			r.elect(r.w.between(election, 2*election))
		case r.w.chance(0.1): // the votes were split
			r.elect(r.w.between(election, 2*election))
		default:
			r.crown(could[r.w.rng.IntN(len(could))])
		}
	})
}

// upToDate reports whether a majority would vote for n: its log must have whatever is committed.
func (r *raft) upToDate(n *node) bool { return n.disk.stored >= r.last() }

// crown makes n the leader of a new term. What it found in its log is committed before its barrier.
func (r *raft) crown(n *node) {
	was := r.leader
	r.term++
	r.leader = n
	for _, v := range r.reaches(n) {
		if v != n && v.daemon.leads {
			v.daemon.follow()
		}
	}
	if was != nil && was != n {
		r.w.say("%s leads in term %d", n.name, r.term)
	}
	d := n.daemon
	d.leads, d.term, d.hint = true, r.term, n
	doubt := r.doubt
	r.doubt = nil
	term := r.term
	r.w.on(n, r.w.between(2*time.Millisecond, 10*time.Millisecond), func() {
		if n.daemon != d || !r.holds(n, term) {
			return
		}
		for _, e := range doubt {
			if !e.on[n] {
				break // a log has no holes
			}
			r.commit(n, e)
		}
		d.catchUp(r.last())
		d.lead(term)
		for _, o := range r.w.nodes {
			r.tell(o, r.w.between(time.Millisecond, 5*time.Millisecond))
		}
	})
}

// transfer hands leadership over, if to has all of the log.
func (r *raft) transfer(from, to *node) {
	if r.leader != from || to.daemon == nil || !r.votes(to) || !r.w.net.connected(from, to) || !r.upToDate(to) || !r.majority(to) {
		return
	}
	from.daemon.follow()
	r.crown(to)
}

// append puts an entry into the leader's log, and tries to commit it. False: n does not lead.
func (r *raft) append(n *node, by core.NodeName, c core.Command) (*entry, bool) {
	d := n.daemon
	if d == nil || !d.leads {
		return nil, false
	}
	e := &entry{
		Entry: core.Entry{At: d.clusterNow(), Wall: time.Unix(0, 0).Add(n.w.now + d.wall), By: by, Command: c},
		term:  d.term, on: map[*node]bool{n: true},
	}
	for _, v := range r.reaches(n) {
		if v == n || r.w.chance(0.9) {
			e.on[v] = true
		}
	}
	d.log = append(d.log, e)
	if len(d.log) == 1 {
		r.advance(n, d)
	}
	return e, true
}

// advance commits the leader's next entry once a majority has it on disk.
func (r *raft) advance(n *node, d *daemon) {
	took := r.w.between(time.Millisecond, 4*time.Millisecond)
	if r.w.net.rough {
		took += r.w.net.delay[n.id]
	}
	r.w.on(n, n.takes(took), func() {
		if n.daemon != d || len(d.log) == 0 {
			return
		}
		e := d.log[0]
		if e.term == d.term && r.holds(n, e.term) {
			d.log = d.log[1:]
			r.commit(n, e)
			d.catchUp(r.last())
			for _, o := range r.w.nodes {
				r.tell(o, r.w.between(200*time.Microsecond, 2*time.Millisecond))
			}
		}
		if len(d.log) > 0 {
			r.advance(n, d)
		}
	})
}

// commit appends to the one log, on the disks of all that the leader reaches.
func (r *raft) commit(n *node, e *entry) {
	was := r.newest()
	is, err := core.Apply(*was, e.Entry)
	e.done, e.err = true, err
	if err == nil {
		r.w.checks.step(*was, e.Entry, is)
		r.states = append(r.states, &is)
		r.w.heard(was, &is)
	}
	e.index = r.last()
	for _, v := range r.reaches(n) {
		v.disk.stored = r.last()
	}
	for _, o := range r.w.nodes {
		if o.daemon != nil && r.w.net.connected(n, o) {
			o.disk.stored = r.last()
		}
	}
	if len(r.states) > 4096 {
		drop := len(r.states) - 1024
		r.states = append([]*core.State(nil), r.states[drop:]...)
		r.first += uint64(drop)
	}
	if n.daemon != nil {
		n.daemon.stir()
	}
}

// tell has a node learn what is committed, if the leader reaches it then.
func (r *raft) tell(n *node, d time.Duration) {
	m := n.daemon
	if m == nil || m.told {
		return
	}
	m.told = true
	r.w.on(n, d, func() {
		m.told = false
		l := r.leader
		if n.daemon != m || l == nil || l.daemon == nil || !l.daemon.leads || !r.w.net.connected(l, n) {
			return
		}
		m.hint = l
		if m.leads && l != n {
			m.follow()
		}
		n.disk.stored = max(n.disk.stored, l.daemon.applied)
		m.catchUp(l.daemon.applied)
	})
}

// verified reports whether a majority holds n for the leader of its term now.
func (r *raft) verified(n *node) bool {
	return n.daemon != nil && n.daemon.leads && r.holds(n, n.daemon.term)
}

// lostLog is the end of a leader: what it could not commit is in doubt.
func (r *raft) lostLog(d *daemon) {
	if len(d.log) > 0 && d.term == r.term {
		r.doubt = d.log
	}
	d.log = nil
}

// clusterNow is cluster time as a leader counts it.
func (d *daemon) clusterNow() core.Time {
	s := d.state()
	if d.appliedAt == 0 {
		return s.Now
	}
	return s.Now.Add(max(0, d.n.read().Sub(d.appliedAt)))
}

// catchUp applies up to index.
func (d *daemon) catchUp(index uint64) {
	if index <= d.applied && d.ready {
		return
	}
	d.applied = max(d.applied, index)
	d.appliedAt = d.n.read()
	d.changed++
	d.ready = true
	d.learned()
	d.stir()
	d.n.agents.stir() // what waits on a claim
}
