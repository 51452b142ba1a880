// Package guard is what must not fail on a node: heartbeats, the lease, containment at its end (I5). This
// package holds the datagrams, the lease arithmetic of holder and leader, the guard's loop, its socket's client,
// and the daemon's end of the heartbeats. It knows no Raft, no cgo, and no configuration but guard.conf.
package guard

import (
	"time"

	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/core"
)

// The ports on each link address.
const (
	DaemonPort = 7481 // the daemon receives heartbeats and sends acks
	GuardPort  = 7482 // the guard sends heartbeats and receives acks
)

// Right is one service at one epoch.
type Right struct {
	Service core.ServiceName
	Epoch   core.Epoch
}

// Held is one service that has a record on the node.
type Held struct {
	Right
	State HeldState
}

// HeldState says how containment of a held service stands.
type HeldState uint8

// The states of a held service.
const (
	HeldRunning   HeldState = iota // something of it may run
	HeldContained                  // nothing of it can run; not vacated
	HeldStuck                      // its lease has ended and it can't be contained
)

func (s HeldState) String() string {
	if s > HeldStuck {
		return "invalid"
	}
	return [...]string{"running", "contained", "stuck"}[s]
}

// Flags are the state of a node in its heartbeat. They have two bits: the watchdog has the rest of their byte.
type Flags uint8

// The flags of a heartbeat.
const (
	DaemonHealthy       Flags = 1 << iota // the daemon poked its guard within daemonFresh
	MaintenanceAccepted                   // leases are not enforced for now
)

// Heartbeat is what a guard sends to every node on each link, its own daemon included.
type Heartbeat struct {
	Cluster  string
	Node     core.NodeName
	Instance core.Instance
	Seq      uint64        // rises over the guard's restarts too; the same on each link
	Sent     boottime.Time // the sender's clock: only it can read it
	Flags    Flags
	Watchdog time.Duration // real timeout of an armed one, whole seconds up to MaxWatchdog; 0: none can be counted on
	Services []Held
}

// Ack answers one heartbeat. The leader sends it only after it made sure of its quorum after the heartbeat
// arrived.
type Ack struct {
	Cluster     string
	Node        core.NodeName // the leader that sends it
	Instance    core.Instance // of the heartbeat
	Seq         uint64        // of the heartbeat
	Sent        boottime.Time // of the heartbeat, echoed
	Term        uint64        // Raft's
	Lease       time.Duration
	Grants      []Right       // of this instance; no other right is renewed
	Maintenance time.Duration // left of it; 0: leases are enforced
}
