// Package boottime reads CLOCK_BOOTTIME: it counts through suspend and no wall-clock change moves it. Every
// deadline that safety hangs on is counted on it (I5).
package boottime

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Time is a reading of CLOCK_BOOTTIME since the machine booted. It has meaning on this machine alone.
type Time time.Duration

// Now reads the clock. The call can't block, so the runtime isn't told of it: it would wake a thread to watch over it.
func Now() Time {
	var ts unix.Timespec
	if _, _, errno := unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&ts)), 0); errno != 0 {
		panic("read CLOCK_BOOTTIME: " + errno.Error()) // Linux 2.6.39 and later always have it
	}
	return Time(ts.Nano())
}

// Add returns t moved by d.
func (t Time) Add(d time.Duration) Time { return t + Time(d) }

// Sub returns how long after u t is.
func (t Time) Sub(u Time) time.Duration { return time.Duration(t - u) }
