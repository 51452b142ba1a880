package watchdog

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Whatever is not fit is not armed, and left as it was found: nothing ticks that nobody pets.
func TestRefused(t *testing.T) {
	for _, tt := range []struct {
		name   string
		device string
		alter  func(*fake)
		want   error
	}{
		{"missing", "/dev/watchdog1", func(*fake) {}, ErrMissing},
		{"no number", "/dev/watchdog", func(*fake) {}, ErrUnfit},
		{"no watchdog by its name", "/dev/sda", func(*fake) {}, ErrUnfit},
		{"of another process", "", func(f *fake) { f.opened = true }, ErrBusy},
		{"pets through the BMC", "", func(f *fake) { f.attributes["identity"] = "IPMI" }, ErrUnfit},
		{"nowayout is not known", "", func(f *fake) { delete(f.attributes, "nowayout") }, ErrMissing},
		{"can't be so long", "", func(f *fake) { f.attributes["max_timeout"] = "20" }, ErrUnfit},
		{"can't be so short", "", func(f *fake) { f.attributes["min_timeout"] = "40" }, ErrUnfit},
		{"is really longer than can be said", "", func(f *fake) { f.least = 64 }, ErrUnfit},
		{"no timeout to set", "", func(f *fake) { f.options &^= unix.WDIOF_SETTIMEOUT }, ErrUnfit},
		{"no magic close", "", func(f *fake) { f.options &^= unix.WDIOF_MAGICCLOSE }, ErrUnfit},
		{"no keepalive", "", func(f *fake) { f.options &^= unix.WDIOF_KEEPALIVEPING }, ErrUnfit},
		{"can't be pet", "", func(f *fake) { f.broken = syscall.EIO }, syscall.EIO},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake()
			tt.alter(f)
			if tt.device == "" {
				tt.device = "/dev/watchdog0"
			}
			d, err := open(f, tt.device, 30*time.Second)
			if d != nil || !errors.Is(err, tt.want) {
				t.Errorf("got %v, %v", d, err)
			}
			if f.pass(time.Hour); f.reset {
				t.Error("and the node was reset for it")
			}
		})
	}
}

// A watchdog that runs, is not fit and can't be stopped is kept, to be pet, and does not count.
func TestUnfitThatCannotBeStopped(t *testing.T) {
	f := newFake()
	f.nowayout, f.attributes["nowayout"], f.least = true, "1", 64
	d, err := open(f, "/dev/watchdog0", 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if _, unfit := d.Timeout(); !errors.Is(unfit, ErrUnfit) {
		t.Errorf("counted on: %v", unfit)
	}
	for range 10 {
		f.pass(50 * time.Second)
		if err := d.Pet(); err != nil {
			t.Fatal(err)
		}
	}
	if f.reset {
		t.Error("reset though it was pet")
	}
}

func TestBites(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(t *testing.T, f *fake, d *Dog)
		want bool
	}{
		{"not pet", func(*testing.T, *fake, *Dog) {}, true},
		{"left", func(_ *testing.T, _ *fake, d *Dog) { _ = d.Leave() }, true},
		{"stopped", func(t *testing.T, _ *fake, d *Dog) { mustStop(t, d) }, false},
		{"stopped with nowayout", func(t *testing.T, f *fake, d *Dog) {
			f.nowayout, d.nowayout = true, true
			if err := d.Stop(); !errors.Is(err, ErrNoWayOut) || !f.opened {
				t.Errorf("stopped: %v, still ours %t", err, f.opened)
			}
		}, true},
		{"stopped, and goes on", func(t *testing.T, f *fake, d *Dog) {
			f.nowayout = true
			if d.Stop() == nil || !f.opened {
				t.Error("called stopped while it goes on, or let go")
			}
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake()
			f.least = 35 // the real timeout is what counts
			d := mustOpen(t, f, "/dev/watchdog0")
			if real, _ := d.Timeout(); real != 35*time.Second {
				t.Errorf("timeout %s", real)
			}
			tt.end(t, f, d)
			if f.pass(34 * time.Second); f.reset {
				t.Error("too early")
			}
			if f.pass(time.Second); f.reset != tt.want {
				t.Errorf("reset: %t", f.reset)
			}
		})
	}
}

func TestTellsThatItBit(t *testing.T) {
	f := newFake()
	f.boot = unix.WDIOF_CARDRESET
	if !mustOpen(t, f, "/dev/watchdog0").Bitten() || mustOpen(t, newFake(), "/dev/watchdog0").Bitten() {
		t.Error("the boot status is not told")
	}
}
