package core

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// machine is one node: what survives a daemon's death, and what only survives until power is cut.
type machine struct {
	name      NodeName
	power     bool
	paused    bool // every process of it is stopped, as by a hang; power is on
	bmc       bool // its BMC answers
	capless   bool // its Ceph key may not blocklist
	deaf      bool // its BMC takes an order of power-off, and does nothing
	slow      bool // its BMC takes longer than an attempt to carry it out
	falls     Time // when it goes off, ordered before; zero: never
	daemon    bool
	links     [2]bool
	boots     int
	ready     Time // when its daemon has spoken first
	known     State
	leases    map[ServiceName]lease
	leaseless Time // maintenance: no lease is enforced until then
	runs      map[ServiceName]*activation
	jobs      map[uint64]job
	sick      map[ServiceName]bool // the container dies soon after each start
	torn      map[ServiceName]bool // the file system can't be mounted
	stuck     map[ServiceName]bool // a release is never answered
	dirty     map[ServiceName]bool // a release ends contained, not vacated
	claims    map[ServiceName]Stage
	buried    map[ServiceName]Epoch // stopped here by the cluster manager's hand
}

// job is one fence attempt being carried out.
type job struct {
	attempt int
	begun   Time
	done    bool
	shot    bool
}

// activation is what the kernel has of a service.
type activation struct {
	epoch   Epoch
	run     int
	address string // of the storage client, empty: not mapped
	stage   stage
	begun   Time
	due     Time
	marked  Time // of the stage before, for phases
	storage time.Duration
	start   time.Duration
	kept    bool // the volume stays without the container: a cluster manager orders them apart
	ended   bool // the cluster manager stopped the container
	soiled  bool // the cluster manager stopped it, and it could not be vacated
}

type stage string

const (
	stageOpen    stage = "open"    // checks before the lock
	stageMapped  stage = "mapped"  // the lock is ours
	stageMount   stage = "mount"   // the client is committed
	stageBoot    stage = "boot"    // mounted, the container starts
	stageProbe   stage = "probe"   // the container runs
	stageServing stage = "serving" // it answers
	stageKept    stage = "kept"    // mapped, as far as a cluster manager wants it
	stageDead    stage = "dead"    // no process is left; mounted
	stageEnding  stage = "ending"  // unmounting
)

// up reports whether the container runs.
func (a *activation) up() bool { return a.stage == stageProbe || a.stage == stageServing }

func newMachine(name NodeName) *machine {
	m := &machine{
		name: name, power: true, bmc: true, daemon: true, links: [2]bool{true, true}, boots: 1,
		sick: map[ServiceName]bool{}, torn: map[ServiceName]bool{}, stuck: map[ServiceName]bool{}, dirty: map[ServiceName]bool{},
	}
	m.forget()
	return m
}

// forget is what a power cut does.
func (m *machine) forget() {
	m.leases, m.runs, m.jobs = map[ServiceName]lease{}, map[ServiceName]*activation{}, map[uint64]job{}
	m.claims, m.buried = map[ServiceName]Stage{}, map[ServiceName]Epoch{}
	m.leaseless, m.known, m.paused = 0, State{}, false
}

func (m *machine) instance() Instance { return Instance(fmt.Sprintf("%s%d", m.name, m.boots)) }

func (m *machine) alive() bool { return m.power && !m.paused }

// shoot is an order of power-off, as the BMC carries it out.
func (m *machine) shoot(now Time) {
	switch {
	case m.deaf:
	case !m.slow:
		m.cut()
	case m.falls == 0:
		m.falls = now.Add(6 * time.Second)
	}
}

// fall goes off if that was ordered long enough ago.
func (m *machine) fall(now Time) {
	if m.falls != 0 && now >= m.falls {
		m.cut()
	}
}

func (m *machine) cut() {
	m.power, m.falls = false, 0
	m.forget()
}

func (m *machine) boot(now Time) {
	if !m.power {
		m.power, m.daemon = true, true
		m.boots++
		m.ready = now.Add(time.Second)
	}
}

// contain is the guard's: at the end of a lease the container is killed, whatever else lives (I5).
func (m *machine) contain(now Time) {
	for name, a := range m.runs {
		if l := m.leases[name]; a.up() && now >= m.leaseless && (l.epoch != a.epoch || now > l.at) {
			a.stage = stageDead
		}
	}
}

func (m *machine) leased(name ServiceName, epoch Epoch, now Time) bool {
	l := m.leases[name]
	return l.epoch == epoch && now <= l.at
}

// report is what its daemon tells the leader.
func (m *machine) report(w *world) *Report {
	r := &Report{Instance: m.instance(), Ready: map[ServiceName]Ready{}, BMCs: map[NodeName]string{}, Claims: maps.Clone(m.claims)}
	for _, name := range slices.Sorted(maps.Keys(w.images)) {
		if a := m.runs[name]; a != nil {
			r.Holds = append(r.Holds, Target{Service: name, Epoch: a.epoch})
		}
		ready := Ready{OK: true, Cuts: true, Epoch: w.images[name].epoch}
		switch {
		case !w.ceph:
			ready = Ready{Reason: "Ceph does not answer"}
		case m.capless:
			ready = Ready{Reason: "its key may not blocklist", Epoch: ready.Epoch}
		}
		r.Ready[name] = ready
	}
	for _, name := range w.names {
		switch {
		case name == m.name:
		case w.nodes[name].bmc:
			r.BMCs[name] = ""
		default:
			r.BMCs[name] = "the BMC does not answer"
		}
	}
	return r
}

// learn brings the committed State to the node.
func (m *machine) learn(w *world) {
	if w.leader != "" && w.reaches(m.name, w.leader) {
		m.known = w.state
	}
}

// work lets the daemon do what the committed State asks for.
func (m *machine) work(w *world) {
	for _, name := range slices.Sorted(maps.Keys(w.images)) {
		svc := m.known.Services[name]
		mine := svc.Grant != nil && svc.Grant.Instance == m.instance()
		switch a := m.runs[name]; {
		case a != nil && (!mine || svc.Grant.Epoch != a.epoch):
			m.end(w, name, a)
		case !mine:
		case a == nil && (svc.Grant.Phase == PhaseReleasing && !m.stuck[name] || m.given(svc)):
			w.propose(m, &Vacated{Service: name, Epoch: svc.Grant.Epoch, Instance: m.instance()})
		case a == nil && svc.Grant.Phase == PhaseStarting && m.leased(name, svc.Grant.Epoch, w.now):
			m.runs[name] = &activation{
				epoch: svc.Grant.Epoch, run: svc.Grant.Run, stage: stageOpen, begun: w.now, marked: w.now, due: w.now.Add(w.jitter(200 * time.Millisecond)),
			}
		case a != nil:
			m.advance(w, svc, a)
		}
	}
	for _, f := range m.known.Fences {
		if f.State == FenceRequested && f.Executor == m.name {
			m.fence(w, f)
		}
	}
}

// advance brings one activation forward, or takes it down if it was told to.
func (m *machine) advance(w *world, svc Service, a *activation) {
	g := svc.Grant
	switch {
	case g.Phase == PhaseReleasing:
		m.release(w, svc, a)
	case g.Phase == PhaseContained:
		a.stage = stageDead
	case m.known.managed() && m.obey(w, svc, a):
	case a.stage == stageDead && (a.address == "" || g.Phase == PhaseStarting && g.Run == a.run && g.Clients == nil):
		m.abandon(w, svc.Name, a, "lease lost on the way")
	case a.stage == stageDead && g.Run == a.run:
		w.propose(m, &RunFailed{Service: svc.Name, Epoch: a.epoch, Instance: m.instance(), Run: a.run, Reason: "its container ended"})
	case a.stage == stageDead && g.Run > a.run && g.Phase == PhaseStarting, a.up() && g.Run > a.run:
		if m.leased(svc.Name, a.epoch, w.now) {
			a.run, a.stage, a.begun, a.marked, a.due = g.Run, stageBoot, w.now, w.now, w.now.Add(w.jitter(200*time.Millisecond))
		}
	case w.now >= a.due && a.stage != stageDead:
		m.station(w, svc, a)
	}
}

// station is the next step of an activation.
func (m *machine) station(w *world, svc Service, a *activation) {
	img, g := w.images[svc.Name], svc.Grant
	next := func(s stage, d time.Duration) { a.stage, a.due = s, w.now.Add(w.jitter(d)) }
	live := m.leased(svc.Name, a.epoch, w.now)
	switch {
	case a.stage == stageServing || a.stage == stageKept:
	case a.kept && !live && a.stage == stageBoot:
		a.stage = stageDead
	case w.now.Sub(a.begun) > m.known.Spec.Service(svc.Name).StartLimit && a.stage != stageProbe:
		m.abandon(w, svc.Name, a, "not started within its bound")
	case !live && a.stage != stageProbe:
		m.abandon(w, svc.Name, a, "no lease")
	case a.stage == stageOpen && !w.ceph:
	case a.stage == stageOpen:
		m.acquire(w, svc, a)
	case a.stage == stageMapped:
		ok, err := w.propose(m, &CommitClient{Service: svc.Name, Epoch: a.epoch, Instance: m.instance(), Address: a.address})
		if err != nil {
			m.abandon(w, svc.Name, a, err.Error())
		} else if ok && g.Stage == StagePromoted {
			a.kept = true
			next(stageKept, 50*time.Millisecond)
		} else if ok {
			next(stageMount, 100*time.Millisecond)
		}
	case a.stage == stageMount && (m.torn[svc.Name] || img.blocked[a.address]):
		m.abandon(w, svc.Name, a, "mount: input/output error")
	case a.stage == stageMount:
		a.storage, a.marked = w.now.Sub(a.begun), w.now
		next(stageBoot, 200*time.Millisecond)
	case a.stage == stageBoot:
		a.start, a.marked = w.now.Sub(a.marked), w.now
		next(stageProbe, 100*time.Millisecond)
	case a.stage == stageProbe && (m.sick[svc.Name] || img.blocked[a.address]):
		a.stage = stageDead
	case a.stage == stageProbe:
		ok, err := w.propose(m, &Started{
			Service: svc.Name, Epoch: a.epoch, Instance: m.instance(), Run: a.run,
			Storage: a.storage, Start: a.start, Probe: w.now.Sub(a.marked),
		})
		if ok && err == nil {
			a.stage = stageServing
		}
	}
}

// acquire cuts off what was left uncut and takes the lock, in the order of the design.
func (m *machine) acquire(w *world, svc Service, a *activation) {
	img := w.images[svc.Name]
	for _, c := range svc.Uncut {
		img.cut(c.Node, c.Addresses)
	}
	switch {
	case img.epoch > a.epoch:
		m.abandon(w, svc.Name, a, fmt.Sprintf("the image carries epoch %d", img.epoch))
	case img.owner != "":
		m.abandon(w, svc.Name, a, "the image is locked by "+img.owner)
	default:
		w.nonce++
		a.address = fmt.Sprintf("%s:%d", m.name, w.nonce)
		img.owner, img.epoch, a.stage, a.due = a.address, a.epoch, stageMapped, w.now.Add(w.jitter(100*time.Millisecond))
	}
}

// cut blocklists addresses and any owner from the node, and breaks its lock.
func (img *image) cut(node NodeName, addresses []string) {
	for _, address := range addresses {
		img.blocked[address] = true
	}
	if strings.HasPrefix(img.owner, string(node)+":") {
		img.blocked[img.owner] = true
		img.owner = ""
	}
}

// release stops and vacates, within its bounds.
func (m *machine) release(w *world, svc Service, a *activation) {
	switch {
	case m.stuck[svc.Name]:
	case a.stage != stageEnding:
		a.stage, a.due = stageEnding, w.now.Add(w.jitter(500*time.Millisecond))
	case w.now < a.due:
	case m.dirty[svc.Name] || !w.ceph || w.images[svc.Name].blocked[a.address]:
		w.propose(m, &Contained{Service: svc.Name, Epoch: a.epoch, Instance: m.instance(), Reason: "unmount: input/output error"})
	default:
		m.unmap(w, svc.Name, a)
	}
}

// abandon ends a failed activation: vacated if nothing went wrong on the way, else contained.
func (m *machine) abandon(w *world, name ServiceName, a *activation, why string) {
	if a.address != "" && (!w.ceph || w.images[name].blocked[a.address]) {
		a.stage = stageDead
		w.propose(m, &Contained{Service: name, Epoch: a.epoch, Instance: m.instance(), Reason: why})
		return
	}
	a.stage = stageDead
	if ok, err := w.propose(m, &Vacated{Service: name, Epoch: a.epoch, Instance: m.instance(), Failure: why}); ok && err == nil {
		m.unmap(w, name, a)
	}
}

// end takes down what no grant covers any more.
func (m *machine) end(w *world, name ServiceName, a *activation) {
	if a.stage != stageEnding {
		a.stage, a.due = stageEnding, w.now.Add(w.jitter(200*time.Millisecond))
	}
	if w.now >= a.due {
		m.unmap(w, name, a)
	}
}

func (m *machine) unmap(w *world, name ServiceName, a *activation) {
	if img := w.images[name]; img.owner == a.address {
		img.owner = ""
	}
	delete(m.runs, name)
}

// fence carries out one attempt: storage, readings of power, and power-off last.
func (m *machine) fence(w *world, f Fence) {
	j := m.jobs[f.ID]
	if j.attempt != f.Attempt {
		j = job{attempt: f.Attempt, begun: w.now}
	}
	defer func() { m.jobs[f.ID] = j }()
	age, target := w.now.Sub(j.begun), w.nodes[f.Node]
	if age < 200*time.Millisecond || j.done {
		return
	}
	for _, t := range f.Targets {
		proven := slices.ContainsFunc(f.Proofs, func(p Proof) bool { return p.Service == t.Service && p.Epoch == t.Epoch })
		if t.LeaseOver && w.ceph && !m.capless && !proven {
			m.cutOff(w, f, t)
		}
	}
	off := target.bmc && !target.power && target.instance() == f.Instance &&
		!slices.ContainsFunc(f.Proofs, func(p Proof) bool { return p.Kind == ProofBMCOff })
	switch {
	case off && age >= 500*time.Millisecond:
		w.propose(m, &AddProof{Fence: f.ID, Proof: Proof{Kind: ProofBMCOff, Instance: f.Instance, By: string(m.name), Reading: "off, and off again"}})
	case f.Shoot && target.bmc && target.power && age >= time.Second && !j.shot:
		if target.instance() != f.Instance && w.state.Nodes[f.Node].Instance != f.Instance {
			w.breaks("fence %d of %s shoots %s", f.ID, f.Instance, target.instance())
		}
		target.shoot(w.now)
		j.shot = true
	case age >= 4*time.Second:
		ok, err := w.propose(m, &EndAttempt{Fence: f.ID, Attempt: f.Attempt, Note: m.fenceNote(w, f)})
		j.done = ok && err == nil
	}
}

func (m *machine) cutOff(w *world, f Fence, t Target) {
	img := w.images[t.Service]
	var addresses []string
	if g := m.known.Services[t.Service].Grant; g != nil && g.Epoch == t.Epoch {
		addresses = g.Clients
	}
	img.cut(f.Node, addresses)
	img.epoch = max(img.epoch, t.Epoch+1)
	w.propose(m, &AddProof{Fence: f.ID, Proof: Proof{
		Kind: ProofStorage, Instance: f.Instance, Service: t.Service, Epoch: t.Epoch, By: string(m.name), Reading: "clients cut off",
	}})
}

func (m *machine) fenceNote(w *world, f Fence) string {
	storage, bmc := "cut off", "on"
	if !w.ceph {
		storage = "Ceph does not answer"
	}
	if !w.nodes[f.Node].bmc {
		bmc = "does not answer"
	}
	return fmt.Sprintf("storage: %s; bmc: %s", storage, bmc)
}
