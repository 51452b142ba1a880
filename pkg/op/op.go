// Package op is what an operator and the daemon say to each other over the local socket: the methods, their
// requests and answers. It is pure types; pkg/api carries them.
package op

import (
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

// The methods. Those that change need root.
const (
	MethodLook        = "look"         // → Look
	MethodAsk         = "ask"          // Ask → Progress lines → Answer
	MethodConfig      = "config"       // → core.Document, as it is replicated
	MethodConfigCheck = "config-check" // Config → Changes
	MethodConfigApply = "config-apply" // Config → Changes
	MethodToken       = "token"        // Token → TokenMade
	MethodLeave       = "leave"        // Leave → nothing
	MethodVolume      = "volume"       // Volume → Progress lines → nothing
	MethodDoctor      = "doctor"       // → Doctor
	MethodFenceCheck  = "fence-check"  // → FenceCheck
)

// Facts are what State does not hold: what the leader sees right now.
type Facts struct {
	Self    core.NodeName
	Leader  core.NodeName // empty: none
	Quorum  bool          // the leader made sure of it for this answer
	Instead bool          // seen by Self, since no leader answered
	View    core.View
	BMC     map[core.NodeName]string                // what is wrong with a node's BMC
	Links   map[core.NodeName]map[int]time.Duration // silence of each link
	Doing   map[core.ServiceName]string             // on Self
	Clocks  map[core.NodeName]time.Duration         // a node's wall clock is ahead of the leader's by so much
	Manager *Pacemaker                              `json:",omitempty"` // nil: keepone manages the cluster by itself
	Now     core.Time                               // cluster time when it was seen
	At      time.Time                               // wall clock of the node that saw it
}

// Look is all that a status needs. Secrets are left out.
type Look struct {
	State core.State
	Facts Facts
}

// FenceCheck is what every node found when it tried, just now, what a fence of the others would need. Look's View has
// it in the nodes' reports.
type FenceCheck struct {
	Look   Look
	Silent map[core.NodeName]string // why a node could not be asked
}

// Ask is a request of core: it is committed first, then followed until it is answered.
type Ask struct {
	What    core.RequestKind
	Service core.ServiceName
	Node    core.NodeName
	For     time.Duration
	NoWait  bool // answered as soon as it is committed
}

// Progress is one line while a request goes on.
type Progress struct {
	Request uint64        `json:",omitempty"`
	After   time.Duration // since it was asked
	Text    string
}

// Answer is how a request ended.
type Answer struct {
	Request uint64
	State   core.RequestState // open: still going on
	Text    string
}

// Config is a cluster document to check or to apply. Passwords may stand in clear: they are sealed by the daemon.
type Config struct {
	Text   string
	File   string // its name in problems
	Expect uint64 // the version that it was made from; 0: the present one
}

// Changes are what a document would change, in words, and the version that it became.
type Changes struct {
	Lines   []string
	Version uint64
}

// Token asks for a join token of a node that the document names.
type Token struct {
	Node core.NodeName
	For  time.Duration
}

// TokenMade is shown once.
type TokenMade struct {
	Token string
}

// Leave removes a member.
type Leave struct {
	Node core.NodeName
}

// Volume makes or claims the volume of a service that runs nowhere.
type Volume struct {
	Service core.ServiceName
	Size    uint64 // bytes; with From
	From    string // tarball or directory on this node; empty: claim
	Claim   bool
}

// Doctor is a round of checks.
type Doctor struct {
	Checks []Check
}

// Check is one of them.
type Check struct {
	Node  core.NodeName
	What  string
	OK    bool
	Words string // what was found; if not OK, what to do
}
