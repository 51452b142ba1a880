package guard

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/release"
)

var errDog = errors.New("the dog is ill")

// hound is a watchdog that tells what was done to it.
type hound struct {
	timeout time.Duration
	opened  int
	pets    int
	stopped int
	left    int
	open    error
	pet     error
	stop    error
	unfit   error
}

func (h *hound) arm(device string, timeout time.Duration) (Watchdog, error) {
	h.opened++
	if h.open != nil || device != houndConf.Device {
		return nil, errors.Join(h.open, errDog)
	}
	h.timeout = timeout + time.Second // what it can really do
	return h, nil
}

func (h *hound) Pet() error                      { h.pets++; return h.pet }
func (h *hound) Timeout() (time.Duration, error) { return h.timeout, h.unfit }
func (h *hound) Bitten() bool                    { return true }
func (h *hound) Leave() error                    { h.left++; return nil }

func (h *hound) Stop() error {
	if h.stop == nil {
		h.stopped++
	}
	return h.stop
}

var houndConf = WatchdogConf{"/dev/watchdog0", 30 * time.Second}

const kennelTime = boottime.Time(time.Hour)

// kennel is a guard with a watchdog in its configuration.
func kennel(t *testing.T, h *hound) *Guard {
	t.Helper()
	g, err := New(Options{
		RunDir: t.TempDir(), Log: slog.New(slog.DiscardHandler), Watchdog: h.arm,
		Now: func() boottime.Time { return kennelTime },
	})
	if err != nil {
		t.Fatal(err)
	}
	g.conf.Watchdog = houndConf
	return g
}

// holding gives the guard a service whose lease begins at kennelTime.
func holding(g *Guard, state HeldState) {
	g.services["one"] = &service{record: release.Record{Service: "one", Epoch: 1}, state: state, busy: true}
	g.leases.See(Right{"one", 1}, kennelTime)
}

// The watchdog is pet while all is well, and left to bite once something is overdue (I5).
func TestStuckIsLeftToTheWatchdog(t *testing.T) {
	h := &hound{}
	g := kennel(t, h)
	holding(g, HeldStuck)
	g.tend(kennelTime)
	g.tend(kennelTime.Add(defaultLease + overdueAfter))
	if h.pets != 2 {
		t.Errorf("pet %d times within the bounds", h.pets)
	}
	g.tend(kennelTime.Add(defaultLease + overdueAfter + 1))
	if h.pets != 2 || h.opened != 1 || h.left+h.stopped != 0 {
		t.Errorf("the watchdog is kept from biting: %+v", h)
	}
	if g.armed() != 31*time.Second {
		t.Error("it is about to bite, and not called armed")
	}
	g.services["one"].state = HeldContained
	g.tend(kennelTime.Add(time.Hour))
	if h.pets != 3 {
		t.Error("nothing is overdue any more, and it is left to bite")
	}
}

// A service that was not contained in time when the watchdog came would have it bite at once.
func TestNotArmedIntoWhatIsOverdue(t *testing.T) {
	h := &hound{}
	g := kennel(t, h)
	holding(g, HeldStuck)
	g.tend(kennelTime.Add(time.Hour))
	if h.opened != 0 || g.armed() != 0 || g.watchdogStatus().Reason == "" {
		t.Errorf("armed: %+v, %+v", h, g.watchdogStatus())
	}
	delete(g.services, "one")
	g.tend(kennelTime.Add(time.Hour))
	if h.opened != 1 || g.armed() != 31*time.Second {
		t.Errorf("not armed: %+v", h)
	}
}

func TestArmedOnlyIfItCounts(t *testing.T) {
	for _, tt := range []struct {
		name string
		h    hound
		conf WatchdogConf
		want WatchdogStatus
	}{
		{"none is wanted", hound{}, WatchdogConf{}, WatchdogStatus{}},
		{"armed", hound{}, houndConf, WatchdogStatus{"/dev/watchdog0", true, 31 * time.Second, "", true}},
		{"missing", hound{}, WatchdogConf{"/dev/watchdog7", time.Minute}, WatchdogStatus{"/dev/watchdog7", false, 0, errDog.Error(), false}},
		{"unfit, and can't be stopped", hound{unfit: errDog}, houndConf, WatchdogStatus{"/dev/watchdog0", false, 0, errDog.Error(), true}},
		{"can't be pet", hound{pet: errDog}, houndConf, WatchdogStatus{"/dev/watchdog0", false, 0, errDog.Error(), true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := kennel(t, &tt.h)
			g.conf.Watchdog = tt.conf
			g.tend(kennelTime)
			if got := g.watchdogStatus(); got != tt.want || (g.armed() > 0) != tt.want.Armed {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

// One that fails is left, not stopped, and taken up again as soon as it can be.
func TestWatchdogComesBack(t *testing.T) {
	h := &hound{}
	g := kennel(t, h)
	g.tend(kennelTime)
	h.pet, h.open = errDog, errDog
	g.tend(kennelTime.Add(time.Second))
	if g.armed() != 0 || h.left != 1 || h.stopped != 0 {
		t.Errorf("failed: %+v", h)
	}
	h.pet = nil
	g.tend(kennelTime.Add(2 * time.Second))
	h.open = nil
	g.tend(kennelTime.Add(2*time.Second + reopen - 1))
	if h.opened != 2 || g.armed() != 0 {
		t.Errorf("opened again and again: %+v", h)
	}
	g.tend(kennelTime.Add(2*time.Second + reopen))
	if g.armed() == 0 || g.watchdogStatus().Reason != "" {
		t.Errorf("not armed again: %+v, %+v", h, g.watchdogStatus())
	}
}

// A guard that ends stops the watchdog only if nothing runs here that must end at a deadline (I5).
func TestParked(t *testing.T) {
	for _, tt := range []struct {
		name        string
		state       HeldState
		held        bool
		maintenance bool
		stop        error
		want        hound
	}{
		{name: "nothing is here", want: hound{stopped: 1}},
		{name: "a service runs", held: true, state: HeldRunning, want: hound{left: 1}},
		{name: "a service is stuck", held: true, state: HeldStuck, want: hound{left: 1}},
		{name: "a service is contained", held: true, state: HeldContained, want: hound{stopped: 1}},
		{name: "a service runs in maintenance", held: true, maintenance: true, want: hound{stopped: 1}},
		{name: "it can't be stopped", stop: errDog, want: hound{left: 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := &hound{stop: tt.stop}
			g := kennel(t, h)
			g.tend(kennelTime)
			if tt.held {
				record := release.Record{Service: "one", Epoch: 1, Attempt: 1}
				if err := record.Save(g.o.RunDir); err != nil {
					t.Fatal(err)
				}
				g.scan(kennelTime)
				g.services["one"].state = tt.state
			}
			if tt.maintenance {
				g.leases.maintenance = kennelTime.Add(time.Hour)
			}
			g.park()
			if h.stopped != tt.want.stopped || h.left != tt.want.left {
				t.Errorf("stopped %d, left %d", h.stopped, h.left)
			}
		})
	}
}

// A service that came up after the last look counts too.
func TestParkLooksAgain(t *testing.T) {
	h := &hound{}
	g := kennel(t, h)
	g.tend(kennelTime)
	if err := (release.Record{Service: "one", Epoch: 1, Attempt: 1}).Save(g.o.RunDir); err != nil {
		t.Fatal(err)
	}
	if g.park(); h.stopped != 0 || h.left != 1 {
		t.Errorf("stopped with a service that runs: %+v", h)
	}
}

// Another configuration waits until nothing runs here; what can't be stopped is pet on.
func TestWatchdogIsTakenOut(t *testing.T) {
	h := &hound{}
	g := kennel(t, h)
	g.tend(kennelTime)
	holding(g, HeldRunning)
	g.conf.Watchdog = WatchdogConf{}
	g.tend(kennelTime)
	if h.stopped != 0 || g.armed() == 0 {
		t.Errorf("stopped under a service: %+v", h)
	}
	delete(g.services, "one")
	h.stop = errDog
	g.tend(kennelTime)
	g.tend(kennelTime.Add(time.Second))
	if h.left+h.stopped != 0 || h.pets != 4 || g.armed() == 0 {
		t.Errorf("one that can't be stopped is not pet: %+v", h)
	}
	h.stop = nil
	g.conf.Watchdog = houndConf // comes back longer
	g.conf.Watchdog.Timeout *= 2
	g.tend(kennelTime.Add(2 * time.Second))
	if h.stopped != 1 || g.armed() != 61*time.Second {
		t.Errorf("not taken up anew: %+v", h)
	}
}

// The whole guard: armed by guard.conf, told in heartbeats, stopped with the guard.
func TestGuardWithWatchdog(t *testing.T) {
	h := &hound{}
	b := newBench(t)
	b.kennel = h.arm
	stop := b.start()
	b.configure()
	b.until("no watchdog is armed", func(h Heartbeat) bool { return h.Watchdog == 0 })
	b.conf.Watchdog = houndConf
	b.configure()
	b.until("it is armed", func(h Heartbeat) bool { return h.Watchdog == 31*time.Second })
	stop()
	if h.stopped != 1 || h.pets == 0 || h.left != 0 {
		t.Errorf("after a clean stop: %+v", h)
	}
	b.name(Right{"one", 1})
	stop = b.start()
	_ = b.leased("one", 1).Close()
	b.record("one", 1, 1)
	b.until("one runs", func(h Heartbeat) bool { return len(h.Services) == 1 && h.Watchdog != 0 })
	stop()
	if h.stopped != 1 || h.left != 1 {
		t.Errorf("after a stop under a service: %+v", h)
	}
}
