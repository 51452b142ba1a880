package clock_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepone-ha/keepone/pkg/clock"
)

type frozen struct{ asked time.Duration }

func (*frozen) Now() time.Time { return time.Unix(7, 0) }

func (f *frozen) Pause(_ context.Context, d time.Duration) error {
	f.asked += d
	return nil
}

func (f *frozen) Within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	f.asked += d
	return ctx, func() {}
}

func TestCarried(t *testing.T) {
	f := &frozen{}
	ctx := clock.With(t.Context(), f)
	if err := clock.Pause(ctx, time.Hour); err != nil || f.asked != time.Hour {
		t.Errorf("paused for %s: %v", f.asked, err)
	}
	if _, cancel := clock.WithTimeout(ctx, time.Hour); f.asked != 2*time.Hour {
		t.Errorf("within %s", f.asked)
	} else {
		cancel()
	}
	if !clock.Now(ctx).Equal(time.Unix(7, 0)) {
		t.Errorf("now %s", clock.Now(ctx))
	}
}

func TestReal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := clock.Now(t.Context())
		if err := clock.Pause(t.Context(), time.Minute); err != nil || time.Since(began) != time.Minute {
			t.Errorf("paused for %s: %v", time.Since(began), err)
		}
		ctx, cancel := clock.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := clock.Pause(ctx, time.Minute); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a pause outlived its context: %v", err)
		}
	})
}
