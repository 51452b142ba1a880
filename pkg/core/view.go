package core

import "time"

// View is what the leader sees right now. It is not replicated: a new leader builds its own.
type View struct {
	Self   NodeName
	Nodes  map[NodeName]NodeView
	Voters []NodeName // Raft's, in order
	// Settled: this leader has led for long enough that whoever lives has reported to it. Before that the lack of a
	// report says nothing, and nothing is called blocked or refused for it.
	Settled bool
	// LeaseOver names, for each service, the highest epoch of which no node can hold a live lease any more, nor get
	// one, as the leader's own arithmetic has it (I3, I5): the State that this View was made for does not renew it
	// (see Renewed). Missing: none.
	LeaseOver map[ServiceName]Epoch
	// CorosyncQuorate is what corosync says on this node; nil: it is not used, or not known.
	CorosyncQuorate *bool
}

// NodeView is what the leader sees of one node.
type NodeView struct {
	Live        Liveness
	Silent      time.Duration // since its last heartbeat, on any link
	Instance    Instance      // of its last heartbeat
	Daemon      bool          // its guard says that its daemon is well
	Maintenance bool          // its guard does not enforce leases
	Watchdog    time.Duration // the real timeout of its armed watchdog, by its last heartbeat; 0: none can be counted on
	Off         *Proof        // a bmc-off proof of Instance, read since it fell silent; nil: none
	Report      *Report       // the newest report of its daemon; nil: none fresh
}

// Liveness is what heartbeats say of a node.
type Liveness string

// What heartbeats can say. The zero value is the careful one.
const (
	LiveUnknown Liveness = ""        // this leader has not listened for long enough
	LiveOnline  Liveness = "online"  // heard within the suspect bound
	LiveSuspect Liveness = "suspect" // silent for longer than the suspect bound
	LiveDown    Liveness = "down"    // silent for longer than the down bound
)

// Report is what a node's daemon says of itself.
type Report struct {
	Instance Instance
	Holds    []Target // what the kernel shows of services there, by record; epoch 0: no record
	Ready    map[ServiceName]Ready
	// Claims is what a cluster manager is starting there right now, and how far. Each ends with who asks.
	Claims  map[ServiceName]Stage
	Version string
	Digest  string // of the cluster document that it works by
	// BMCs is what this node last found wrong with each other node's BMC, empty: nothing. Missing: it has not tried.
	BMCs map[NodeName]string `json:",omitempty"`
}

// Ready says whether a node could take a service now.
type Ready struct {
	OK     bool
	Reason string // why not, and what to do
	Epoch  Epoch  // that the image carries (I2)
	// Cuts: its key was seen to cut a client off, and Ceph answers: whatever OK says, it could read a storage proof.
	Cuts bool `json:",omitempty"`
	// Relists: it could put right by itself what a person has on the blocklist for too short.
	Relists bool `json:",omitempty"`
}

// MayCut reports whether the node could read a storage proof of the service. One of an older version says no more than
// that it could take it, which needs the same right.
func (r Ready) MayCut() bool { return r.Cuts || r.OK }

// holds reports whether the report shows anything of the service on the node.
func (r *Report) holds(name ServiceName) bool {
	for _, t := range r.Holds {
		if t.Service == name {
			return true
		}
	}
	return false
}
