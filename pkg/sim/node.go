package sim

import (
	"fmt"
	"time"

	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/core"
)

// node is one machine: its power, its clock, what its kernel has of services, and the two programs on it.
type node struct {
	w       *World
	id      int
	name    core.NodeName
	witness bool
	power   bool
	paused  bool    // no process of it runs; power is on
	frozen  []event // what waits for the end of the pause
	boots   int
	life    core.Instance
	clock   localClock
	slow    float64 // all takes so many times as long; 0: as it should
	guard   *guardian
	daemon  *daemon
	disk    disk
	bmc     *bmc
	here    []*holding // by service
	wrong   wrongs
	memory  []byte        // guard.leases, of this life
	wall    time.Duration // how far the wall clock is off
	older   bool          // its daemon is of an older version
	out     bool          // no member now: its daemon stays down
	tamed   time.Duration // when what kept its guard from containing ended
	armed   bool          // its watchdog runs
	petted  time.Duration // last
	bites   int

	agents program           // what Pacemaker's executor runs here
	pcmk   *pacemaker        // nil: it does not run
	view   []*node           // corosync's membership as it sees it; nil: corosync does not run
	kept   map[string][]byte // what resource agents remember
	links  map[string]string // to block devices
	acting []*process        // agents at work
	cib    *conf             // Pacemaker's configuration, on disk
	stays  bool              // Pacemaker is stopped by an operator
	asked  []byte            // what agents asked the daemon to publish
}

// wrongs are faults of a node that nothing but the faults themselves change.
type wrongs struct {
	container containerFault
	unmount   bool    // an unmount hangs
	diskFull  bool    // the daemon can't write its log
	leases    bool    // guard.leases can't be written
	agents    bool    // a resource agent that is begun hangs until its timeout
	attrdLost float64 // how many updates of attributes are lost
	attrdLate time.Duration
}

type containerFault struct {
	stubborn bool // does not shut down when asked
	undying  bool // not even a kill ends it, for now
	failing  bool // its start fails half way
	sick     bool // never answers
}

// localClock is CLOCK_BOOTTIME: it runs on through pauses and suspends, a little fast or slow.
type localClock struct {
	since time.Duration // true time of the last change of rate
	read  boottime.Time // then
	ppm   int64
}

func newNode(w *World, id int, spec core.NodeSpec) *node {
	n := &node{w: w, id: id, name: spec.Name, witness: spec.Witness, power: true, boots: 1}
	n.bmc = newBMC(n)
	n.forget()
	return n
}

// forget is what the end of power does, and begins another life.
func (n *node) forget() {
	n.life = core.Instance(fmt.Sprintf("%s/%d", n.name, n.boots))
	n.clock = localClock{since: n.w.now, read: boottime.Time(10 * time.Second), ppm: n.clock.ppm}
	n.memory, n.armed = nil, false
	n.agents.n, n.view, n.asked = n, nil, nil
	n.kept, n.links = map[string][]byte{}, map[string]string{}
	n.here, n.frozen, n.paused = make([]*holding, n.w.shape.Services), nil, false
	for i := range n.here {
		n.here[i] = &holding{n: n, index: i, name: service(i)}
	}
}

func (n *node) alive() bool { return n.power && !n.paused }

// answers reports whether connections to it get anywhere.
func (n *node) answers() bool { return n.alive() && (n.daemon == nil || !n.daemon.hung) }

// read reads the node's CLOCK_BOOTTIME.
func (n *node) read() boottime.Time {
	passed := n.w.now - n.clock.since
	return n.clock.read.Add(passed + passed/1000*time.Duration(n.clock.ppm)/1000)
}

// setRate changes how fast the clock runs from now on.
func (n *node) setRate(ppm int64) { n.clock = localClock{since: n.w.now, read: n.read(), ppm: ppm} }

// takes is how long something of that length takes here.
func (n *node) takes(d time.Duration) time.Duration {
	if n.slow > 1 {
		return time.Duration(float64(d) * n.slow)
	}
	return d
}

// cut ends power: all but the disk and the BMC is gone.
func (n *node) cut() {
	if !n.power {
		return
	}
	n.w.say("power of %s is cut", n.name)
	n.endDaemon()
	n.guard = nil
	n.agents.end()
	n.endPacemaker()
	n.power = false
	n.disk.lose(n)
	for _, h := range n.here {
		h.client.vanish()
	}
	n.forget()
	n.w.ceph.changed()
	n.w.net.changed()
}

// boot begins another life.
func (n *node) boot() {
	if n.power {
		return
	}
	n.power = true
	n.boots++
	n.forget()
	n.w.say("%s boots as %s", n.name, n.life)
	n.startGuard()
	n.w.on(n, n.w.between(500*time.Millisecond, 2*time.Second), n.startDaemon)
	n.w.on(n, n.w.between(20*time.Second, 30*time.Second), n.startPacemaker) // managed.Fencing takes it that none comes sooner
	n.w.ceph.changed()
	n.w.net.changed()
}

// pause stops every process, as a hang, a suspend or a paused virtual machine does.
func (n *node) pause() {
	if n.alive() {
		n.w.say("%s is paused", n.name)
		n.paused = true
		n.w.ceph.changed()
		n.w.net.changed()
	}
}

// resume lets all go on: what waited happens now, in its order, once the guard has looked at its deadlines.
func (n *node) resume() {
	if !n.power || !n.paused {
		return
	}
	n.w.say("%s goes on", n.name)
	n.tamed = n.w.now
	n.paused = false
	waited := n.frozen
	n.frozen = nil
	if n.guard != nil {
		n.guard.expire()
	}
	for _, e := range waited {
		n.w.queue.push(event{at: n.w.now, node: n, life: e.life, do: e.do})
	}
	n.w.ceph.changed()
	n.w.net.changed()
}
