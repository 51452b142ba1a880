package fence

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keepone-ha/keepone/pkg/clock"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/drive/ipmi"
)

// Why two readings were no proof.
var (
	ErrOn       = errors.New("power is on")
	ErrUnsure   = errors.New("power readings contradict each other")
	ErrIdentity = errors.New("the BMC at this address is not this node's: check for swapped BMC addresses")
)

// ReadOff reads the BMC's identity, then its power twice, gap apart, and returns a bmc-off proof if both say
// off (Kind and Reading are set; the rest is the caller's). It orders nothing. It ends as soon as ctx does.
func ReadOff(ctx context.Context, bmc BMC, guid string, gap time.Duration) (core.Proof, error) {
	identity, err := identify(ctx, bmc, guid)
	if err != nil {
		return core.Proof{}, err
	}
	first, err := bmc.Power(ctx)
	if err != nil {
		return core.Proof{}, fmt.Errorf("first reading: %w", err)
	}
	if err := isOff(first); err != nil {
		return core.Proof{}, err
	}
	if err := clock.Pause(ctx, gap); err != nil {
		return core.Proof{}, fmt.Errorf("wait for second reading: %w", err)
	}
	second, err := bmc.Power(ctx)
	if err != nil {
		return core.Proof{}, fmt.Errorf("second reading: %w", err)
	}
	if second.State == ipmi.On {
		return core.Proof{}, fmt.Errorf("%w: off, then on", ErrUnsure)
	}
	if err := isOff(second); err != nil {
		return core.Proof{}, err
	}
	// I3: one answer that is handed out twice is one reading.
	apart := second.At.Sub(first.At)
	if apart < gap || apart <= 0 {
		return core.Proof{}, fmt.Errorf("%w: the second is only %s after the first", ErrUnsure, apart)
	}
	return core.Proof{
		Kind:    core.ProofBMCOff,
		Reading: fmt.Sprintf("BMC read off twice, %s apart, %s", apart.Round(time.Millisecond), identity),
	}, nil
}

// identify makes sure that the BMC is this node's (I3: swapped addresses void bmc-off, and an order to the
// wrong machine would stop an innocent one). It returns what is known of the identity in words.
func identify(ctx context.Context, bmc BMC, guid string) (string, error) {
	if guid == "" {
		return "identity not checked: no guid is configured", nil
	}
	read, err := bmc.Identity(ctx)
	if err != nil {
		return "", fmt.Errorf("check identity: %w", err)
	}
	if !ipmi.SameGUID(read, guid) {
		return "", fmt.Errorf("%w: its GUID is %s, not %s", ErrIdentity, read, guid)
	}
	return "its GUID matches", nil
}

func isOff(reading ipmi.Reading) error {
	switch reading.State {
	case ipmi.Off:
		return nil
	case ipmi.On:
		return ErrOn
	}
	return fmt.Errorf("%w: state unknown", ErrUnsure)
}
