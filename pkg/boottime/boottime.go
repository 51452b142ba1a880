// Package boottime reads CLOCK_BOOTTIME: it counts through suspend and no wall-clock change moves it. Every
// deadline that safety hangs on is counted on it (I5).
package boottime

import (
	"time"

	"golang.org/x/sys/unix"
)

// Time is a reading of CLOCK_BOOTTIME since the machine booted. It has meaning on this machine alone.
type Time time.Duration

// Now reads the clock.
func Now() Time {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("read CLOCK_BOOTTIME: " + err.Error()) // Linux 2.6.39 and later always have it
	}
	return Time(ts.Nano())
}

// Add returns t moved by d.
func (t Time) Add(d time.Duration) Time { return t + Time(d) }

// Sub returns how long after u t is.
func (t Time) Sub(u Time) time.Duration { return time.Duration(t - u) }
