package sim

import (
	"maps"
	"slices"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/ocf"
)

const (
	recheck    = time.Minute // cluster-recheck-interval
	fenceAgain = 3 * time.Second
)

// pacemaker is one run of Pacemaker on a node.
type pacemaker struct {
	n       *node
	brain   program // its part of the DC, which dies with an election
	leads   bool
	dc      *node // as it believes; nil: none yet
	away    bool  // its controller has ended and is not back yet
	poked   bool
	joined  bool // the DC has taken everybody's history in
	members map[core.NodeName]*member
	history map[string]place               // of this node's own operations
	turns   map[string]int                 // counts what monitors were begun for
	locked  map[string]bool                // a resource has an operation under way
	attrs   map[core.NodeName]attributeSet // as this node's attrd knows them
	held    time.Duration                  // no fence before
	busy    int                            // actions under way
}

// attributeSet are the attributes of one node, each with the number of its change.
type attributeSet map[string]attribute

func (s attributeSet) value(name string) string {
	if a := s[name]; !a.gone {
		return a.value
	}
	return ""
}

type attribute struct {
	value string
	seq   uint64
	gone  bool
}

func (a attribute) known() bool { return a.seq > 0 }

// startPacemaker starts corosync and Pacemaker.
func (n *node) startPacemaker() {
	if n.w.ring == nil || n.pcmk != nil || !n.power || n.stays {
		return
	}
	n.pcmk = &pacemaker{
		n: n, members: map[core.NodeName]*member{}, history: map[string]place{}, locked: map[string]bool{}, turns: map[string]int{},
		attrs: map[core.NodeName]attributeSet{n.name: {}},
	}
	n.pcmk.brain.n = n
	for _, m := range n.w.nodes {
		n.pcmk.members[m.name] = &member{expected: true}
	}
	if n.cib == nil {
		n.cib = newConf()
	}
	if n.view == nil {
		n.view = []*node{n}
	}
	n.w.ring.changed()
	n.membership()
}

// endPacemaker is the end of all of its processes but what agents left running; corosync goes on.
func (n *node) endPacemaker() {
	if n.pcmk == nil {
		return
	}
	n.pcmk.brain.end()
	n.agents.end()
	n.pcmk = nil
	n.tellPartners()
}

// tellPartners is what corosync tells of a process that has ended or begun.
func (n *node) tellPartners() {
	for _, m := range n.view {
		if m != n && m.pcmk != nil && n.alive() && slices.Contains(m.view, n) {
			m.membership()
		}
	}
}

// leave is an orderly end: nobody misses the node.
func (n *node) leave() {
	if n.pcmk == nil || !n.stays {
		return // it is to be started again already
	}
	n.w.say("Pacemaker and corosync are stopped on %s", n.name)
	was := n.view
	n.gone(n)
	n.endPacemaker()
	n.view = nil
	for _, m := range was {
		if m != n && m.view != nil && slices.Contains(m.view, n) {
			m.view = slices.DeleteFunc(slices.Clone(m.view), func(x *node) bool { return x == n })
			m.membership()
		}
	}
}

// gone has all in this partition take a node for gone.
func (n *node) gone(target *node) {
	for _, m := range n.peers() {
		m.pcmk.members[target.name] = &member{at: map[string]place{}}
		m.pcmk.poke()
	}
}

// idle reports whether nothing runs here.
func (c *pacemaker) idle() bool {
	for _, p := range c.history {
		if p.role > stopped {
			return false
		}
	}
	return true
}

func (c *pacemaker) poke() {
	c.poked = true
	c.brain.stir()
}

// membership is another membership, or another Pacemaker in it.
func (n *node) membership() {
	c := n.pcmk
	if c == nil {
		return
	}
	for name := range c.attrs {
		if m := n.w.names[name]; m != n && (!slices.Contains(n.view, m) || m.pcmk == nil) {
			delete(c.attrs, name) // attrd forgets who left
		}
	}
	n.sayAttributes()
	c.joined = false
	n.w.on(n, n.w.between(100*time.Millisecond, 600*time.Millisecond), func() {
		if n.pcmk == c {
			c.elect()
		}
	})
	c.poke()
}

// sayAttributes tells the others this node's attributes anew.
func (n *node) sayAttributes() {
	if n.pcmk == nil {
		return
	}
	set := n.pcmk.attrs[n.name]
	for _, m := range n.peers() {
		for _, name := range slices.Sorted(maps.Keys(set)) {
			n.w.on(m, n.w.between(time.Millisecond, 50*time.Millisecond), func() { m.told(n, name, set[name]) })
		}
	}
}

// elect has the lowest of the partition lead it, or one that already does.
func (c *pacemaker) elect() {
	n := c.n
	if c.dc != nil && !c.dc.alive() && slices.Contains(n.partners(), c.dc) {
		return // it is not yet missed
	}
	dc := n
	for _, m := range n.peers() {
		if better := m.id < dc.id; m.pcmk.leads == dc.pcmk.leads && better || m.pcmk.leads && !dc.pcmk.leads {
			dc = m
		}
	}
	c.dc = dc
	switch {
	case dc == n && !c.leads:
		c.leads, c.joined = true, false
		n.w.say("%s is the DC", n.name)
		c.brain.run(c.lead)
	case dc != n && c.leads:
		c.stepDown()
	}
	if dc != n {
		dc.pcmk.joined = false
		dc.pcmk.poke()
	}
}

func (c *pacemaker) stepDown() {
	c.leads, c.busy = false, 0
	c.brain.end()
}

// join takes in the newest configuration and what every member knows of itself.
func (c *pacemaker) join() {
	c.joined = true
	for _, m := range c.n.peers() {
		if m.cib.version > c.n.cib.version {
			c.n.adopt(m.cib)
		}
	}
	for _, m := range c.n.peers() {
		m.adopt(c.n.cib)
		c.members[m.name] = &member{expected: true, at: maps.Clone(m.pcmk.history), dirty: c.members[m.name].dirty && c.members[m.name].expected}
	}
}

// share gives every member the DC's knowledge, as the CIB does: the next DC starts from it.
func (c *pacemaker) share() {
	for _, m := range c.n.peers() {
		if m != c.n {
			m.pcmk.members = maps.Clone(c.members)
		}
	}
}

// lead is the DC's work: what can be done is done, then it looks again.
func (c *pacemaker) lead(p *process) {
	p.sleep(p.w.between(500*time.Millisecond, 2*time.Second))
	for {
		if !c.joined {
			p.sleep(p.w.between(50*time.Millisecond, 300*time.Millisecond))
			c.join()
		}
		c.poked = false
		acts := c.schedule()
		if len(acts) == 0 {
			p.await(recheck, func() bool { return c.poked })
			p.sleep(p.w.between(10*time.Millisecond, 60*time.Millisecond))
			continue
		}
		c.carryOut(p, acts)
		c.share()
		p.sleep(p.w.between(10*time.Millisecond, 60*time.Millisecond))
	}
}

func (c *pacemaker) schedule() []action {
	attrs := map[core.NodeName]map[string]string{}
	for name, set := range c.attrs {
		attrs[name] = map[string]string{}
		for key := range set {
			attrs[name][key] = set.value(key)
		}
	}
	for _, n := range c.n.w.nodes {
		if c.members[n.name].at == nil {
			c.members[n.name] = &member{expected: c.members[n.name].expected, dirty: c.members[n.name].dirty, at: map[string]place{}}
		}
	}
	s := scheduler{w: c.n.w, conf: c.n.cib, here: c.n.partners(), quorate: c.n.quorate(), members: c.members, attrs: attrs}
	acts := s.next()
	return slices.DeleteFunc(acts, func(a action) bool { return a.verb == "" && (c.n.w.now < c.held || len(s.here) < 2 && a.node == c.n) })
}

// carryOut does all of the actions side by side, and waits for each to end or for its node to be lost. Nothing new
// begins meanwhile.
func (c *pacemaker) carryOut(p *process, acts []action) {
	left := len(acts)
	done := func() { left--; c.brain.stir() }
	c.busy = left
	for _, a := range acts {
		if a.verb == "" {
			c.fence(p, a.node, done)
			continue
		}
		m := a.node.pcmk
		ended := false
		c.n.w.on(a.node, c.n.w.between(time.Millisecond, 20*time.Millisecond), func() {
			if m == nil || a.node.pcmk != m { // it has ended since, with its node or alone
				return
			}
			m.execute(a, func(code ocf.Code) {
				if !ended {
					ended = true
					c.result(a, code)
					done()
				}
			})
		})
		c.brain.run(func(q *process) { // a node that is lost answers no more
			for !ended {
				q.await(opTimeout(a)+20*time.Second, func() bool { return ended || a.node.pcmk != m || !slices.Contains(c.n.view, a.node) })
				if !ended {
					ended = true
					done()
				}
			}
		})
	}
	p.await(forever, func() bool { return left == 0 })
	c.busy = 0
}

// result takes in what an operation came to.
func (c *pacemaker) result(a action, code ocf.Code) {
	m := c.members[a.node.name]
	is := &member{expected: m.expected, dirty: m.dirty, at: maps.Clone(m.at)}
	if is.at == nil {
		is.at = map[string]place{}
	}
	if a.node.pcmk == nil {
		return
	}
	is.at[a.resource] = a.node.pcmk.history[a.resource]
	if a.verb == ocf.Stop && code != ocf.Success && a.resource != controllerID {
		is.dirty = true
	}
	c.members[a.node.name] = is
	c.share()
	c.poke()
}

// record notes a result on the node where it was made, and tells the DC.
func (c *pacemaker) record(a action, probe bool, code ocf.Code) {
	was := c.history[a.resource]
	is := was.learn(a.verb, probe, code, c.n.w.now)
	if a.resource == controllerID && !probe { // on-fail=ignore
		is = place{role: started, last: c.n.w.now}
		if a.verb == ocf.Stop {
			is.role = stopped
		}
	}
	c.history[a.resource] = is
	if is.role == was.role && is.failed == was.failed {
		return
	}
	for _, m := range c.n.peers() {
		if m.pcmk.leads {
			m.pcmk.result(action{node: c.n, resource: a.resource, verb: ocf.Monitor}, ocf.Success)
		}
	}
}

// told is an attribute's change that arrives.
func (n *node) told(of *node, name string, a attribute) {
	c := n.pcmk
	if c == nil || of.pcmk == nil || !slices.Contains(n.view, of) {
		return
	}
	if c.attrs[of.name] == nil {
		c.attrs[of.name] = attributeSet{}
	}
	if was := c.attrs[of.name][name]; was.seq < a.seq || !was.known() {
		c.attrs[of.name][name] = a
		n.w.say("%s learns that %s of %s is %q", n.name, name, of.name, a.value)
		if c.leads && (was.value != a.value || was.gone != a.gone) {
			c.poke()
		}
	}
}
