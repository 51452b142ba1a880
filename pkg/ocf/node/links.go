package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/keepone-ha/keepone/pkg/ocf"
)

// Links are symbolic links to block devices.
type Links interface {
	// Free fails if something that is no symbolic link is at the path.
	Free(path string) error
	// Point makes the link, as one: there is never a moment without it.
	Point(path, device string) error
	// Remove takes it away; none is no error.
	Remove(path string) error
}

type symlinks struct{}

func (symlinks) Free(path string) error {
	info, err := os.Lstat(path)
	if err == nil && info.Mode()&fs.ModeSymlink == 0 {
		return ocf.Fail(ocf.ErrInstalled, "device %s is there and is no symbolic link: take it away, or name another", path)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return ocf.Fail(ocf.ErrInstalled, "look at device: %v", err)
	}
	return nil
}

func (l symlinks) Point(path, device string) error {
	if to, err := os.Readlink(path); err == nil && to == device {
		return nil
	}
	if err := l.Free(path); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make device: %w", err)
	}
	fresh := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("make device: %w", err)
	}
	if err := os.Symlink(device, fresh); err != nil {
		return fmt.Errorf("make device: %w", err)
	}
	if err := os.Rename(fresh, path); err != nil {
		return fmt.Errorf("make device: %w", err)
	}
	return nil
}

func (symlinks) Remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove device: %w", err)
	}
	return nil
}
