package watchdog

import (
	"errors"
	"testing"
	"time"
)

// contract is what the guard relies on, of the fake and of the real one. It leaves the watchdog stopped.
var contract = []struct {
	name string
	do   func(t *testing.T, k kernel, device, name string)
}{
	{"arms with the timeout that it reads back, and stops", func(t *testing.T, k kernel, device, name string) {
		d := mustOpen(t, k, device)
		real, unfit := d.Timeout()
		if unfit != nil || real < LeastTimeout || real > MostTimeout {
			t.Errorf("timeout %s, %v", real, unfit)
		}
		wantState(t, k, name, "active")
		if err := d.Pet(); err != nil {
			t.Error(err)
		}
		mustStop(t, d)
		wantState(t, k, name, "inactive")
	}},
	{"has one owner", func(t *testing.T, k kernel, device, name string) {
		d := mustOpen(t, k, device)
		if second, err := open(k, device, 30*time.Second); !errors.Is(err, ErrBusy) || second != nil {
			t.Errorf("a second owner: %v, %v", second, err)
		}
		wantState(t, k, name, "active")
		mustStop(t, d)
	}},
	{"goes on when it is left, and is taken up again", func(t *testing.T, k kernel, device, name string) {
		if err := mustOpen(t, k, device).Leave(); err != nil {
			t.Error(err)
		}
		wantState(t, k, name, "active")
		mustStop(t, mustOpen(t, k, device))
		wantState(t, k, name, "inactive")
	}},
	{"is missed by name", func(t *testing.T, k kernel, _, _ string) {
		if _, err := open(k, "/dev/watchdog99", 30*time.Second); !errors.Is(err, ErrMissing) {
			t.Error(err)
		}
	}},
}

func runContract(t *testing.T, k kernel, device, name string) {
	for _, c := range contract {
		t.Run(c.name, func(t *testing.T) { c.do(t, k, device, name) })
	}
}

func mustOpen(t *testing.T, k kernel, device string) *Dog {
	t.Helper()
	d, err := open(k, device, 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func mustStop(t *testing.T, d *Dog) {
	t.Helper()
	if err := d.Stop(); err != nil {
		t.Error(err)
	}
}

func wantState(t *testing.T, k kernel, name, want string) {
	t.Helper()
	if got, err := k.Attribute(name + "/state"); err != nil || got != want {
		t.Errorf("state %q, %v, want %q", got, err, want)
	}
}

func TestFakeKeepsTheContract(t *testing.T) { runContract(t, newFake(), "/dev/watchdog0", "watchdog0") }
