package fence

import (
	"context"
	"fmt"
	"time"

	"github.com/keepone-ha/keepone/pkg/clock"
	"github.com/keepone-ha/keepone/pkg/drive/ipmi"
)

// ReadPower reads the BMC's identity, then its power once. That is no proof of anything: see ReadOff. The state is on or
// off, or there is an error.
func ReadPower(ctx context.Context, bmc BMC, guid string) (ipmi.State, error) {
	if _, err := identify(ctx, bmc, guid); err != nil {
		return ipmi.Unknown, err
	}
	reading, err := bmc.Power(ctx)
	if err != nil {
		return ipmi.Unknown, err
	}
	if reading.State == ipmi.Unknown {
		return ipmi.Unknown, fmt.Errorf("%w: state unknown", ErrUnsure)
	}
	return reading.State, nil
}

// PowerOn orders power on until the BMC says that it is, or ctx ends. A machine that is on is left alone.
func PowerOn(ctx context.Context, bmc interface {
	BMC
	Starter
}, guid string,
) error {
	var last time.Time
	for {
		state, err := ReadPower(ctx, bmc, guid)
		switch {
		case err == nil && state == ipmi.On:
			return nil
		case err != nil && hopeless(err):
			return err
		case err == nil && time.Since(last) >= resend:
			last = time.Now()
			err = bmc.On(ctx)
		}
		if wait := clock.Pause(ctx, readPause); wait != nil {
			if err == nil {
				err = wait
			}
			return fmt.Errorf("power is not on yet: %w", err)
		}
	}
}
