package guard

import (
	"fmt"
	"time"

	"github.com/keepone-ha/keepone/pkg/boottime"
)

// Watchdog is one that runs: unless it is pet within its timeout, the node is reset. What can't be contained is left
// to it (I5).
type Watchdog interface {
	Pet() error
	Timeout() (time.Duration, error) // the real one; an error says why it does not count, though it must be pet
	Bitten() bool                    // it caused the last reset
	Stop() error                     // it does not run any more; on an error it does, and is still to be pet or left
	Leave() error                    // it is closed and runs on
}

// WatchdogConf says which watchdog the guard is to arm; no device: none.
type WatchdogConf struct {
	Device  string
	Timeout time.Duration
}

// dog is the guard's watchdog. The loop's goroutine alone touches it: what pets must be what guards.
type dog struct {
	is     Watchdog // nil: none runs on our account
	conf   WatchdogConf
	retry  boottime.Time // it is not opened before
	why    string        // it is not armed, empty if it is or if none is wanted
	bitten bool
}

// reopen is the wait after a watchdog could not be armed: well below any timeout, since it may tick already.
const reopen = 2 * time.Second

// tend keeps the watchdog as guard.conf wants it, armed all the time, and pets it.
func (g *Guard) tend(now boottime.Time) {
	want := g.conf.Watchdog
	// One that is to go, or to be another, stays until nothing runs here that it stands for.
	if g.dog.is != nil && g.dog.conf != want && g.harmless(now) {
		g.dropDog(want)
	}
	switch {
	case g.dog.is == nil && want.Device == "":
		g.dog.why = ""
		g.well("watchdog")
	case g.dog.is == nil && now >= g.dog.retry:
		g.arm(now, want)
	}
	g.pet(now)
}

// arm opens the watchdog. While something is overdue it would only reset the node, at a moment that nobody chose.
func (g *Guard) arm(now boottime.Time, want WatchdogConf) {
	if g.o.Watchdog == nil || len(g.overdue(now)) > 0 {
		return
	}
	is, err := g.o.Watchdog(want.Device, want.Timeout)
	if err != nil {
		g.dog.retry = now.Add(reopen)
		g.notArmed(err)
		return
	}
	g.dog = dog{is: is, conf: want, bitten: is.Bitten()}
	real, unfit := is.Timeout()
	if unfit != nil {
		g.notArmed(unfit)
		return
	}
	g.well("watchdog")
	g.o.Log.Info("watchdog armed", "device", want.Device, "timeout", real, "caused the last reset", g.dog.bitten)
}

// pet keeps the watchdog quiet while nothing is overdue (I5). One that fails is opened anew.
func (g *Guard) pet(now boottime.Time) {
	if g.dog.is == nil || len(g.overdue(now)) > 0 {
		return
	}
	if err := g.dog.is.Pet(); err != nil {
		_ = g.dog.is.Leave()
		g.dog.is = nil
		g.notArmed(err)
	}
}

func (g *Guard) notArmed(why error) {
	g.dog.why = why.Error()
	g.warn("watchdog", why)
}

// armed is the real timeout of a watchdog that can be counted on, else 0.
func (g *Guard) armed() time.Duration {
	if g.dog.is == nil {
		return 0
	}
	timeout, unfit := g.dog.is.Timeout()
	if unfit != nil {
		return 0
	}
	return timeout
}

// harmless reports whether nothing runs here that must end at a deadline.
func (g *Guard) harmless(now boottime.Time) bool {
	if g.leases.InMaintenance(now) {
		return true
	}
	for _, s := range g.services {
		if s.state != HeldContained {
			return false
		}
	}
	return true
}

// dropDog stops the watchdog for another one, or none. What can't be stopped is kept as it is, and pet.
func (g *Guard) dropDog(want WatchdogConf) {
	if err := g.dog.is.Stop(); err != nil {
		g.dog.conf = want
		g.o.Log.Warn("watchdog can't be stopped: it is kept as it was, and pet", "error", err)
		return
	}
	g.o.Log.Info("watchdog stopped", "device", g.dog.conf.Device)
	g.dog = dog{}
}

// park is the guard's last act. With something here that must end at a deadline the watchdog runs on: the next guard
// takes it up in time, or nobody would end it but a reset (I5).
func (g *Guard) park() {
	if g.dog.is == nil {
		return
	}
	now := g.o.Now()
	g.collect(now)
	g.scan(now)
	why := error(nil)
	if g.harmless(now) {
		if why = g.dog.is.Stop(); why == nil {
			g.o.Log.Info("watchdog stopped", "device", g.dog.conf.Device)
			return
		}
	}
	timeout, _ := g.dog.is.Timeout()
	g.o.Log.Warn("watchdog runs on: without a guard it resets this node", "within", timeout, "error", why, "left", g.dog.is.Leave())
}

func (g *Guard) watchdogStatus() WatchdogStatus {
	st := WatchdogStatus{Device: g.conf.Watchdog.Device, Reason: g.dog.why, Bitten: g.dog.bitten}
	if g.dog.is != nil {
		st.Device, st.Timeout = g.dog.conf.Device, g.armed()
		st.Armed = st.Timeout > 0
	}
	if st.Device != "" && !st.Armed && st.Reason == "" {
		st.Reason = fmt.Sprintf("%s waits to be armed", st.Device)
	}
	return st
}
