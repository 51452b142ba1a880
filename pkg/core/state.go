package core

import "time"

// State is what the cluster has committed. It is a value: Apply returns a new one and leaves the old one as it
// was, so a State may be read by anybody, at any time, without a lock. Maps and slices in it are never written.
type State struct {
	Cluster     string // the cluster's id, drawn at init
	Now         Time   // the highest At that was applied
	Spec        Spec
	Document    Document
	Nodes       map[NodeName]Node
	Services    map[ServiceName]Service
	Fences      []Fence   // open ones and the newest closed ones, oldest first
	Requests    []Request // likewise
	Maintenance Maintenance
	Tokens      map[string]Token
	History     []Event // bounded, oldest first
	NextID      uint64  // of fences, requests and events
}

// Token lets one node join, once.
type Token struct {
	Hash    string
	Node    NodeName
	Expires Time
}

// Document is the cluster document that Spec was read from.
type Document struct {
	Text    string // TOML, passwords sealed
	Digest  string
	Version uint64 // rises with every change
}

// Node is a member.
type Node struct {
	Name        NodeName
	Incarnation string // drawn at join: an empty disk rejoins as a newcomer
	PublicKey   []byte // X25519, for the heartbeats' pairwise keys
	Instance    Instance
	Life        Life
	Since       Time   // of Life
	Heard       Time   // last heartbeat before it fell silent; zero: it has not since it was online
	Reason      string // of Life, in words
	Standby     bool   // drained: hosts nothing
}

// Life is how a node lives.
type Life string

// The lives of a node, in the order in which they get worse.
const (
	LifeNew     Life = "new" // joined, never seen
	LifeOnline  Life = "online"
	LifeSuspect Life = "suspect"
	LifeDown    Life = "down"
	LifeFenced  Life = "fenced" // its instance is proven off
)

// Service is what is committed of one service.
type Service struct {
	Name       ServiceName
	Stopped    bool  // by an operator
	Epoch      Epoch // of the newest grant ever given
	Grant      *Grant
	LastHolder NodeName          // of the newest grant that was ever running
	Failures   []Failure         // within the restart window, oldest first
	NotBefore  Time              // back-off: no grant and no restart before
	Uncut      []Client          // clients of lost grants: the next holder cuts them off before it acquires
	From       Past              // how the last grant ended
	Blocked    string            // why nothing can be granted now, empty if it can; for people
	Avoid      map[NodeName]Time // passed over until then: failed there
	Move       *Move             // where an operator wants it, until done
}

// Grant is the committed right of one node instance to run the service at one epoch (I1).
type Grant struct {
	Node     NodeName
	Instance Instance
	Epoch    Epoch
	Phase    Phase
	Run      int      // rises with each restart in place
	Ran      bool     // answered its probes in some run
	Clients  []string // storage client addresses committed before the first write (I6)
	Cause    Cause    // why it was given
	Stage    Stage    // how far it is to be brought up
	Staged   bool     // volume and container come and go apart, as a cluster manager orders them
	Release  string   // reason, once release was ordered
	Times    Times
	Since    Time // of Phase
}

// Phase is how far a grant has come.
type Phase string

// The phases of a grant.
const (
	PhaseStarting  Phase = "starting"
	PhasePromoted  Phase = "promoted"  // its volume is mapped, its container does not run: a cluster manager wants no more
	PhaseRunning   Phase = "running"   // answered its probes
	PhaseFailed    Phase = "failed"    // the run failed; the leader decides what next
	PhaseReleasing Phase = "releasing" // ordered to stop and vacate
	PhaseContained Phase = "contained" // stopped, but not vacated: its clients need cutting off (I3)
)

// Stage is how far a holder brings a service up. A cluster manager may want less than all of it.
type Stage string

// The stages.
const (
	StageRunning  Stage = ""         // all of it: lock, mount, container
	StagePromoted Stage = "promoted" // lock held and volume mapped, nothing more
)

// Cause says why a grant was given.
type Cause string

// The causes of a grant.
const (
	CauseStart      Cause = "start"
	CauseSwitchover Cause = "switchover"
	CauseFailover   Cause = "failover"
	CauseRelocate   Cause = "relocate" // failed too often on the last holder
)

// Times are the stations on the way to one grant, for the phases of its event. Zero: was not passed.
type Times struct {
	Heard    Time // last heartbeat of the lost holder
	Ordered  Time // fence ordered, or evidence seen at suspicion
	Proven   Time // proof accepted
	Released Time // the last holder was told to stop
	Vacated  Time
	Granted  Time
	Promoted Time // its volume was mapped, and nothing more was wanted yet
	Raised   Time // and its container was last ordered to start, before it first answered
}

// Client is a storage client that may still live.
type Client struct {
	Node      NodeName
	Instance  Instance
	Epoch     Epoch
	Addresses []string
}

// Past is how a service's last grant ended: what the event of the next one tells.
type Past struct {
	Node  NodeName
	Cause Cause // what the next grant is given for
	Proof ProofKind
	Times Times
}

// Failure is one failed run.
type Failure struct {
	At     Time
	Node   NodeName
	Reason string
}

// Move is an operator's wish for a service.
type Move struct {
	To      NodeName // empty: anywhere but From
	From    NodeName
	Epoch   Epoch // of the grant that is to end
	Request uint64
	Lost    bool // failover: the operator says that the holder is to be fenced, not asked
}

// Fence is one order to make sure that an instance of a node can do no more harm.
type Fence struct {
	ID       uint64
	Node     NodeName
	Instance Instance
	Targets  []Target // grants that it is to cut off
	Executor NodeName
	Attempt  int // rises when the executor changes
	Reason   string
	Heard    Time // the instance's last heartbeat
	Ordered  Time
	Tried    Time // when the current attempt was assigned
	Shoot    bool // power-off may be ordered; otherwise reads and storage only
	Whole    bool // an operator or Pacemaker needs the whole node off: only node scope will do
	Proofs   []Proof
	State    FenceState
	Note     string // what the last attempt said
	Closed   Time
	Request  uint64
}

// Target is one grant that a fence cuts off.
type Target struct {
	Service   ServiceName
	Epoch     Epoch
	LeaseOver bool // of a fence: no lease of that grant can live any more; a storage proof needs it (I3)
}

// FenceState says how far a fence has come: requested, confirmed and failed are distinct.
type FenceState string

// The states of a fence.
const (
	FenceRequested FenceState = "requested"
	FenceConfirmed FenceState = "confirmed" // every target's policy accepts what is proven
	FenceFailed    FenceState = "failed"    // the last attempt ended without; it is tried again
	FenceMoot      FenceState = "moot"      // nothing is left that needs it
)

// AtRest reports whether nothing is under way: no fence, no wish of an operator's, and every service runs or is
// stopped. Then Decide has nothing to wait for but what its View would show.
func (s *State) AtRest() bool {
	for _, f := range s.Fences {
		if f.Open() {
			return false
		}
	}
	for _, r := range s.Requests {
		if r.State == RequestOpen {
			return false
		}
	}
	for _, svc := range s.Services {
		stopped := svc.Stopped && svc.Grant == nil
		running := svc.Grant != nil && (svc.Grant.Phase == PhaseRunning || svc.Grant.Phase == PhasePromoted) && !svc.leaving()
		managed := s.managed() && svc.Grant == nil // whoever claims it wakes the leader
		if !stopped && !running && !managed {
			return false
		}
	}
	return true
}

// Open reports whether the fence is still to be confirmed.
func (f Fence) Open() bool { return f.State == FenceRequested || f.State == FenceFailed }

// Maintenance is hands off the cluster, with an end. While it lasts nothing is granted; once each holder has
// acknowledged it, leases are not enforced until it ends.
type Maintenance struct {
	On       bool
	End      Time
	Reason   string
	Until    Time                  // End and one lease: until then a holder that accepted it may run without a lease (I5)
	Accepted map[NodeName]Instance // instances that were offered it and have not yet acknowledged its end
}

// Request is what an operator asked for, committed before anything is done about it.
type Request struct {
	ID       uint64
	Kind     RequestKind
	Service  ServiceName
	Node     NodeName
	Instance Instance // of a fence: the life of the node that it was asked for
	By       string   // who asked, in words
	At       Time
	For      time.Duration
	State    RequestState
	Answer   string // how it stands or ended, in words
	Token    string // drawn by the asker
	Closed   Time
}

// RequestKind is what can be asked for.
type RequestKind string

// The kinds of request.
const (
	RequestSwitchover   RequestKind = "switchover" // Service, Node (to; may be empty)
	RequestFailover     RequestKind = "failover"   // Service, Node (to; may be empty)
	RequestDrain        RequestKind = "drain"      // Node
	RequestUndrain      RequestKind = "undrain"    // Node
	RequestMaintenance  RequestKind = "maintenance-on"
	RequestMaintainOff  RequestKind = "maintenance-off"
	RequestFence        RequestKind = "fence"         // Node
	RequestFenceConfirm RequestKind = "fence-confirm" // Node: an operator vouches that it is off
	RequestStart        RequestKind = "start"         // Service
	RequestStop         RequestKind = "stop"          // Service
	RequestRestart      RequestKind = "restart"       // Service
)

// RequestState is how a request stands.
type RequestState string

// The states of a request.
const (
	RequestOpen    RequestState = "open"
	RequestDone    RequestState = "done"
	RequestRefused RequestState = "refused"
	RequestFailed  RequestState = "failed"
)

// Event is one entry of the replicated history.
type Event struct {
	ID      uint64
	At      Time
	Wall    time.Time // the proposer's wall clock, for people alone
	Kind    EventKind
	Service ServiceName `json:",omitempty"`
	Node    NodeName    `json:",omitempty"`
	From    NodeName    `json:",omitempty"`
	To      NodeName    `json:",omitempty"`
	Epoch   Epoch       `json:",omitempty"`
	Proof   ProofKind   `json:",omitempty"`
	Request uint64      `json:",omitempty"`
	Fence   uint64      `json:",omitempty"`
	Reason  string
	Phases  *Phases `json:",omitempty"`
}

// EventKind sorts the history.
type EventKind string

// The kinds of event.
const (
	EventNode        EventKind = "node"      // a node's life changed
	EventGrant       EventKind = "grant"     // a grant was given
	EventStarted     EventKind = "started"   // the service answers
	EventPromoted    EventKind = "promoted"  // its volume is mapped, and nothing more
	EventFailed      EventKind = "failed"    // a run failed
	EventRestart     EventKind = "restart"   // restart in place ordered
	EventRelease     EventKind = "release"   // holder told to stop and vacate
	EventVacated     EventKind = "vacated"   // holder vacated
	EventContained   EventKind = "contained" // holder stopped without vacating
	EventFence       EventKind = "fence"     // a fence was ordered, confirmed or failed
	EventFailover    EventKind = "failover"  // one line for the whole: from, to, proof, phases
	EventSwitchover  EventKind = "switchover"
	EventRequest     EventKind = "request"
	EventMaintenance EventKind = "maintenance"
	EventConfig      EventKind = "config"
	EventMember      EventKind = "member"
	EventBlocked     EventKind = "blocked" // a service can't be granted, and why
)

// Phases say where the time of a failover or switchover went.
type Phases struct {
	Detect  time.Duration `json:"detect"`  // last heartbeat heard, to evidence: suspicion or an order
	Decide  time.Duration `json:"decide"`  // evidence to the fence's order, and proof to grant
	Fence   time.Duration `json:"fence"`   // order to proof
	Stop    time.Duration `json:"stop"`    // of a switchover: release ordered to vacated
	Storage time.Duration `json:"storage"` // grant to mounted
	Start   time.Duration `json:"start"`   // mounted to the container running
	Probe   time.Duration `json:"probe"`   // running to answering
}

// Total of the phases.
func (p Phases) Total() time.Duration {
	return p.Detect + p.Decide + p.Fence + p.Stop + p.Storage + p.Start + p.Probe
}
