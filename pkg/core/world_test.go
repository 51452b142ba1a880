package core

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// world is a small cluster in virtual time: machines with guards, daemons and BMCs, links, a Ceph, and a
// leader that runs Decide. It knows the truth that State only claims, and checks the one against the other.
type world struct {
	state    State
	now      Time
	nodes    map[NodeName]*machine
	names    []NodeName
	images   map[ServiceName]*image
	ceph     bool
	leader   NodeName
	ledSince Time
	counts   Timing // the longest lease and margin of this leadership
	electAt  Time
	heard    map[NodeName]Time // by this leader
	acked    map[ServiceName]lease
	offSeen  map[NodeName]Time // since when the leader reads off
	nonce    int
	commands int // that Decide made
	broken   []string
	lines    []string
	printed  uint64
	serves   map[ServiceName]bool
	jitter   func(time.Duration) time.Duration
	manager  *manager // orders the services; nil: nobody does, or a script
}

// image is one RBD image: who owns its lock, who is blocklisted, which epoch it carries.
type image struct {
	epoch   Epoch
	owner   string
	blocked map[string]bool
}

// lease of a grant: until on a guard, acknowledged at on the leader.
type lease struct {
	epoch Epoch
	at    Time
}

const tick = 50 * time.Millisecond

// newWorld founds a cluster with everything well.
func newWorld(spec Spec) *world {
	w := &world{
		nodes: map[NodeName]*machine{}, images: map[ServiceName]*image{}, ceph: true, serves: map[ServiceName]bool{},
		jitter: func(d time.Duration) time.Duration { return d },
	}
	for _, svc := range spec.Services {
		w.images[svc.Name] = &image{blocked: map[string]bool{}}
	}
	must(w.commit("", Init{Cluster: "test", Spec: spec}))
	for _, n := range spec.Nodes {
		w.names = append(w.names, n.Name)
		w.nodes[n.Name] = newMachine(n.Name)
		id := string(n.Name)
		must(w.commit("", IssueToken{ID: id, Hash: id, Node: n.Name, For: time.Hour}))
		must(w.commit("", Join{Node: n.Name, Incarnation: "1", TokenID: id, TokenHash: id}))
	}
	w.lead(w.names[0])
	return w
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func (w *world) breaks(format string, args ...any) {
	w.broken = append(w.broken, fmt.Sprintf("%.2fs ", w.now.Seconds())+fmt.Sprintf(format, args...))
}

// Seconds of cluster time.
func (t Time) Seconds() float64 { return time.Duration(t).Seconds() }

// commit applies one entry and checks the step.
func (w *world) commit(by NodeName, c Command) error {
	e := Entry{At: w.now, By: by, Command: c}
	before := w.state
	is, err := Apply(before, e)
	if err != nil {
		return err
	}
	if broken := Check(before, e, is); broken != nil {
		w.breaks("%s %+v: %v", c.Kind(), c, broken)
	}
	w.state = is
	w.print()
	return nil
}

// propose is what a node's agent does: through the leader, if there is one that it reaches.
func (w *world) propose(m *machine, c Command) (delivered bool, err error) {
	if w.leader == "" || !w.reaches(m.name, w.leader) {
		return false, nil
	}
	if err := Authority(w.state, m.name, w.leader, c); err != nil {
		return true, err
	}
	return true, w.commit(m.name, c)
}

// reaches reports whether two machines hear each other on some link.
func (w *world) reaches(a, b NodeName) bool {
	m, n := w.nodes[a], w.nodes[b]
	if !m.alive() || !n.alive() {
		return false
	}
	return a == b || (m.links[0] && n.links[0]) || (m.links[1] && n.links[1])
}

// quorate reports whether a majority of the voters stands around the node.
func (w *world) quorate(name NodeName) bool {
	votes := 0
	for _, other := range w.voters() {
		if w.nodes[other].daemon && w.reaches(name, other) {
			votes++
		}
	}
	return w.nodes[name].daemon && votes > len(w.voters())/2
}

func (w *world) voters() []NodeName { return w.names[:min(len(w.names), 5)] }

func (w *world) lead(name NodeName) {
	w.leader, w.ledSince, w.counts = name, w.now, w.state.Spec.Timing
	w.heard, w.acked, w.offSeen = map[NodeName]Time{}, map[ServiceName]lease{}, map[NodeName]Time{}
}

// elect finds a leader after an election's time without one.
func (w *world) elect() {
	if w.leader != "" && w.quorate(w.leader) {
		return
	}
	if w.leader != "" {
		w.leader, w.electAt = "", w.now.Add(w.jitter(time.Second))
	}
	if w.now < w.electAt {
		return
	}
	for _, name := range w.voters() {
		if w.quorate(name) {
			w.lead(name)
			return
		}
	}
}

// step moves time by one tick.
func (w *world) step() {
	w.now = w.now.Add(tick)
	w.elect()
	for _, name := range w.names {
		w.nodes[name].fall(w.now)
		w.beat(w.nodes[name])
	}
	w.decide()
	for _, name := range w.names {
		if m := w.nodes[name]; m.alive() && m.daemon {
			m.learn(w)
			m.work(w)
		}
	}
	w.settle()
	if w.manager != nil {
		w.manager.order(w)
	}
	w.observe()
}

func (w *world) run(d time.Duration) {
	for end := w.now.Add(d); w.now < end && len(w.broken) == 0; {
		w.step()
	}
}

// beat is one heartbeat of a guard and the leader's acknowledgement of it.
func (w *world) beat(m *machine) {
	if !m.alive() {
		return
	}
	if w.leader != "" && w.reaches(m.name, w.leader) {
		w.heard[m.name] = w.now
		for _, t := range w.state.Leases(m.instance()) {
			m.leases[t.Service] = lease{t.Epoch, w.now.Add(w.state.Spec.Timing.Lease)}
			w.acked[t.Service] = lease{t.Epoch, w.now}
		}
		m.leaseless = 0
		if w.state.Maintenance.On && w.state.Maintenance.Accepted[m.name] == m.instance() {
			m.leaseless = w.state.Maintenance.End
		}
	}
	m.contain(w.now)
}

// view is what the leader sees.
func (w *world) view() View {
	v := View{Self: w.leader, Nodes: map[NodeName]NodeView{}, Voters: w.voters(), LeaseOver: map[ServiceName]Epoch{}}
	v.Settled = w.now.Sub(w.ledSince) >= 2*time.Second
	t := w.state.Spec.Timing
	for _, name := range w.names {
		v.Nodes[name] = w.viewOf(w.nodes[name])
	}
	if t.Lease > w.counts.Lease || t.LeaseMargin > w.counts.LeaseMargin {
		w.ledSince = w.now // leases of either length may have been acknowledged until now
		w.counts.Lease, w.counts.LeaseMargin = max(t.Lease, w.counts.Lease), max(t.LeaseMargin, w.counts.LeaseMargin)
	}
	for name, svc := range w.state.Services {
		last := w.ledSince
		if a := w.acked[name]; a.epoch == svc.Epoch {
			last = max(last, a.at)
		}
		if w.now.Sub(last) > w.counts.Lease+w.counts.LeaseMargin && !w.state.Renewed(name) {
			v.LeaseOver[name] = svc.Epoch
		}
	}
	return v
}

func (w *world) viewOf(m *machine) NodeView {
	t := w.state.Spec.Timing
	at, heard := w.heard[m.name]
	silent := w.now.Sub(max(at, w.ledSince))
	v := NodeView{Silent: silent, Instance: m.instance(), Daemon: m.daemon, Maintenance: m.leaseless > w.now}
	switch {
	case silent >= t.Down:
		v.Live = LiveDown
	case silent >= t.Suspect:
		v.Live = LiveSuspect
	case heard:
		v.Live = LiveOnline
	}
	if v.Live != LiveOnline {
		v.Instance, v.Daemon, v.Maintenance = w.state.Nodes[m.name].Instance, false, false
		v.Off = w.readOff(m, silent)
		return v
	}
	if m.daemon && w.now >= m.ready {
		v.Report = m.report(w)
	}
	return v
}

// readOff is the leader's own reading of a BMC while its node is silent.
func (w *world) readOff(m *machine, silent time.Duration) *Proof {
	if m.power || !m.bmc || silent < w.state.Spec.Timing.Suspect {
		delete(w.offSeen, m.name)
		return nil
	}
	since, ok := w.offSeen[m.name]
	if !ok {
		w.offSeen[m.name] = w.now
		return nil
	}
	if w.now.Sub(since) < w.state.Spec.Timing.OffReadings {
		return nil
	}
	return &Proof{Kind: ProofBMCOff, Instance: w.state.Nodes[m.name].Instance, By: string(w.leader), Reading: "off, and off again"}
}

// decide lets the leader decide, and checks that it has nothing more to say about the same.
func (w *world) decide() {
	if w.leader == "" {
		return
	}
	if to := PreferLeader(w.state, w.view()); to != "" && w.quorate(to) {
		w.lead(to)
		return
	}
	v := w.view()
	made := Decide(w.state, v, w.now)
	for _, c := range made {
		w.commands++
		if err := w.commit(w.leader, c); err != nil {
			w.breaks("decided %s %+v is refused: %v", c.Kind(), c, err)
		}
	}
	if again := Decide(w.state, v, w.now); len(again) > 0 {
		w.breaks("not quiet: after %d commands Decide still wants %s %+v", len(made), again[0].Kind(), again[0])
	}
	if err := Authority(w.state, w.leader, w.leader, Block{}); err != nil {
		w.breaks("the leader may not decide: %v", err)
	}
}

// observe compares the truth with what must hold, and notes who serves.
func (w *world) observe() {
	for _, name := range slices.Sorted(maps.Keys(w.images)) {
		var writers, runners, serving []string
		for _, node := range w.names {
			m := w.nodes[node]
			r := m.runs[name]
			if !m.power || r == nil {
				continue
			}
			if r.address != "" && !w.images[name].blocked[r.address] {
				writers = append(writers, fmt.Sprintf("%s@%d(%s)", node, r.epoch, r.stage))
			}
			if r.up() && !m.paused {
				runners = append(runners, fmt.Sprintf("%s@%d", node, r.epoch))
			}
			if r.stage == stageServing && !m.paused && (m.links[0] || m.links[1]) {
				serving = append(serving, string(node))
			}
		}
		if len(writers) > 1 {
			w.breaks("I6: %s can be written by %s", name, strings.Join(writers, " and "))
		}
		if len(runners) > 1 {
			w.breaks("I3: %s runs on %s", name, strings.Join(runners, " and "))
		}
		if was, is := w.serves[name], len(serving) > 0; was != is {
			w.serves[name] = is
			w.say("truth", fmt.Sprintf("%s %s", name, cmp.Or(strings.Join(serving, ","), "nobody")+" answers"))
		}
	}
}

func (w *world) say(kind, text string) {
	w.lines = append(w.lines, strings.TrimRight(fmt.Sprintf("%8.2fs %-11s %s", w.now.Seconds(), kind, text), " "))
}

// print appends new events to the timeline.
func (w *world) print() {
	for _, e := range w.state.History {
		if e.ID <= w.printed {
			continue
		}
		w.printed = e.ID
		w.say(string(e.Kind), eventLine(e))
		if p := e.Phases; p != nil {
			for _, d := range []time.Duration{p.Detect, p.Decide, p.Fence, p.Stop, p.Storage, p.Start, p.Probe} {
				if d < 0 || d > 10*time.Minute {
					w.breaks("absurd phases of %s: %+v", e.Reason, *p)
				}
			}
		}
	}
}

// eventLine is an event for people.
func eventLine(e Event) string {
	var b strings.Builder
	if e.Service != "" {
		fmt.Fprintf(&b, "%s ", e.Service)
	}
	if e.Epoch != 0 {
		fmt.Fprintf(&b, "@%d ", e.Epoch)
	}
	switch {
	case e.From != "" || e.To != "":
		fmt.Fprintf(&b, "%s→%s ", e.From, e.To)
	case e.Node != "":
		fmt.Fprintf(&b, "%s ", e.Node)
	}
	if e.Proof != "" {
		fmt.Fprintf(&b, "[%s] ", e.Proof)
	}
	b.WriteString(e.Reason)
	if p := e.Phases; p != nil {
		for _, part := range []struct {
			name string
			d    time.Duration
		}{
			{"detect", p.Detect},
			{"fence", p.Fence},
			{"stop", p.Stop},
			{"decide", p.Decide},
			{"storage", p.Storage},
			{"start", p.Start},
			{"probe", p.Probe},
		} {
			if part.d != 0 {
				fmt.Fprintf(&b, " %s=%s", part.name, part.d)
			}
		}
	}
	return b.String()
}
