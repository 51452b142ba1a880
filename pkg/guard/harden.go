package guard

import (
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	// realtime is above every ordinary process and below what a kernel runs for itself (watchdog, migration).
	realtime = 20
	// gcPercent keeps the heap near the runtime's least, 1 MB. A memory limit would not help: what Go maps without
	// touching counts for it, and a limit below that has the collector run without end.
	gcPercent = 25
)

// Harden keeps the guard in memory and ahead of ordinary processes, so that a node that swaps or is overloaded does
// not take a lease from itself. What is not permitted, as in a container, is logged and done without.
func Harden(log *slog.Logger) {
	debug.SetGCPercent(gcPercent)
	runtime.GOMAXPROCS(min(2, runtime.NumCPU())) // the loop, and containments
	if err := setRealtime(); err != nil {
		log.Warn("guard runs without real-time priority", "error", err)
	}
	// On fault: what is touched stays, what Go only reserved costs nothing.
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		log.Warn("guard's memory is not locked", "error", err)
	}
}

// setRealtime covers the threads that are there; later ones inherit it from them. They take turns (SCHED_RR): in Go's
// runtime a thread may spin until another has done its part, and with SCHED_FIFO that other one would never run on a
// machine with one processor.
func setRealtime() error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("list threads: %w", err)
	}
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		if err != nil {
			continue
		}
		attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: realtime}
		if err := unix.SchedSetAttr(tid, &attr, 0); err != nil {
			return fmt.Errorf("set scheduling: %w", err)
		}
	}
	return nil
}
