package sim

import "time"

const links = 2

// network is the links between the nodes. Everything goes by them: heartbeats, acks, Raft, calls.
type network struct {
	w      *World
	rough  bool            // some fault is on: else all messages take the short way
	blocks map[[3]int]bool // from, to, link: nothing arrives
	ours   map[[2]int]bool // from, to: nothing of keepone's arrives, all else does
	down   map[[2]int]bool // node, link
	loss   map[int]float64 // of a node's datagrams, both ways
	delay  map[int]time.Duration
	twice  map[int]float64
	mixed  map[int]time.Duration // how far datagrams overtake each other
}

func newNetwork(w *World) *network {
	n := &network{w: w}
	n.heal()
	return n
}

// heal mends everything.
func (t *network) heal() {
	t.rough = false
	t.ours = map[[2]int]bool{}
	t.blocks, t.down = map[[3]int]bool{}, map[[2]int]bool{}
	t.loss, t.delay = map[int]float64{}, map[int]time.Duration{}
	t.twice, t.mixed = map[int]float64{}, map[int]time.Duration{}
}

// carries reports whether what a sends on the link arrives at b.
func (t *network) carries(a, b *node, link int) bool {
	if !t.rough || a == b {
		return true
	}
	return !t.ours[[2]int{a.id, b.id}] && t.lies(a, b, link)
}

// lies reports whether the link carries anything at all from a to b.
func (t *network) lies(a, b *node, link int) bool {
	return !t.down[[2]int{a.id, link}] && !t.down[[2]int{b.id, link}] && !t.blocks[[3]int{a.id, b.id, link}]
}

// connected reports whether a connection between a and b lives: both ways on one link, both ends powered and not paused.
func (t *network) connected(a, b *node) bool {
	if !a.answers() || !b.answers() {
		return false
	}
	if !t.rough || a == b {
		return true
	}
	if t.loss[a.id]+t.loss[b.id] > 0.9 {
		return false
	}
	for link := range links {
		if t.carries(a, b, link) && t.carries(b, a, link) {
			return true
		}
	}
	return false
}

// latency of one way of a connection; what is lost is sent again after a while.
func (t *network) latency(a, b *node) time.Duration {
	d := t.w.between(100*time.Microsecond, 400*time.Microsecond)
	if t.rough {
		d += t.delay[a.id] + t.delay[b.id]
		for range 4 {
			if t.w.chance(t.loss[a.id] + t.loss[b.id]) {
				d += t.w.between(100*time.Millisecond, 300*time.Millisecond)
			}
		}
	}
	return a.takes(d)
}

// datagram delivers on each link that carries it, 0 to 2 times each; receive runs on b.
func (t *network) datagram(a, b *node, receive func(link int)) {
	if !t.rough || a == b {
		t.w.on(b, t.w.between(100*time.Microsecond, 400*time.Microsecond), func() { receive(0) })
		return
	}
	for link := range links {
		copies := 1
		if t.w.chance(t.twice[a.id] + t.twice[b.id]) {
			copies = 2
		}
		for range copies {
			if !t.carries(a, b, link) || t.w.chance(t.loss[a.id]+t.loss[b.id]) {
				continue
			}
			d := t.w.between(100*time.Microsecond, 400*time.Microsecond) + t.delay[a.id] + t.delay[b.id]
			d += t.w.between(0, t.mixed[a.id]+t.mixed[b.id])
			t.w.on(b, d, func() { receive(link) })
		}
	}
}

// changed says that something of the network has changed: connections may have ended or come back.
func (t *network) changed() {
	t.w.raft.reconsider()
	if t.w.ring != nil {
		t.w.ring.changed()
	}
}

// reachesCeph reports whether a node's links lead to Ceph, which is reached over any of them.
func (t *network) reachesCeph(n *node) bool {
	return !t.rough || !t.down[[2]int{n.id, 0}] || !t.down[[2]int{n.id, 1}]
}
