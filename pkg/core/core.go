// Package core decides. It is pure: State is what the cluster has committed, Command is what may change it,
// Apply changes it, View is what the leader sees, Decide says what to commit next. Nothing here reads a clock,
// touches a network or a disk, starts a goroutine or logs; equal arguments give equal results in equal order.
package core

import "time"

// NodeName names a member. It is the name in its certificate.
type NodeName string

// ServiceName names a service: one container that must run exactly once.
type ServiceName string

// Instance is one life of a node: its boot-id and a random id that dies with the node.
type Instance string

// Epoch orders the grants of one service. Only Apply raises it, and whatever touches storage or a container
// carries it, so that a late holder is refused rather than raced (I2).
type Epoch uint64

// Time is cluster time: how long the cluster has lived, as its leaders counted it on CLOCK_BOOTTIME. It never
// goes back and no wall clock moves it. Leaderless time may be missing from it, so it runs late, never early.
type Time time.Duration

// Add returns t moved by d.
func (t Time) Add(d time.Duration) Time { return t + Time(d) }

// Sub returns how long after u t is.
func (t Time) Sub(u Time) time.Duration { return time.Duration(t - u) }

// Outcome is what we know after an effect. Its zero value is the safe one.
type Outcome uint8

// The outcomes of an effect.
const (
	Unknown Outcome = iota // lost or timed out: assume that it may have happened
	Done                   // certainly happened
	Refused                // certainly did not happen
)

func (o Outcome) String() string {
	return [...]string{"unknown", "done", "refused"}[o]
}
