// Package fence makes one attempt to fence one instance of a node: it runs the levels side by side, as
// docs/safety.md says, and hands out each proof as soon as it is had. The daemon and the fence agent use it
// alike. Nothing here decides whom to fence, and no timeout or silence is ever a proof (I3).
package fence

import (
	"context"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/drive/ipmi"
	"github.com/keepone-ha/keepone/pkg/worker"
)

// BMC is what a fence needs of a node's BMC; *ipmi.BMC is one. Each call ends as soon as its context does.
type BMC interface {
	Power(ctx context.Context) (ipmi.Reading, error)
	Off(ctx context.Context) error // an order only: what counts is what Power reads afterwards
	Identity(ctx context.Context) (string, error)
}

// Storage cuts the clients of a lost holder off from a volume. An error that is a *worker.Failure with a code
// other than unknown says that it certainly did not succeed; every other error leaves it unknown. Each call
// ends as soon as its context does, may be repeated, and calls for several services may run side by side.
type Storage interface {
	CutOff(ctx context.Context, order worker.CutOff) (worker.CutOffDid, error)
}

// Target is one grant that the attempt is to cut off.
type Target struct {
	core.Target
	Policy core.Policy
	CutOff worker.CutOff // what Storage does for it
}

// Order is what one attempt is to do.
type Order struct {
	Node     core.NodeName
	Instance core.Instance
	By       string       // the node that carries it out
	Targets  []Target     // none: the attempt is after a proof of node scope
	Shoot    bool         // power-off may be ordered, as the last thing tried
	Whole    bool         // a proof of node scope is needed besides: power-off is tried first, storage after the lease's end
	GUID     string       // system GUID that the BMC must report, empty: not checked
	Proofs   []core.Proof // had by earlier attempts

	// LeaseEnded is closed once the leader calls the node's lease ended. Until then nothing that Storage did
	// proves anything. Nil means never.
	LeaseEnded <-chan struct{}

	Gap      time.Duration // between the two readings of off that make a proof: core.Timing.OffReadings
	Patience time.Duration // how long storage is given before power-off is ordered. 0: DefaultPatience
	Limit    time.Duration // bound of the attempt. 0: DefaultLimit
}

// DefaultPatience is far above a cut-off that works (tens of milliseconds, 0.6 s with Ceph's stock paxos
// settings), and below the 3 s after which people expect the fence. DefaultLimit leaves room for a hard
// power-off, which takes up to 5 s on some servers, and for one repetition of the order.
const (
	DefaultPatience = 1500 * time.Millisecond
	DefaultLimit    = 15 * time.Second
)

// Parts are what an attempt works with.
type Parts struct {
	BMC     BMC              // nil: the node has none
	Storage Storage          // nil: not to be had
	Proved  func(core.Proof) // called with each proof as soon as it is had, one at a time, before Attempt returns
	Now     func() core.Time // cluster time, for Proof.At
}

// Result is how an attempt ended.
type Result struct {
	Confirmed bool   // each target's policy accepts what is proven
	Note      string // what each level said, in words for people
}
