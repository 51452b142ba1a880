package blockfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/keepone-ha/keepone/pkg/worker"
)

// Mount mounts the device at dir, which it makes, private: no other namespace gets a copy that would keep the
// volume busy. The mount replays the journal. ext4 goes read-only at its first error, so that a volume that was
// cut off takes no more promises (I8); XFS shuts down by itself.
func Mount(ctx context.Context, device, dir, fs string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make mount point: %w", err)
	}
	if err := privateParent(dir); err != nil {
		return err
	}
	err := bounded(ctx, "mount "+device, func() error {
		if err := unix.Mount(device, dir, fs, unix.MS_NOATIME, options(fs)); err != nil {
			return err
		}
		return unix.Mount("", dir, "", unix.MS_PRIVATE, "")
	})
	var failure *worker.Failure
	if err == nil || errors.As(err, &failure) {
		return err
	}
	return mountFailure(device, dir, fs, err)
}

func options(fs string) string {
	if fs == "ext4" {
		return "errors=remount-ro"
	}
	return ""
}

func mountFailure(device, dir, fs string, err error) error {
	hint := ""
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EUCLEAN), errors.Is(err, unix.EIO):
		hint = ": the file system is damaged or not " + fs + "; repair it by hand (e2fsck -f, xfs_repair) or restore it"
	case errors.Is(err, unix.ENODEV):
		hint = ": this kernel has no " + fs
	case errors.Is(err, unix.EBUSY):
		hint = ": something is mounted there"
	}
	return fail(worker.CodeFileSystem, "mount %s at %s as %s: %v%s", device, dir, fs, err, hint)
}

// privateParent keeps a mount from travelling to other namespaces before it can be made private: mounts travel
// from where they are made. Only a shared parent needs it.
func privateParent(dir string) error {
	_, err := Private(filepath.Dir(dir))
	return err
}

// Private makes parent a mount of its own, bound to itself, whose mounts don't travel; where they would not anyway it does
// nothing. It covers what is mounted below parent already: call it before the first of these. The caller unmounts
// what was bound.
func Private(parent string) (bound bool, err error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false, fmt.Errorf("read mounts: %w", err)
	}
	if !sharedAt(string(text), parent) {
		return false, nil
	}
	if err := unix.Mount(parent, parent, "", unix.MS_BIND, ""); err != nil {
		return false, fmt.Errorf("bind %s to itself: %w", parent, err)
	}
	if err := unix.Mount("", parent, "", unix.MS_PRIVATE, ""); err != nil {
		return true, fmt.Errorf("make %s private: %w", parent, err)
	}
	return true, nil
}

// sharedAt reports whether the mount that path lies on propagates to others. Later lines cover earlier ones.
func sharedAt(mountinfo, path string) bool {
	best, shared := -1, false
	for _, line := range strings.Split(mountinfo, "\n") {
		fields := strings.Fields(line)
		if len(fields) < 7 {
			continue
		}
		at := strings.ReplaceAll(fields[4], `\040`, " ")
		if !covers(at, path) || len(at) < best {
			continue
		}
		best, shared = len(at), false
		for _, f := range fields[6:] {
			if f == "-" {
				break
			}
			shared = shared || strings.HasPrefix(f, "shared:")
		}
	}
	return shared
}

func covers(at, path string) bool {
	return at == "/" || path == at || strings.HasPrefix(path, at+"/")
}

// Unmount unmounts dir, never lazily: after a lazy unmount nobody can tell when the last write is out. EBUSY says
// that a process still uses it.
func Unmount(ctx context.Context, dir string) error {
	err := bounded(ctx, "unmount "+dir, func() error { return unix.Unmount(dir, unix.UMOUNT_NOFOLLOW) })
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil // not mounted
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return nil
}

// When a volume counts as full: a container needs more than that to start. The last few inodes may be out of reach, and some
// are given back as what failed before is cleaned up.
const (
	fullBelow   = 1 << 20 // bytes
	inodesBelow = 16
)

// Full reports whether the file system mounted at dir has next to no room, or no inodes, left.
func Full(ctx context.Context, dir string) bool {
	var st unix.Statfs_t
	if err := bounded(ctx, "stat "+dir, func() error { return unix.Statfs(dir, &st) }); err != nil {
		return false
	}
	return st.Bavail*uint64(st.Bsize) < fullBelow || (st.Files > 0 && st.Ffree < inodesBelow)
}
