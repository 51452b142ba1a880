// Package takeovertest is the table of tests that every volume must pass, the fake one and the real one alike.
package takeovertest

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"github.com/keepone-ha/keepone/pkg/activate/takeover"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/worker"
)

// World has one fresh image and lets clients of it come up.
type World interface {
	// Control returns a control connection's view of the image.
	Control(t *testing.T) takeover.Image
	// Holder opens the image with a data client of its own.
	Holder(t *testing.T) Holder
}

// Holder is a data client with its device. A block is four bytes at a fixed place that differs for each index.
type Holder interface {
	takeover.Holder
	Address() string
	Write(index int, value string) error // durable once it returned nil
	Read(index int) (string, error)
}

// Run holds the volumes that fresh makes to the table. hostIP is where its clients come from.
func Run(t *testing.T, hostIP netip.Addr, fresh func(t *testing.T) World) {
	for name, test := range map[string]func(*testing.T, netip.Addr, World){
		"i6/late-write-fails":        lateWrite,
		"i6/break-alone-is-not-safe": breakAlone,
		"committed-address":          committedAddress,
		"owner-from-old-holder":      ownerFromOldHolder,
		"cut-off-writes-epoch":       cutOffWritesEpoch,
		"opened-but-not-locked":      openedOnly,
		"stranger":                   stranger,
		"epoch-ahead":                epochAhead,
		"epoch-rises-only":           epochRises,
		"epoch-rises-before-lock":    epochRisesBeforeLock,
		"live-holder":                liveHolder,
		"again":                      again,
		"not-ready":                  notReady,
	} {
		t.Run(name, func(t *testing.T) { test(t, hostIP, fresh(t)) })
	}
}

func ready(context.Context) error { return nil }

func acquire(t *testing.T, h Holder, epoch core.Epoch) {
	t.Helper()
	if err := takeover.Acquire(t.Context(), h, epoch, ready); err != nil {
		t.Fatalf("acquire at epoch %d: %v", epoch, err)
	}
}

func write(t *testing.T, h Holder, index int, value string) {
	t.Helper()
	if err := h.Write(index, value); err != nil {
		t.Fatalf("write %q: %v", value, err)
	}
}

func wantRead(t *testing.T, h Holder, index int, want string) {
	t.Helper()
	got, err := h.Read(index)
	if err != nil || got != want {
		t.Fatalf("block %d: %q, %v; want %q", index, got, err, want)
	}
}

func wantCode(t *testing.T, err error, want worker.Code) {
	t.Helper()
	var failure *worker.Failure
	if !errors.As(err, &failure) || failure.Code != want {
		t.Fatalf("error %v, want code %s", err, want)
	}
}

func cutOff(t *testing.T, img takeover.Image, order worker.CutOff) worker.CutOffDid {
	t.Helper()
	did, err := takeover.CutOff(t.Context(), img, order)
	if err != nil {
		t.Fatalf("cut off: %v", err)
	}
	if len(did.Watchers) != 0 {
		t.Fatalf("watchers left: %v", did.Watchers)
	}
	return did
}

// lateWrite is I6: no write of the old holder's lands on an object after the new holder has touched it.
func lateWrite(t *testing.T, _ netip.Addr, w World) {
	old := w.Holder(t)
	acquire(t, old, 1)
	for i := range 8 {
		write(t, old, i, "old1")
	}
	did := cutOff(t, w.Control(t), worker.CutOff{Epoch: 2, Addresses: []string{old.Address()}})
	if len(did.Broken) != 1 || len(did.Blocklisted) != 1 || did.OSDMapEpoch == 0 {
		t.Fatalf("cut off did %+v", did)
	}
	next := w.Holder(t)
	acquire(t, next, 2)
	for i := range 4 {
		write(t, next, i, "new1")
		wantRead(t, next, i+4, "old1")
	}
	for i := range 8 {
		if err := old.Write(i, "late"); err == nil {
			t.Errorf("late write %d was acknowledged", i)
		}
	}
	for i := range 8 {
		wantRead(t, next, i, map[bool]string{true: "new1", false: "old1"}[i < 4])
	}
}

// noBlocklist is a volume whose safety has been taken out.
type noBlocklist struct{ takeover.Image }

func (noBlocklist) Blocklist(context.Context, []string) (uint64, error) { return 1, nil }

// breakAlone shows that lateWrite would notice a take-over without blocklist.
func breakAlone(t *testing.T, _ netip.Addr, w World) {
	old := w.Holder(t)
	acquire(t, old, 1)
	write(t, old, 0, "old1")
	img := w.Control(t)
	// The watch stays without a blocklist, so the answer names it: that alone voids the proof.
	did, err := takeover.CutOff(t.Context(), noBlocklist{img}, worker.CutOff{Epoch: 2, Addresses: []string{old.Address()}})
	if err == nil && len(did.Watchers) == 0 {
		t.Fatal("a cut without blocklist looks like a proof")
	}
	next := w.Holder(t)
	if err := takeover.Acquire(t.Context(), next, 2, ready); err != nil {
		t.Fatalf("acquire: %v", err)
	}
	write(t, next, 0, "new1")
	if err := old.Write(0, "late"); err != nil {
		t.Skipf("this volume stops an old holder by break alone: %v", err)
	}
	wantRead(t, next, 0, "late")
}

func committedAddress(t *testing.T, _ netip.Addr, w World) {
	// The old holder's client is gone, its lock too: its address is cut off all the same.
	did := cutOff(t, w.Control(t), worker.CutOff{Epoch: 5, Addresses: []string{"192.0.2.7:0/77"}})
	if len(did.Blocklisted) != 1 || len(did.Broken) != 0 {
		t.Fatalf("cut off did %+v", did)
	}
	acquire(t, w.Holder(t), 5)
}

func ownerFromOldHolder(t *testing.T, ip netip.Addr, w World) {
	old := w.Holder(t)
	acquire(t, old, 1)
	// Mapped, but lost before its address was committed.
	did := cutOff(t, w.Control(t), worker.CutOff{Epoch: 2, From: []netip.Addr{ip}})
	if len(did.Broken) != 1 {
		t.Fatalf("cut off did %+v", did)
	}
	next := w.Holder(t)
	acquire(t, next, 2)
	write(t, next, 0, "new1")
	if err := old.Write(0, "late"); err == nil {
		t.Fatal("late write was acknowledged")
	}
}

func openedOnly(t *testing.T, ip netip.Addr, w World) {
	// Paused before it locks: its watch is cut off too, and it finds the epoch or its own blocklisting.
	old := w.Holder(t)
	cutOff(t, w.Control(t), worker.CutOff{Epoch: 2, From: []netip.Addr{ip}})
	if err := takeover.Acquire(t.Context(), old, 1, ready); err == nil {
		t.Fatal("a client of the old holder's acquired after it was cut off")
	}
	acquire(t, w.Holder(t), 2)
}

// cutOffWritesEpoch: a client that takes the lock after the last look finds the next grant's epoch (I2).
func cutOffWritesEpoch(t *testing.T, _ netip.Addr, w World) {
	img := w.Control(t)
	cutOff(t, img, worker.CutOff{Epoch: 6, Addresses: []string{"192.0.2.7:0/77"}})
	if carried, err := img.RaiseEpoch(t.Context(), 1); err != nil || carried != 6 {
		t.Errorf("the image carries epoch %d, %v", carried, err)
	}
}

func stranger(t *testing.T, _ netip.Addr, w World) {
	other := w.Holder(t)
	acquire(t, other, 1)
	_, err := takeover.CutOff(t.Context(), w.Control(t), worker.CutOff{
		Epoch: 2, Addresses: []string{"192.0.2.7:0/77"}, From: []netip.Addr{netip.MustParseAddr("192.0.2.7")},
	})
	wantCode(t, err, worker.CodeImageStranger)
	write(t, other, 0, "fine") // nothing was touched
	wantRead(t, other, 0, "fine")
}

func epochAhead(t *testing.T, _ netip.Addr, w World) {
	img := w.Control(t)
	if carried, err := img.RaiseEpoch(t.Context(), 9); err != nil || carried != 9 {
		t.Fatalf("raise: %d, %v", carried, err)
	}
	_, err := takeover.CutOff(t.Context(), img, worker.CutOff{Epoch: 8, Addresses: []string{"192.0.2.7:0/77"}})
	wantCode(t, err, worker.CodeEpochAhead)
	wantCode(t, takeover.Acquire(t.Context(), w.Holder(t), 8, ready), worker.CodeEpochAhead)
	acquire(t, w.Holder(t), 9) // the refused one gave the lock back
}

func epochRises(t *testing.T, _ netip.Addr, w World) {
	img := w.Control(t)
	for _, step := range []struct{ to, carries core.Epoch }{{3, 3}, {2, 3}, {3, 3}, {12, 12}, {9, 12}} {
		carried, err := img.RaiseEpoch(t.Context(), step.to)
		if err != nil || carried != step.carries {
			t.Fatalf("raise to %d: %d, %v; want %d", step.to, carried, err, step.carries)
		}
	}
}

// epochRisesBeforeLock is a take-over that comes between the new holder's last check and its lock.
func epochRisesBeforeLock(t *testing.T, _ netip.Addr, w World) {
	img, h := w.Control(t), w.Holder(t)
	err := takeover.Acquire(t.Context(), h, 2, func(ctx context.Context) error {
		_, err := img.RaiseEpoch(ctx, 3)
		return err
	})
	wantCode(t, err, worker.CodeEpochAhead)
	acquire(t, w.Holder(t), 3)
}

func liveHolder(t *testing.T, _ netip.Addr, w World) {
	live := w.Holder(t)
	acquire(t, live, 1)
	next := w.Holder(t)
	wantCode(t, takeover.Acquire(t.Context(), next, 1, ready), worker.CodeImageStranger)
	write(t, live, 0, "fine")
}

func again(t *testing.T, _ netip.Addr, w World) {
	old := w.Holder(t)
	acquire(t, old, 1)
	order := worker.CutOff{Epoch: 2, Addresses: []string{old.Address()}}
	img := w.Control(t)
	cutOff(t, img, order)
	cutOff(t, img, order) // as the new holder repeats it
	next := w.Holder(t)
	acquire(t, next, 2)
	write(t, next, 0, "new1")
	cutOffKeeps(t, img, next)
}

// cutOffKeeps checks that an order from before a later grant, answered late, does that grant no harm.
func cutOffKeeps(t *testing.T, img takeover.Image, h Holder) {
	t.Helper()
	if _, err := img.RaiseEpoch(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	_, err := takeover.CutOff(t.Context(), img, worker.CutOff{Epoch: 2, Addresses: []string{h.Address()}})
	wantCode(t, err, worker.CodeEpochAhead)
	write(t, h, 0, "new2")
}

func notReady(t *testing.T, _ netip.Addr, w World) {
	buried := &worker.Failure{Code: worker.CodeTombstone, Message: "stopped"}
	err := takeover.Acquire(t.Context(), w.Holder(t), 1, func(context.Context) error { return buried })
	wantCode(t, err, worker.CodeTombstone)
	acquire(t, w.Holder(t), 1)
}
