package fence

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/pkg/clock"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/drive/ipmi"
	"github.com/keepone-ha/keepone/pkg/worker"
)

const (
	// readPause is between two looks at a BMC that says on: a hard power-off shows within a second.
	readPause = 100 * time.Millisecond
	// resend is when an order of power-off that shows no effect is given again: longer than most servers
	// need, short against the attempt's bound. Ordering off twice is harmless; a power cycle never is.
	resend = 2 * time.Second
	// A cut-off that stayed unknown is tried again after firstRetry, doubling up to lastRetry.
	firstRetry = 100 * time.Millisecond
	lastRetry  = time.Second
)

// Ground is what the levels of one attempt stand on: the attempt itself.
type Ground interface {
	// Tell says how a level stands.
	Tell(ctx context.Context, e Event)
	// Permitted reports whether power-off may be ordered; AwaitPermit waits for that, or until most has passed.
	Permitted() bool
	AwaitPermit(ctx context.Context, most time.Duration)
	// LeaseEnded reports whether the leader calls the leases of all targets over; AwaitLease waits for that, and
	// reports whether it came before the attempt's end.
	LeaseEnded() bool
	AwaitLease(ctx context.Context) bool
}

// Power is the BMC's level: it reads until off is proven, and orders power-off once that is permitted.
func Power(ctx context.Context, order Order, bmc BMC, g Ground) {
	var last time.Time // when off was ordered last
	orders, count := "", 0
	for ctx.Err() == nil {
		proof, err := ReadOff(ctx, bmc, order.GUID, order.Gap)
		if err == nil {
			g.Tell(ctx, Event{level: bmcLevel, stage: ended, note: proof.Reading + orders, proof: &proof})
			return
		}
		due := g.Permitted() && !hopeless(err) && clock.Now(ctx).Sub(last) >= resend
		if due {
			err = orderOff(ctx, bmc, order.GUID, err)
			last = clock.Now(ctx)
			count++
			orders = fmt.Sprintf(", power-off ordered %d time(s)", count)
		}
		if hopeless(err) {
			g.Tell(ctx, Event{level: bmcLevel, stage: ended, note: err.Error() + orders})
			return
		}
		g.Tell(ctx, Event{level: bmcLevel, stage: trying, note: err.Error() + orders})
		switch {
		case due: // look at once
		case count > 0:
			_ = clock.Pause(ctx, readPause)
		default:
			g.AwaitPermit(ctx, readPause)
		}
	}
}

// orderOff orders power-off of a machine that is certainly the right one, and returns what to say of the
// BMC. What comes of the order only a later reading tells.
func orderOff(ctx context.Context, bmc BMC, guid string, reading error) error {
	if _, err := identify(ctx, bmc, guid); err != nil {
		return err
	}
	if err := bmc.Off(ctx); err != nil {
		return err
	}
	return reading
}

// hopeless reports whether a BMC that said so will say so again within this attempt.
func hopeless(err error) bool {
	for _, known := range []error{
		ErrIdentity, ipmi.ErrPassword, ipmi.ErrPrivilege, ipmi.ErrCipher, ipmi.ErrGUID, ipmi.ErrConfig, ipmi.ErrClosed,
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

// CutOff is the storage level of target i. A proof needs a cut-off that began after the lease's end (I3): a
// holder whose lease lives may open the image again, from an address that an earlier cut-off did not know.
func CutOff(ctx context.Context, order Order, i int, storage Storage, g Ground) {
	target, place := order.Targets[i], i+1
	wait := firstRetry
	if order.Whole && !untilLeaseEnded(ctx, g, place, "the lease has not ended") {
		return // power-off may fail, and a holder that lives on must not lose its storage for that
	}
	for ctx.Err() == nil {
		leaseOver := g.LeaseEnded()
		did, err := storage.CutOff(ctx, target.CutOff)
		if err == nil && len(did.Watchers) > 0 {
			err = fmt.Errorf("watchers of the old holder are left: %s", strings.Join(did.Watchers, ", "))
		}
		switch {
		case err != nil && refused(err):
			g.Tell(ctx, Event{level: place, stage: ended, note: err.Error()})
			return
		case err != nil:
			g.Tell(ctx, Event{level: place, stage: trying, note: err.Error()})
			_ = clock.Pause(ctx, wait)
			wait = min(2*wait, lastRetry)
		case !leaseOver:
			untilLeaseEnded(ctx, g, place, said(did)+", the lease has not ended")
		default:
			reading := said(did) + ", no watcher of the old holder is left, its lease has ended"
			g.Tell(ctx, Event{level: place, stage: ended, note: reading, proof: &core.Proof{
				Kind: core.ProofStorage, Service: target.Service, Epoch: target.Epoch, Reading: reading,
			}})
			return
		}
	}
}

// untilLeaseEnded waits for the lease's end and reports whether it came before the attempt's.
func untilLeaseEnded(ctx context.Context, g Ground, place int, note string) bool {
	if !g.LeaseEnded() {
		g.Tell(ctx, Event{level: place, stage: waiting, note: note})
	}
	if !g.AwaitLease(ctx) {
		return false
	}
	g.Tell(ctx, Event{level: place, stage: trying, note: note + ", then did"})
	return true
}

// refused reports whether a cut-off certainly did not happen and would not the next time either.
func refused(err error) bool {
	var failure *worker.Failure
	if !errors.As(err, &failure) {
		return false
	}
	return failure.Code != worker.CodeUnknown && failure.Code != worker.CodeCephAway
}

func said(did worker.CutOffDid) string {
	return fmt.Sprintf("blocklisted [%s], broke the lock of [%s], osdmap epoch %d",
		strings.Join(did.Blocklisted, " "), strings.Join(did.Broken, " "), did.OSDMapEpoch)
}
