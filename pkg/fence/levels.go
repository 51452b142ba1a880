package fence

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

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

// power is the BMC's level: it reads until off is proven, and orders power-off once that is permitted.
func (a *attempt) power(ctx context.Context) {
	var last time.Time // when off was ordered last
	orders, count := "", 0
	for ctx.Err() == nil {
		proof, err := ReadOff(ctx, a.parts.BMC, a.order.GUID, a.order.Gap)
		if err == nil {
			a.tell(ctx, event{level: bmcLevel, stage: ended, note: proof.Reading + orders, proof: &proof})
			return
		}
		due := a.permitted() && !hopeless(err) && time.Since(last) >= resend
		if due {
			err = a.orderOff(ctx, err)
			last = time.Now()
			count++
			orders = fmt.Sprintf(", power-off ordered %d time(s)", count)
		}
		if hopeless(err) {
			a.tell(ctx, event{level: bmcLevel, stage: ended, note: err.Error() + orders})
			return
		}
		a.tell(ctx, event{level: bmcLevel, stage: trying, note: err.Error() + orders})
		switch {
		case due: // look at once
		case count > 0:
			_ = pause(ctx, readPause)
		default:
			a.untilPermitted(ctx, readPause)
		}
	}
}

// orderOff orders power-off of a machine that is certainly the right one, and returns what to say of the
// BMC. What comes of the order only a later reading tells.
func (a *attempt) orderOff(ctx context.Context, reading error) error {
	if _, err := identify(ctx, a.parts.BMC, a.order.GUID); err != nil {
		return err
	}
	if err := a.parts.BMC.Off(ctx); err != nil {
		return err
	}
	return reading
}

func (a *attempt) permitted() bool {
	select {
	case <-a.shoot:
		return true
	default:
		return false
	}
}

func (a *attempt) untilPermitted(ctx context.Context, most time.Duration) {
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-a.shoot:
	case <-ctx.Done():
	}
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

// cutOff is the storage level of target i. A proof needs a cut-off that began after the lease's end (I3): a
// holder whose lease lives may open the image again, from an address that an earlier cut-off did not know.
func (a *attempt) cutOff(ctx context.Context, i int) {
	target, place := a.order.Targets[i], i+1
	wait := firstRetry
	if a.order.Whole && !a.untilLeaseEnded(ctx, place, "the lease has not ended") {
		return // power-off may fail, and a holder that lives on must not lose its storage for that
	}
	for ctx.Err() == nil {
		leaseOver := a.leaseEnded()
		did, err := a.parts.Storage.CutOff(ctx, target.CutOff)
		if err == nil && len(did.Watchers) > 0 {
			err = fmt.Errorf("watchers of the old holder are left: %s", strings.Join(did.Watchers, ", "))
		}
		switch {
		case err != nil && refused(err):
			a.tell(ctx, event{level: place, stage: ended, note: err.Error()})
			return
		case err != nil:
			a.tell(ctx, event{level: place, stage: trying, note: err.Error()})
			_ = pause(ctx, wait)
			wait = min(2*wait, lastRetry)
		case !leaseOver:
			a.untilLeaseEnded(ctx, place, said(did)+", the lease has not ended")
		default:
			reading := said(did) + ", no watcher of the old holder is left, its lease has ended"
			a.tell(ctx, event{level: place, stage: ended, note: reading, proof: &core.Proof{
				Kind: core.ProofStorage, Service: target.Service, Epoch: target.Epoch, Reading: reading,
			}})
			return
		}
	}
}

// untilLeaseEnded waits for the lease's end and reports whether it came before the attempt's.
func (a *attempt) untilLeaseEnded(ctx context.Context, place int, note string) bool {
	if !a.leaseEnded() {
		a.tell(ctx, event{level: place, stage: waiting, note: note})
	}
	select {
	case <-a.order.LeaseEnded:
		a.tell(ctx, event{level: place, stage: trying, note: note + ", then did"})
		return true
	case <-ctx.Done():
		return false
	}
}

func (a *attempt) leaseEnded() bool {
	select {
	case <-a.order.LeaseEnded: // nil: never
		return true
	default:
		return false
	}
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
