package fence

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/keepone-ha/keepone/pkg/clock"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/drive/ipmi"
)

// ErrNoBMC is a node that has none in the cluster document.
var ErrNoBMC = errors.New("node has no BMC in the cluster document")

// Handle is a BMC that is kept; *ipmi.BMC is one. It serialises its calls.
type Handle interface {
	BMC
	Starter
	Check(ctx context.Context) (ipmi.Report, error)
	Close() error
}

// Starter orders power on: what no fence needs, and what comes after one.
type Starter interface {
	On(ctx context.Context) error // an order only: what counts is what Power reads afterwards
}

// Reader keeps one handle of each node's BMC for all who need it, so that a BMC sees one session of this node
// at most. It may be used by many goroutines.
type Reader struct {
	open func(core.NodeName, core.BMCSpec) (Handle, error)

	mu      sync.Mutex
	handles map[core.NodeName]kept

	closing sync.WaitGroup
}

type kept struct {
	spec   core.BMCSpec
	handle Handle
	err    error // why there is no handle
}

// NewReader returns a Reader that knows no BMC yet. open makes a handle without talking to the BMC.
func NewReader(open func(core.NodeName, core.BMCSpec) (Handle, error)) *Reader {
	return &Reader{open: open, handles: map[core.NodeName]kept{}}
}

// Update takes over the nodes of a cluster document. Handles whose settings did not change are kept, the
// others closed.
func (r *Reader) Update(nodes []core.NodeSpec) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := map[core.NodeName]kept{}
	for _, node := range nodes {
		if node.BMC == nil {
			continue
		}
		if old, ok := r.handles[node.Name]; ok && old.spec == *node.BMC && old.err == nil {
			next[node.Name] = old
			continue
		}
		handle, err := r.open(node.Name, *node.BMC)
		next[node.Name] = kept{spec: *node.BMC, handle: handle, err: err}
	}
	for name, old := range r.handles {
		if old.err == nil && next[name].handle != old.handle {
			r.closing.Go(func() { _ = old.handle.Close() }) // its session ends either way
		}
	}
	r.handles = next
}

// Close closes every handle and waits until they are closed.
func (r *Reader) Close() {
	r.Update(nil)
	r.closing.Wait()
}

// BMC returns a node's BMC and the GUID that it must report, empty if any will do.
func (r *Reader) BMC(node core.NodeName) (BMC, string, error) {
	k, err := r.kept(node)
	if err != nil {
		return nil, "", err
	}
	return k.handle, k.spec.GUID, nil
}

func (r *Reader) kept(node core.NodeName) (kept, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k, ok := r.handles[node]
	switch {
	case !ok:
		return kept{}, fmt.Errorf("find BMC of %s: %w", node, ErrNoBMC)
	case k.err != nil:
		return kept{}, fmt.Errorf("open BMC of %s: %w", node, k.err)
	}
	return k, nil
}

// ReadOff is ReadOff of the node's BMC.
func (r *Reader) ReadOff(ctx context.Context, node core.NodeName, gap time.Duration) (core.Proof, error) {
	bmc, guid, err := r.BMC(node)
	if err != nil {
		return core.Proof{}, err
	}
	return ReadOff(ctx, bmc, guid, gap)
}

// Power reads a node's power from the BMC that is certainly its own.
func (r *Reader) Power(ctx context.Context, node core.NodeName) (ipmi.State, error) {
	k, err := r.kept(node)
	if err != nil {
		return ipmi.Unknown, err
	}
	return ReadPower(ctx, k.handle, k.spec.GUID)
}

// PowerOn is PowerOn of the node's BMC.
func (r *Reader) PowerOn(ctx context.Context, node core.NodeName) error {
	k, err := r.kept(node)
	if err != nil {
		return err
	}
	return PowerOn(ctx, k.handle, k.spec.GUID)
}

// Ready tries all that a fence of the node would need of its BMC, but the order itself. The error says what is
// wrong and what to do. alive says that the node's heartbeats arrive: then its power must read on.
func (r *Reader) Ready(ctx context.Context, node core.NodeName, alive bool) error {
	k, err := r.kept(node)
	if err != nil {
		return err
	}
	report, err := k.handle.Check(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("check BMC of %s: %w", node, err)
	case k.spec.GUID != "" && report.GUID == "":
		return fmt.Errorf("check BMC of %s: %w", node, ipmi.ErrGUID)
	case k.spec.GUID != "" && !ipmi.SameGUID(report.GUID, k.spec.GUID):
		return fmt.Errorf("check BMC of %s: %w: its GUID is %s, not %s", node, ErrIdentity, report.GUID, k.spec.GUID)
	case alive && report.Power.State == ipmi.Off:
		return fmt.Errorf("check BMC of %s: %w: it says off while the node's heartbeats arrive", node, ErrIdentity)
	}
	return nil
}

// Watch calls Ready of every node but self that has a BMC again and again until ctx ends, one after the other, and
// reports each answer. A round begins every `every` on average, jittered so that the nodes of a cluster don't
// ask a BMC all at once. alive is asked before and after, and counts only if both say so: a node that goes
// down meanwhile is no contradiction. every is above zero.
func (r *Reader) Watch(
	ctx context.Context, self core.NodeName, every time.Duration, alive func(core.NodeName) bool, report func(core.NodeName, error),
) {
	for {
		if err := clock.Pause(ctx, every/2+rand.N(every)); err != nil {
			return
		}
		for _, node := range r.nodes() {
			if node == self {
				continue // many a host does not reach its own BMC, and none has to
			}
			before := alive(node)
			err := r.Ready(ctx, node, before)
			if ctx.Err() != nil {
				return
			}
			if before && !alive(node) && errors.Is(err, ErrIdentity) {
				continue
			}
			report(node, err)
		}
	}
}

func (r *Reader) nodes() []core.NodeName {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := make([]core.NodeName, 0, len(r.handles))
	for name := range r.handles {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
