// Package takeover is the order in which an RBD image changes hands: what cuts the old holder's clients off, and
// what the new holder does before its first read. It is pure; pkg/drive/rbd brings the real image, takeovertest a
// fake one and the table of tests that both must pass.
package takeover

import (
	"context"
	"fmt"
	"time"

	"github.com/keepone-ha/keepone/pkg/clock"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/worker"
)

// Image is one image through a control connection, apart from any data's.
type Image interface {
	// RaiseEpoch writes to into the image unless it carries a higher one, as one step, and returns what the image
	// carries afterwards. It never lowers (I2).
	RaiseEpoch(ctx context.Context, to core.Epoch) (core.Epoch, error)
	// Clients lists who owns the exclusive lock and who watches the image, without this connection itself.
	Clients(ctx context.Context) (Clients, error)
	// Blocklist puts the addresses on Ceph's blocklist for years. It returns an osdmap epoch that carries them
	// all, once this connection's own map is not below it.
	Blocklist(ctx context.Context, addresses []string) (osdmapEpoch uint64, err error)
	// Break takes the lock from an owner. It is no error if that owner has lost it meanwhile.
	Break(ctx context.Context, owner string) error
}

// Clients are addresses IP:0/NONCE.
type Clients struct {
	Owners   []string
	Watchers []string
}

// Holder is the new holder's own data client.
type Holder interface {
	// Barrier returns once this client's osdmap is the latest: from then on no OSD that it talks to takes a write
	// of a client whose blocklisting was committed before the call (I6).
	Barrier(ctx context.Context) error
	// Lock takes the exclusive lock in managed mode, or fails at once if somebody else has it.
	Lock(ctx context.Context) error
	Unlock(ctx context.Context) error
	RaiseEpoch(ctx context.Context, to core.Epoch) (core.Epoch, error)
}

const (
	// maxRounds bounds how often CutOff looks again. Each round cuts off whoever came since the last one; from
	// the old holder's addresses nobody comes for ever.
	maxRounds = 40
	// roundPause is between two looks when all is done but a watch has not yet been dropped by its OSD.
	roundPause = 5 * time.Millisecond
)

// CutOff makes sure that no client of the old holder can write again (I6), in the one safe order: epoch, then as
// often as needed owners → blocklist → break, then the barrier and a last look. Watchers in the answer are
// clients of the old holder's that are still there: the proof holds only if there are none. A Failure with
// CodeImageStranger or CodeEpochAhead has cut off nobody.
func CutOff(ctx context.Context, img Image, order worker.CutOff) (worker.CutOffDid, error) {
	var did worker.CutOffDid
	// First the epoch: a client that takes the lock after our last look finds it and lets go (I2).
	carried, err := img.RaiseEpoch(ctx, order.Epoch)
	if err != nil {
		return did, fmt.Errorf("write epoch into image: %w", err)
	}
	if carried > order.Epoch {
		return did, aheadOf(order.Epoch, carried)
	}
	theirs := newCrowd(order.Addresses, order.From)
	done := map[string]bool{}
	for round := 1; ; round++ {
		clients, err := img.Clients(ctx)
		if err != nil {
			return did, fmt.Errorf("list clients of image: %w", err)
		}
		if stranger := theirs.stranger(clients.Owners); stranger != "" {
			return did, strange(order.Volume, stranger)
		}
		did.Watchers = theirs.among(clients.Watchers)
		if err := cutRound(ctx, img, order.Addresses, clients.Owners, done, &did); err != nil {
			return did, err
		}
		if round > 1 && len(clients.Owners) == 0 && len(did.Watchers) == 0 {
			return did, nil
		}
		if round == maxRounds {
			return did, leftOver(clients.Owners)
		}
		if round > 2 {
			if err := clock.Pause(ctx, roundPause); err != nil {
				return did, fmt.Errorf("cut off old holder: %w", err)
			}
		}
	}
}

// cutRound blocklists whoever is not yet, and only then breaks: a break alone stops nobody's writes (I6).
func cutRound(ctx context.Context, img Image, committed, owners []string, done map[string]bool, did *worker.CutOffDid) error {
	var fresh []string
	for _, list := range [][]string{committed, owners, did.Watchers} {
		for _, address := range list {
			if !done[canonical(address)] {
				done[canonical(address)] = true
				fresh = append(fresh, address)
			}
		}
	}
	if len(fresh) > 0 {
		epoch, err := img.Blocklist(ctx, fresh)
		if err != nil {
			return fmt.Errorf("blocklist %v: %w", fresh, err)
		}
		did.Blocklisted = append(did.Blocklisted, fresh...)
		did.OSDMapEpoch = epoch
	}
	for _, owner := range owners {
		if err := img.Break(ctx, owner); err != nil {
			return fmt.Errorf("break lock of %s: %w", owner, err)
		}
		did.Broken = append(did.Broken, owner)
	}
	return nil
}

// Acquire takes the image for the new holder after CutOff: barrier, lock, then the epoch once more, for a later
// grant may have been given while this one was under way (I1, I2). ready is asked right before the lock: lease
// and tombstone. On any error the lock is not held, or its state is unknown if the error says so.
func Acquire(ctx context.Context, h Holder, epoch core.Epoch, ready func(context.Context) error) error {
	if err := h.Barrier(ctx); err != nil {
		return fmt.Errorf("wait for osdmap: %w", err)
	}
	if err := ready(ctx); err != nil {
		return err
	}
	if err := h.Lock(ctx); err != nil {
		return fmt.Errorf("take exclusive lock: %w", err)
	}
	carried, err := h.RaiseEpoch(ctx, epoch)
	if err == nil && carried > epoch {
		err = aheadOf(epoch, carried)
	}
	if err == nil {
		return nil
	}
	if failed := h.Unlock(ctx); failed != nil {
		return fmt.Errorf("%w; release lock: %w", err, failed)
	}
	return err
}

func aheadOf(ours, carried core.Epoch) error {
	return &worker.Failure{
		Code: worker.CodeEpochAhead,
		Message: fmt.Sprintf("the image carries epoch %d, this order has %d: a later grant has it; if the cluster was restored "+
			"from a backup, run keepone recover", carried, ours),
	}
}

func strange(volume core.VolumeSpec, owner string) error {
	return &worker.Failure{
		Code: worker.CodeImageStranger,
		Message: fmt.Sprintf("image %s/%s is locked by %s, which is no client of the last holder: nothing was touched; find out "+
			"what runs there, and if it may be cut off run keepone volume claim", volume.Pool, volume.Image, owner),
	}
}

func leftOver(owners []string) error {
	if len(owners) == 0 {
		return nil // only watchers: the answer names them
	}
	return &worker.Failure{
		Code:    worker.CodeUnknown,
		Message: fmt.Sprintf("the image is locked again by %v after each cut", owners),
	}
}
