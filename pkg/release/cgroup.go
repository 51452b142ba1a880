package release

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroupFS works on cgroup v2 by its files: cgroup.events, cgroup.kill, cgroup.freeze, cgroup.procs.
type cgroupFS struct {
	proc   string
	anyFS  bool                                 // tests: the tree is not on cgroup2
	signal func(pid int, sig unix.Signal) error // tests
}

// Populated asks the kernel, which counts nested cgroups too.
func (c cgroupFS) Populated(path string) (bool, error) {
	if !filepath.IsAbs(path) {
		return true, fmt.Errorf("read cgroup: %q is no absolute path", path)
	}
	text, err := os.ReadFile(filepath.Join(path, "cgroup.events"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return c.absent(path)
	}
	if err != nil {
		return true, fmt.Errorf("read cgroup: %w", err)
	}
	return parsePopulated(string(text))
}

// absent believes in an absent cgroup only where cgroup v2 is mounted: with no cgroup file system in sight nothing
// is known about processes.
func (c cgroupFS) absent(path string) (bool, error) {
	if _, err := os.Stat(path); err == nil {
		return true, fmt.Errorf("read cgroup: %s has no cgroup.events", path)
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		var st unix.Statfs_t
		switch err := unix.Statfs(dir, &st); {
		case err == nil && (c.anyFS || st.Type == unix.CGROUP2_SUPER_MAGIC):
			return false, nil
		case err == nil:
			return true, fmt.Errorf("read cgroup: %s is not on cgroup v2", path)
		case !errors.Is(err, unix.ENOENT) || dir == "/":
			return true, fmt.Errorf("read cgroup %s: %w", path, err)
		}
	}
}

func parsePopulated(events string) (bool, error) {
	for line := range strings.Lines(events) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "populated "); ok {
			return value != "0", nil
		}
	}
	return true, errors.New("read cgroup: cgroup.events names no populated")
}

// Kill uses cgroup.kill, which no fork escapes and which kills what is frozen or stopped: freezing first would add
// nothing but a state to get stuck in. A kernel before 5.14 has no cgroup.kill: there the freeze keeps processes
// from forking away from a sweep of kills.
func (c cgroupFS) Kill(path string) error {
	err := os.WriteFile(filepath.Join(path, "cgroup.kill"), []byte("1"), 0)
	if err == nil {
		return nil
	}
	if _, gone := os.Stat(path); errors.Is(gone, fs.ErrNotExist) {
		return nil
	}
	_ = os.WriteFile(filepath.Join(path, "cgroup.freeze"), []byte("1"), 0)
	sweep := c.sweep(path)
	_ = os.WriteFile(filepath.Join(path, "cgroup.freeze"), []byte("0"), 0)
	if sweep != nil && !errors.Is(err, fs.ErrNotExist) {
		sweep = errors.Join(err, sweep)
	}
	return sweep
}

// sweep kills each process once. A pid that is read may be reused before it is killed, so the pidfd is taken first
// and the pid's cgroup looked at again.
func (c cgroupFS) sweep(path string) error {
	pids, err := c.pids(path)
	errs := []error{err}
	for _, pid := range pids {
		if c.signal != nil {
			errs = append(errs, c.signal(pid, unix.SIGKILL))
			continue
		}
		errs = append(errs, c.killMember(path, pid))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("kill cgroup: %w", err)
	}
	return nil
}

func (c cgroupFS) killMember(path string, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return ignoreGone(err)
	}
	defer func() { _ = unix.Close(fd) }()
	pids, err := c.pids(path)
	if err != nil {
		return err
	}
	for _, again := range pids {
		if again == pid {
			return ignoreGone(unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0))
		}
	}
	return nil
}

func ignoreGone(err error) error {
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// pids of the cgroup and of all below it.
func (c cgroupFS) pids(path string) ([]int, error) {
	var pids []int
	err := filepath.WalkDir(path, func(dir string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || (err == nil && !entry.IsDir()) {
			return nil
		}
		if err != nil {
			return err
		}
		text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			return nil
		}
		for _, field := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return err
	})
	if err != nil {
		return pids, fmt.Errorf("list cgroup: %w", err)
	}
	return pids, nil
}

// maxSurvivors that are named: one is enough to look at, a thousand would hide it.
const maxSurvivors = 8

// Survivors names pid, comm, state and where in the kernel each of them waits.
func (c cgroupFS) Survivors(path string) []string {
	pids, _ := c.pids(path)
	var words []string
	for _, pid := range pids[:min(len(pids), maxSurvivors)] {
		dir := filepath.Join(c.proc, strconv.Itoa(pid))
		text, _ := os.ReadFile(filepath.Join(dir, "stat"))
		stat, err := parseStat(string(text))
		if err != nil {
			continue
		}
		wchan, _ := os.ReadFile(filepath.Join(dir, "wchan"))
		words = append(words, fmt.Sprintf("pid %d (%s) in state %c at %s", pid, stat.comm, stat.state, wchan))
	}
	return words
}

// killAgain is between two sweeps of a cgroup that does not empty: cgroup.kill is atomic, but on a kernel without it
// a sweep may miss a fork.
const killAgain = 100 * time.Millisecond
