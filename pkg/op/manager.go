package op

import "github.com/keepone-ha/keepone/pkg/core"

// The methods of a cluster manager's agents. Stop and demote use none of them: they need no daemon (I7).
const (
	MethodClaim   = "claim"   // Claim → Progress lines → Claimed; the claim ends with the connection
	MethodWake    = "wake"    // Wake → nothing
	MethodHealth  = "health"  // → Health
	MethodProbe   = "probe"   // Probe → Probed
	MethodPublish = "publish" // Publish → nothing
	MethodFence   = "fence"   // Fence → Progress lines → Fenced
	MethodPower   = "power"   // Power → Powered
	MethodLeader  = "leader"  // of the node protocol, where fence is served too: → Leads
)

// Claim asks that this node be granted a service and bring it up as far as Stage. It is answered once that is so.
// While it lasts a passing loss of the leader is waited out; when the caller hangs up, what was begun for it is taken
// down again.
type Claim struct {
	Service core.ServiceName
	Stage   core.Stage
}

// Claimed says what is up.
type Claimed struct {
	Epoch  core.Epoch
	Stage  core.Stage
	Device string // block device of the volume
}

// Wake tells the daemon that something of the service changed here: a stop has ended, a mount came.
type Wake struct {
	Service core.ServiceName
}

// Health is what a daemon says of itself.
type Health struct {
	Healthy bool
	Why     string // not healthy: what is wrong, and what to do
	Node    core.NodeName
	Manager core.Manager
	Leader  core.NodeName // empty: none is known
	Quorum  bool          // the leader answered, and made sure of its quorum
	// Services says what this node could do now for each.
	Services map[core.ServiceName]Able
}

// Able is what a node may do for a service.
type Able struct {
	OK     bool // it holds the grant, or could be given it
	Reason string
	Score  int // of promotion: higher is better; 0 if not OK
	// Barred: not OK by the cluster document (it is not among the service's nodes, or only votes). Waiting mends nothing.
	Barred bool `json:",omitempty"`
}

// Probe asks whether the service is well on this node. Depth is OCF_CHECK_LEVEL: 10 its volume, 20 its own probes too.
type Probe struct {
	Service core.ServiceName
	Depth   int
}

// Probed is the answer.
type Probed struct {
	OK  bool
	Why string
}

// Publish has the daemon tell Pacemaker at once, by node attributes, what this node may do.
type Publish struct {
	// Service and Promotion: the name of the attribute that is the promotion score of a promotable resource. Service
	// empty: the attributes keepone-SERVICE of every service.
	Service   core.ServiceName `json:",omitempty"`
	Promotion string           `json:",omitempty"`
	Off       bool             // no longer, and take them away
}

// Leads says which leader a member follows.
type Leads struct {
	Leader core.NodeName // empty: none is known
}

// Fence asks for a proof that the node can do no more harm: one committed order, however often it is asked.
type Fence struct {
	Node core.NodeName
	By   string // who asks, in words
}

// Fenced is the proof.
type Fenced struct {
	Proof core.ProofKind
	Scope core.Scope
	Words string
}

// Power reads a node's power from its BMC, or orders it on.
type Power struct {
	Node  core.NodeName
	On    bool
	Later bool // with On: the daemon sees to it after its answer
}

// Powered is what the BMC says.
type Powered struct {
	On bool
}
