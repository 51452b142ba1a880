package sim

import (
	"fmt"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/worker"
)

const (
	objects      = 4                // of an image, each on an OSD of its own
	watchTimeout = 30 * time.Second // of a client that has died
	cephTimeout  = 5 * time.Second  // of an operation of a control connection
)

// ceph is mons, OSDs and the images on them. A lock stops nobody's writes; the blocklist does, on each OSD as soon as
// that knows the map that has it, from another OSD or from a client that comes with it.
type ceph struct {
	w         *World
	images    []*image
	osdmap    uint64
	blocklist map[string]uint64 // address → osdmap epoch that brought it
	nonce     int
	away      bool // by a fault
	slow      time.Duration
	refuses   bool          // the keyring may not blocklist
	late      time.Duration // how long a map may take to reach an OSD
	stall     time.Duration // no commit of the mons until then
	quorum    bool          // of the mons, where they are on the nodes
	blocked   [objects]time.Duration
}

// image is one RBD image.
type image struct {
	w        *World
	epoch    core.Epoch
	owner    string
	watchers []*watcher
	lingers  time.Duration // the blocklist takes a watch away only so much later
	objects  [objects]object
	writes   uint64
}

type watcher struct {
	address string
	until   time.Duration // 0: its client lives
	banned  bool
}

// object is one RADOS object and what its OSD knows.
type object struct {
	osdmap  uint64
	value   write
	acked   uint64     // the newest write that a client was told is durable
	touched core.Epoch // the highest that has read or written it
}

// write is a write on its way or landed.
type write struct {
	seq   uint64
	epoch core.Epoch
	by    string
}

func newCeph(w *World) *ceph {
	return &ceph{w: w, osdmap: 1, quorum: true, blocklist: map[string]uint64{}}
}

func newImage(w *World) *image { return &image{w: w} }

// changed looks at the nodes that carry mons and OSDs.
func (c *ceph) changed() {
	if !c.w.shape.Converged {
		return
	}
	mons, up := min(len(c.w.nodes), 5)|1, 0
	if mons > len(c.w.nodes) {
		mons -= 2
	}
	for i, n := range c.w.nodes {
		if n.alive() && i < mons {
			up++
		}
	}
	was := c.quorum
	c.quorum = up > mons/2
	if c.quorum && !was || up < mons {
		c.stall = max(c.stall, c.w.now+c.w.between(0, 3*time.Second))
	}
	for k := range c.blocked {
		if home := c.w.nodes[k%len(c.w.nodes)]; !home.alive() {
			c.blocked[k] = max(c.blocked[k], c.w.now+c.w.between(0, 5*time.Second))
		}
	}
}

func (c *ceph) answers() bool { return !c.away && c.quorum }

// ask is one operation of a control connection; commit: of the mons.
func (c *ceph) ask(p *process, s *span, commit bool) error {
	limit := c.w.now + cephTimeout
	if err := c.wait(p, s, c.w.between(200*time.Microsecond, time.Millisecond)+c.w.between(0, c.slow)); err != nil {
		return err
	}
	for !c.answers() || commit && c.stall > c.w.now {
		if c.w.now >= limit {
			return &worker.Failure{Code: worker.CodeCephAway, Message: "Ceph does not answer"}
		}
		if err := c.wait(p, s, 100*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

func (c *ceph) wait(p *process, s *span, d time.Duration) error {
	if s == nil {
		p.sleep(d)
		return nil
	}
	return hand{p, s}.Pause(s, d)
}

// ban puts addresses on the blocklist, and has the OSDs learn of it.
func (c *ceph) ban(addresses []string) uint64 {
	c.osdmap++
	for _, a := range addresses {
		if c.blocklist[a] == 0 {
			c.blocklist[a] = c.osdmap
		}
	}
	epoch := c.osdmap
	for _, img := range c.images {
		for k := range img.objects {
			c.w.at(c.w.between(time.Millisecond, 50*time.Millisecond+c.late), func() {
				img.objects[k].osdmap = max(img.objects[k].osdmap, epoch)
			})
		}
	}
	return epoch
}

// banned reports whether the address is on the blocklist that the mons have.
func (c *ceph) banned(address string) bool { return c.blocklist[address] > 0 }

// client is a data client: the mapping of one holder.
type client struct {
	n       *node
	img     *image
	address string
	osdmap  uint64
	epoch   core.Epoch
	locked  bool // as it believes itself
	cut     bool // it has been told so
	alive   bool
	flying  int // writes on their way
}

// open makes a data client, which watches the image.
func (c *ceph) open(n *node, img *image, epoch core.Epoch) *client {
	c.nonce++
	cl := &client{n: n, img: img, address: fmt.Sprintf("%s:0/%d", linkAddr(n.id, 0), c.nonce), osdmap: c.osdmap, epoch: epoch, alive: true}
	img.watchers = append(img.watchers, &watcher{address: cl.address})
	return cl
}

// vanish is the end of a client's process without a word: watch and lock stay.
func (cl *client) vanish() {
	if cl == nil || !cl.alive {
		return
	}
	cl.alive = false
	for _, w := range cl.img.watchers {
		if w.address == cl.address && w.until == 0 {
			w.until = cl.n.w.now + watchTimeout
		}
	}
}

// close ends it cleanly.
func (cl *client) close() {
	cl.alive = false
	if cl.img.owner == cl.address {
		cl.img.owner = ""
	}
	for _, w := range cl.img.watchers {
		if w.address == cl.address {
			w.until = cl.n.w.now
		}
	}
}

// clients are who watches the image now.
func (img *image) clients() []string {
	c := img.w.ceph
	var seen []string
	kept := img.watchers[:0]
	for _, w := range img.watchers {
		if w.until != 0 && w.until <= img.w.now {
			continue
		}
		if c.banned(w.address) && !w.banned {
			w.banned, w.until = true, img.w.now+img.lingers
			if img.lingers == 0 {
				continue
			}
		}
		kept = append(kept, w)
		seen = append(seen, w.address)
	}
	img.watchers = kept
	return seen
}

// reach is an operation of a client on an object: the OSD takes the newer map of the two, and knows the banned.
func (cl *client) reach(k int) bool {
	c := cl.n.w.ceph
	o := &cl.img.objects[k]
	o.osdmap = max(o.osdmap, cl.osdmap)
	if at := c.blocklist[cl.address]; at > 0 && o.osdmap >= at {
		cl.cut = true
		return false
	}
	return true
}

// read reads an object: what was acknowledged must be there (I8).
func (cl *client) read(k int) bool {
	if !cl.reach(k) {
		return false
	}
	o := &cl.img.objects[k]
	cl.n.w.checks.reads(cl, k, o)
	o.touched = max(o.touched, cl.epoch)
	return true
}

// write sends a write on its way. Whatever becomes of the node, it may land.
func (cl *client) write(k int) {
	w := cl.n.w
	cl.img.writes++
	v := write{seq: cl.img.writes, epoch: cl.epoch, by: cl.address}
	cl.flying++
	w.at(w.between(300*time.Microsecond, 3*time.Millisecond)+w.between(0, w.ceph.slow)+w.net.delay[cl.n.id], func() { cl.land(k, v) })
}

func (cl *client) land(k int, v write) {
	w := cl.n.w
	if !w.ceph.answers() || w.ceph.blocked[k] > w.now || !w.net.reachesCeph(cl.n) {
		if cl.alive { // it is sent again; what was sent by who died is lost
			w.at(w.between(80*time.Millisecond, 120*time.Millisecond), func() { cl.land(k, v) })
		}
		return
	}
	cl.flying--
	o := &cl.img.objects[k]
	if !cl.reach(k) || (o.value.by == v.by && o.value.seq > v.seq) {
		return
	}
	w.checks.lands(cl, k, o, v)
	o.value, o.touched = v, max(o.touched, v.epoch)
	w.on(cl.n, w.between(100*time.Microsecond, time.Millisecond), func() {
		if cl.alive && !cl.cut {
			o.acked = max(o.acked, v.seq)
		}
	})
}
