package guard

import (
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

// Status is the guard's answer to `keepone status` when no daemon answers.
type Status struct {
	Node        core.NodeName   `json:"node"`
	Instance    core.Instance   `json:"instance"`
	Daemon      bool            `json:"daemon"`      // poked its guard just now
	Term        uint64          `json:"term"`        // highest Raft term seen
	AckAge      time.Duration   `json:"ackAge"`      // since the newest ack, -1: none yet
	Leader      core.NodeName   `json:"leader"`      // that sent it
	Maintenance time.Duration   `json:"maintenance"` // left of it
	Watchdog    WatchdogStatus  `json:"watchdog"`
	Services    []ServiceStatus `json:"services"`
	Warnings    []string        `json:"warnings"`
}

// WatchdogStatus says whether the node is reset when its guard can't contain, or does not live.
type WatchdogStatus struct {
	Device  string        `json:"device"` // empty: none is configured
	Armed   bool          `json:"armed"`
	Timeout time.Duration `json:"timeout"` // the real one
	Reason  string        `json:"reason"`  // why not armed
	Bitten  bool          `json:"bitten"`  // it caused the last reset
}

// ServiceStatus is one service that has a record here.
type ServiceStatus struct {
	Service core.ServiceName `json:"service"`
	Epoch   core.Epoch       `json:"epoch"`
	Attempt int              `json:"attempt"`
	State   string           `json:"state"` // running, contained, stuck
	Lease   time.Duration    `json:"lease"` // left of it; negative: ended so long ago
	Reasons []string         `json:"reasons"`
}
