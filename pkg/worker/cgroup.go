package worker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// FreshCgroup makes a cgroup v2 anew, for processes to be started in, and opens it. A kernel from 6.14 on kills whatever
// is cloned into a cgroup that was ever killed (it compares the kill count with that of the parent's own cgroup), so
// that an old one must go first. One that has a process in it stays, and is an error.
func FreshCgroup(path string) (*os.File, error) {
	if err := removeCgroup(path); err != nil {
		return nil, fmt.Errorf("remove old cgroup %s (something still runs in it): %w", path, err)
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, fmt.Errorf("make cgroup: %w", err)
	}
	group, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open cgroup: %w", err)
	}
	return group, nil
}

// removeCgroup removes a cgroup with those below it: LXC's stay behind when its monitor was killed.
func removeCgroup(path string) error {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeCgroup(filepath.Join(path, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
