package core

import (
	"net/netip"
	"slices"
	"time"
)

// Spec is the cluster document as the core knows it: validated by pkg/config, replicated as a whole.
type Spec struct {
	Cluster  string
	Manager  Manager
	Timing   Timing
	Fencing  Policy // the default policy of services
	Nodes    []NodeSpec
	Services []ServiceSpec
	// ClientScope: Pacemaker may be told that a node is fenced whose storage clients alone are cut off, as long as it
	// runs nothing but keepone's resources there.
	ClientScope bool
}

// Manager names who starts and stops services.
type Manager string

// The managers.
const (
	ManagerKeepone   Manager = "keepone"
	ManagerPacemaker Manager = "pacemaker"
)

// ElectionAttribute names the attribute that a cluster manager's location rule reads: 1 or more if the node holds the
// service's grant or could be given it; not defined or below 1, it may not run it.
func ElectionAttribute(service ServiceName) string { return "keepone-" + string(service) }

// Timing is what detection and leases run on. pkg/config checks it for sanity.
type Timing struct {
	Heartbeat    time.Duration // between two heartbeats of a guard, on each link
	Suspect      time.Duration // silence after which reads begin (BMC power, watchers)
	Lease        time.Duration // a holder contains itself this long after its last acknowledged heartbeat was sent
	LeaseMargin  time.Duration // what the leader adds before it calls a lease ended: clock rates and scheduling
	Down         time.Duration // silence after which a fence may be ordered
	RaftElection time.Duration // Raft's heartbeat and election timeout
	OffReadings  time.Duration // between the two readings of off that make a proof
}

// NodeSpec is one member as the cluster document names it.
type NodeSpec struct {
	Name    NodeName
	Links   []netip.Addr // one address for each link, in order of preference
	Witness bool         // votes, never holds
	BMC     *BMCSpec     // nil: no BMC
}

// BMCSpec says how to reach a node's BMC. Password is sealed; only a node's key opens it.
type BMCSpec struct {
	Address     string // host or host:port
	User        string
	Password    string // sealed: "sealed:..."
	CipherSuite int    // IPMI 2.0 cipher suite ID, 3 or 17 as a rule
	GUID        string // system GUID that the BMC must report, empty: not checked
}

// ServiceSpec is one service.
type ServiceSpec struct {
	Name       ServiceName
	Volume     VolumeSpec
	Network    NetworkSpec
	Probes     []ProbeSpec
	Nodes      []NodeName // eligible nodes, empty: every node that is no witness
	Prefer     []NodeName // best first
	Policy     *Policy    // nil: the cluster's
	Restart    RestartSpec
	StartLimit time.Duration // bound of one activation
	StopLimit  time.Duration // graceful stop, then kill
}

// VolumeSpec is the RBD image that carries a service's container.
type VolumeSpec struct {
	Pool      string
	Namespace string
	Image     string
	FS        string // ext4 or xfs
	Mapper    string // krbd or librbd
}

// NetworkSpec is the container's link.
type NetworkSpec struct {
	Bridge    string
	MAC       string
	Addresses []netip.Prefix
	Gateway   netip.Addr
}

// ProbeSpec asks a service whether it answers.
type ProbeSpec struct {
	Kind     string // tcp, http, opennebula, raftstatus, exec
	Port     int
	Path     string
	Command  []string
	User     string
	Password string // sealed
	Interval time.Duration
	Timeout  time.Duration
	Failures int // in a row, until the service counts as failed
}

// RestartSpec bounds restarts in place.
type RestartSpec struct {
	Failures   int           // this many within Window and the service goes to another node
	Window     time.Duration // also how long a node that failed a service is passed over
	Backoff    time.Duration // before the second attempt; doubles
	MaxBackoff time.Duration
}

// Node returns the spec of the node named, or nil.
func (s *Spec) Node(name NodeName) *NodeSpec {
	for i := range s.Nodes {
		if s.Nodes[i].Name == name {
			return &s.Nodes[i]
		}
	}
	return nil
}

// Service returns the spec of the service named, or nil.
func (s *Spec) Service(name ServiceName) *ServiceSpec {
	for i := range s.Services {
		if s.Services[i].Name == name {
			return &s.Services[i]
		}
	}
	return nil
}

// PolicyOf returns the fencing policy of a service.
func (s *Spec) PolicyOf(name ServiceName) Policy {
	if svc := s.Service(name); svc != nil && svc.Policy != nil {
		return *svc.Policy
	}
	return s.Fencing
}

// MayHold reports whether the document lets the node hold the service.
func (s *Spec) MayHold(node NodeName, name ServiceName) bool {
	svc, n := s.Service(name), s.Node(node)
	if svc == nil || n == nil || n.Witness {
		return false
	}
	return len(svc.Nodes) == 0 || slices.Contains(svc.Nodes, node)
}
