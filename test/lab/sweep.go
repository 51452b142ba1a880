package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroup is a lab's folder in the cgroup v2 tree. The outer program keeps its lock for as long as it lives.
type cgroup struct {
	dir  string
	lock *os.File
}

// cgroupRoot finds where cgroup v2 is mounted.
func cgroupRoot() (string, error) {
	mounts, err := readMounts("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for _, m := range mounts {
		if m.fs == "cgroup2" {
			return m.point, nil
		}
	}
	return "", errors.New("cgroup v2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup")
}

// openCgroup makes and locks this lab's cgroup.
func openCgroup() (*cgroup, error) {
	root, err := cgroupRoot()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(root, fmt.Sprintf("%s%d-", workPrefix, os.Getpid()))
	if err != nil {
		return nil, fmt.Errorf("make cgroup: %w", err)
	}
	lock, err := lockFolder(dir)
	if err != nil {
		return nil, fmt.Errorf("lock cgroup %s: %w", dir, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "cgroup.kill")); err != nil {
		lock.Close()
		return nil, errors.Join(os.Remove(dir), fmt.Errorf("%w: cgroup v2 has no cgroup.kill: Linux 5.14 or later is needed", ErrUnfit))
	}
	return &cgroup{dir: dir, lock: lock}, nil
}

// lockFolder takes the folder's lock, or says at once that another process has it.
func lockFolder(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// child makes a cgroup below and opens it, so that a process can be born in it.
func (g *cgroup) child(name string) (*os.File, error) {
	return openChildGroup(g.dir, name)
}

func openChildGroup(parent, name string) (*os.File, error) {
	dir := filepath.Join(parent, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make cgroup: %w", err)
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open cgroup: %w", err)
	}
	return f, nil
}

// close kills whatever is left in the cgroup and removes it.
func (g *cgroup) close() error {
	defer g.lock.Close()
	return removeGroup(g.dir, killGrace)
}

// removeGroup kills every process below dir, waits for their end and removes the folders.
func removeGroup(dir string, bound time.Duration) error {
	end := time.Now().Add(bound)
	for try := 0; try == 0 || populated(dir); try++ {
		// Once is not enough: the kernel passes over a program with threads that is just then becoming another.
		if err := killGroup(dir); errors.Is(err, os.ErrNotExist) {
			return nil
		} else if err != nil {
			return fmt.Errorf("kill cgroup: %w", err)
		}
		for range 10 {
			if !populated(dir) {
				break
			}
			time.Sleep(2 * time.Millisecond)
		}
		if time.Now().After(end) {
			return fmt.Errorf("kill cgroup %s: processes are left after %v (uninterruptible)", dir, bound)
		}
	}
	return removeTree(dir)
}

func killGroup(dir string) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
}

// populated is true while a process, zombies aside, is in the cgroup or below it.
func populated(dir string) bool {
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
	return err == nil && strings.Contains(string(text), "populated 1")
}

// removeTree removes empty cgroups, the deepest first. os.RemoveAll can't: their files can't be unlinked.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("list cgroup: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	// A cgroup stays busy for a moment after its last process was reaped.
	for try := 0; ; try++ {
		err = unix.Rmdir(dir)
		if !errors.Is(err, unix.EBUSY) || try == 200 {
			break
		}
		time.Sleep(2 * time.Millisecond)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove cgroup %s: %w", dir, err)
	}
	return nil
}

// sweep removes what dead labs left: their cgroups with every process in them, work folders, loop devices.
// Whatever a living lab holds is locked by it.
func sweep() error {
	root, err := cgroupRoot()
	if err != nil {
		return err
	}
	groups, _ := filepath.Glob(filepath.Join(root, workPrefix+"*"))
	var errs []error
	for _, dir := range groups {
		if fresh(dir) {
			continue
		}
		if lock, err := lockFolder(dir); err == nil {
			errs = append(errs, removeGroup(dir, killGrace))
			lock.Close()
		}
	}
	works, _ := filepath.Glob(filepath.Join(os.TempDir(), workPrefix+"*"))
	for _, dir := range works {
		errs = append(errs, sweepWork(dir))
	}
	return errors.Join(append(errs, releaseDeadLoops())...)
}

// fresh spares a folder that its maker may not have locked yet.
func fresh(dir string) bool {
	info, err := os.Stat(dir)
	return err == nil && time.Since(info.ModTime()) < time.Second
}

func sweepWork(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, workKeep)); err == nil {
		return nil
	}
	lock, err := os.OpenFile(filepath.Join(dir, workLock), os.O_RDWR, 0)
	if err != nil {
		return nil // not a lab's
	}
	defer lock.Close()
	if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return nil // alive
	}
	return os.RemoveAll(dir)
}

// LeftBehind counts the cgroups of this program's labs that still are: none once a room is gone, and with a cgroup goes
// every process, namespace and mount of it.
func LeftBehind() int {
	root, err := cgroupRoot()
	if err != nil {
		return 0
	}
	groups, _ := filepath.Glob(filepath.Join(root, fmt.Sprintf("%s%d-*", workPrefix, os.Getpid())))
	return len(groups)
}
