package netif

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func always() bool { return true }

func TestAnnounceForAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin, sent := time.Now(), 0
		if err := announce(t.Context(), calm, always, nil, func() error { sent++; return nil }); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); sent != 9 || took < time.Minute || took > 70*time.Second {
			t.Errorf("%d announcements in %s", sent, took)
		}
	})
}

// An old holder's kernel is outnumbered for as long as the service runs here.
func TestAnnounceContested(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		sent := 0
		if err := announce(ctx, contested, always, nil, func() error { sent++; return nil }); err != nil || sent < 10*60*4 {
			t.Errorf("%d announcements in ten minutes, %v", sent, err)
		}
	})
}

// I5: once the lease is over the addresses may be another node's.
func TestAnnounceEndsWithTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		good := func() bool { return time.Since(begin) < 3*time.Second }
		err := announce(t.Context(), calm, good, nil, func() error {
			if !good() {
				t.Error("announced after the lease")
			}
			return nil
		})
		if took := time.Since(begin); err != nil || took > 10*time.Second {
			t.Errorf("ended after %s, %v", took, err)
		}
		err = announce(t.Context(), calm, func() bool { return false }, nil, func() error { t.Error("sent"); return nil })
		if err != nil {
			t.Error(err)
		}
	})
}

func TestAnnounceErrorsAndCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("no bridge")
		if err := announce(t.Context(), calm, always, nil, func() error { return broken }); !errors.Is(err, broken) {
			t.Errorf("err = %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		begin, sent, failed := time.Now(), 0, 0
		err := announce(ctx, calm, always, func(error) { failed++ }, func() error {
			if sent++; sent > 1 {
				return broken
			}
			return nil
		})
		if err != nil || failed != sent-1 || failed == 0 || time.Since(begin) != 5*time.Second {
			t.Errorf("%d of %d failed, %s, %v", failed, sent, time.Since(begin), err)
		}
	})
}
