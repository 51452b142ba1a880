package guard

import (
	"bytes"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// TestThreadsTakeTurns runs in a process of its own: real time would stay with the tests that follow.
func TestThreadsTakeTurns(t *testing.T) {
	if os.Getenv("KEEPONE_HARDENED") == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestThreadsTakeTurns$", "-test.v")
		cmd.Env = append(os.Environ(), "KEEPONE_HARDENED=1")
		out, err := cmd.CombinedOutput()
		switch {
		case err != nil:
			t.Errorf("%v: %s", err, out)
		case !bytes.Contains(out, []byte("--- PASS")):
			t.Skipf("%s", out)
		}
		return
	}
	runtime.GOMAXPROCS(min(2, runtime.NumCPU()))
	if err := setRealtime(); err != nil {
		t.Skipf("no real-time priority here: %v", err)
	}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		if err != nil {
			t.Fatal(err)
		}
		attr, err := unix.SchedGetAttr(tid, 0)
		if err != nil {
			continue // it has ended
		}
		if attr.Policy != unix.SCHED_RR || attr.Priority != realtime {
			t.Errorf("thread %d has policy %d, priority %d", tid, attr.Policy, attr.Priority)
		}
	}
}
