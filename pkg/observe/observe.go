// Package observe turns raw facts (heartbeats, readings, reports) into what core.Decide sees: how long a node
// has been silent, which lives are suspect or down, which leases are surely over. It is kept by every node, so
// that a new leader already knows who fell silent; only the lease ledger starts anew with each leadership.
package observe

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/guard"
)

// reportFresh is how long a report speaks for its node: several of its intervals, and less than a lease.
const reportFresh = 2500 * time.Millisecond

// settleAfter is when a new leader has every report that it will get: each daemon sends one every half second, and
// may lose one to the change of leaders.
const settleAfter = 2 * time.Second

// maxPast bounds the memory of a node's ended lives; beyond it the oldest is forgotten.
const maxPast = 32

// Observer collects facts. Its methods may be called from any goroutine; time is always an argument.
type Observer struct {
	mu      sync.Mutex
	self    core.NodeName
	since   boottime.Time // listening since then: silence before it says nothing
	nodes   map[core.NodeName]*sight
	ledger  *guard.Ledger // nil while this node does not lead
	led     boottime.Time // since when it leads
	changed func()        // called, without the lock, when something new may matter to a decision
}

// sight is what was seen of one node.
type sight struct {
	heard    boottime.Time // newest heartbeat, any link
	links    map[int]boottime.Time
	beat     guard.Heartbeat
	past     []core.Instance // lives that another one has replaced, oldest first
	off      *core.Proof
	report   *core.Report
	reported boottime.Time
}

// New starts to listen at now. Changed is called when a fact may change a decision.
func New(self core.NodeName, now boottime.Time, changed func()) *Observer {
	return &Observer{self: self, since: now, nodes: map[core.NodeName]*sight{}, changed: changed}
}

func (o *Observer) sight(name core.NodeName) *sight {
	s, ok := o.nodes[name]
	if !ok {
		s = &sight{links: map[int]boottime.Time{}}
		o.nodes[name] = s
	}
	return s
}

// Heard takes a verified heartbeat. A reading of off is void from then on: the node lives. One of a life that another
// one has replaced is late or replayed: it says nothing.
func (o *Observer) Heard(a guard.Arrival) {
	o.mu.Lock()
	s := o.sight(a.Heartbeat.Node)
	if !s.lives(a.Heartbeat.Instance) {
		o.mu.Unlock()
		return
	}
	news := s.beat.Instance != a.Heartbeat.Instance || s.beat.Flags != a.Heartbeat.Flags ||
		s.beat.Watchdog != a.Heartbeat.Watchdog || a.At.Sub(s.heard) > time.Second
	if s.beat.Instance != a.Heartbeat.Instance || s.beat.Seq < a.Heartbeat.Seq { // the other link may be slower
		s.beat = a.Heartbeat
	}
	s.heard, s.links[a.Link], s.off = max(s.heard, a.At), max(s.links[a.Link], a.At), nil
	o.mu.Unlock()
	if news {
		o.changed()
	}
}

// lives reports whether a heartbeat of the instance speaks for the node, and remembers the life that it replaces.
func (s *sight) lives(instance core.Instance) bool {
	was := s.beat.Instance
	if was == instance {
		return true
	}
	if slices.Contains(s.past, instance) {
		return false
	}
	if was != "" {
		s.past = append(s.past, was)
		s.past = s.past[max(0, len(s.past)-maxPast):]
	}
	return true
}

// ReadOff takes a proof that a node's BMC said off. It is dropped if the node was heard since the reading began, or
// if it names another life than the one that was heard last; of a node that was never heard it names the committed one.
func (o *Observer) ReadOff(name core.NodeName, began boottime.Time, p core.Proof) {
	o.mu.Lock()
	s := o.sight(name)
	took := s.heard < began && (s.heard == 0 || s.beat.Instance == p.Instance)
	if took {
		s.off = &p
	}
	o.mu.Unlock()
	if took {
		o.changed()
	}
}

// Reported takes a node's report of itself.
func (o *Observer) Reported(name core.NodeName, now boottime.Time, r core.Report) {
	o.mu.Lock()
	s := o.sight(name)
	s.report, s.reported = &r, now
	o.mu.Unlock()
	o.changed()
}

// Lead starts the lease ledger at the leader's barrier.
func (o *Observer) Lead(barrier boottime.Time, t core.Timing) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ledger, o.led = guard.NewLedger(barrier, t.Lease, t.LeaseMargin), barrier
}

// Follow ends the ledger with the leadership.
func (o *Observer) Follow() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ledger = nil
}

// Acking notes, before an ack is sent, which rights it renews and when their heartbeat arrived (I5). False: this
// node does not lead, nothing may be acked.
func (o *Observer) Acking(rights []guard.Right, arrived boottime.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ledger == nil {
		return false
	}
	for _, r := range rights {
		o.ledger.Acked(r, arrived)
	}
	return true
}

// View is what the leader sees now.
func (o *Observer) View(state core.State, now boottime.Time, voters []core.NodeName) core.View {
	o.mu.Lock()
	defer o.mu.Unlock()
	v := core.View{Self: o.self, Voters: voters, Nodes: map[core.NodeName]core.NodeView{}, LeaseOver: map[core.ServiceName]core.Epoch{}}
	v.Settled = o.ledger != nil && now.Sub(o.led) >= settleAfter
	for name := range state.Nodes {
		v.Nodes[name] = o.node(name, now, state.Spec.Timing)
	}
	for name, svc := range state.Services {
		// I5: as long as state names the grant, an ack may be on its way that the ledger does not know of. Once it
		// does not, an ack is noted here before it is sent, and not sent if state has changed since.
		if svc.Grant == nil || o.ledger == nil || state.Renewed(name) {
			continue
		}
		if o.ledger.LeaseEnded(guard.Right{Service: name, Epoch: svc.Grant.Epoch}, now) {
			v.LeaseOver[name] = svc.Grant.Epoch
		}
	}
	return v
}

// node is the view of one node.
func (o *Observer) node(name core.NodeName, now boottime.Time, t core.Timing) core.NodeView {
	s, ok := o.nodes[name]
	if !ok {
		s = &sight{}
	}
	silent := now.Sub(max(s.heard, o.since))
	v := core.NodeView{
		Silent: silent, Instance: s.beat.Instance, Live: liveness(s.heard != 0, silent, t),
		Daemon:      s.beat.Flags&guard.DaemonHealthy != 0,
		Maintenance: s.beat.Flags&guard.MaintenanceAccepted != 0, Watchdog: s.beat.Watchdog,
	}
	if s.off != nil && v.Live != core.LiveOnline {
		off := *s.off
		v.Off = &off
	}
	if s.report != nil && now.Sub(s.reported) < reportFresh {
		r := *s.report
		r.Ready = maps.Clone(r.Ready)
		v.Report = &r
	}
	return v
}

// liveness of a node that has been silent for so long. One that was never heard is unknown until it could have
// been down; then it is down like any other.
func liveness(heard bool, silent time.Duration, t core.Timing) core.Liveness {
	switch {
	case silent >= t.Down:
		return core.LiveDown
	case !heard:
		return core.LiveUnknown
	case silent >= t.Suspect:
		return core.LiveSuspect
	}
	return core.LiveOnline
}

// Suspects are the nodes that are silent beyond the suspect bound: whose power is worth reading.
func (o *Observer) Suspects(state core.State, now boottime.Time) map[core.NodeName]core.Instance {
	o.mu.Lock()
	defer o.mu.Unlock()
	found := map[core.NodeName]core.Instance{}
	for name, node := range state.Nodes {
		if name == o.self {
			continue
		}
		v := o.node(name, now, state.Spec.Timing)
		if v.Live == core.LiveSuspect || v.Live == core.LiveDown {
			instance := v.Instance
			if instance == "" {
				instance = node.Instance
			}
			found[name] = instance
		}
	}
	return found
}

// Links says, for each of a node's links by number, how long it has been silent.
func (o *Observer) Links(name core.NodeName, now boottime.Time) map[int]time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	silent := map[int]time.Duration{}
	if s, ok := o.nodes[name]; ok {
		for link, at := range s.links {
			silent[link] = now.Sub(at)
		}
	}
	return silent
}

// Beat is the newest heartbeat of a node; false: never heard.
func (o *Observer) Beat(name core.NodeName) (guard.Heartbeat, boottime.Time, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s, ok := o.nodes[name]
	if !ok || s.heard == 0 {
		return guard.Heartbeat{}, 0, false
	}
	return s.beat, s.heard, true
}
