package release

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const sigKill = int(unix.SIGKILL)

// kernelMounts reads mountinfo and lets children make the calls that may hang.
type kernelMounts struct{ proc, sys string }

func (k kernelMounts) List() ([]Mount, error) {
	text, err := os.ReadFile(filepath.Join(k.proc, "self/mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	return ParseMounts(string(text))
}

func (kernelMounts) Sync(ctx context.Context, m Mount) error {
	return inChild(ctx, callSync, m.Path, strconv.Itoa(int(m.Major)), strconv.Itoa(int(m.Minor)))
}

// Unmount with detach takes the mount out of sight of whatever still uses it, and aborts a FUSE connection: it is
// the last resort and never counts as unmounted.
func (kernelMounts) Unmount(ctx context.Context, path string, detach bool) error {
	flags := unix.UMOUNT_NOFOLLOW
	if detach {
		flags |= unix.MNT_DETACH | unix.MNT_FORCE
	}
	return inChild(ctx, callUnmount, path, strconv.Itoa(flags))
}

// Broken knows ext4's error counter, and a file system that an error made read-only. XFS says EIO at Sync.
func (k kernelMounts) Broken(m Mount) string {
	if m.SuperRO && !m.ReadOnly {
		return "file system at " + m.Path + " went read-only"
	}
	if m.Type != "ext4" {
		return ""
	}
	path := filepath.Join(k.sys, "fs/ext4", filepath.Base(m.Source), "errors_count")
	text, err := os.ReadFile(path)
	if err != nil {
		return "error count of file system at " + m.Path + " can't be read: " + err.Error()
	}
	if count := strings.TrimSpace(string(text)); count != "0" {
		return "file system at " + m.Path + " counted " + count + " errors"
	}
	return ""
}

// sought is a volume whose device is looked for.
type sought struct {
	kind       Kind
	device     string // as recorded; empty if it never was
	file       string // backing file of a loop device
	connection uint32 // FUSE connection behind that file; 0: there is none
	pool       string
	image      string
}

// known reports whether the device can be looked for: absence of what has no name means nothing.
func (s sought) known() bool {
	if s.kind == KindKRBD {
		return s.pool != "" && s.image != ""
	}
	return s.kind == KindLoop && s.file != "image"
}

// kernelDevices reads sysfs and lets children make the calls that may hang.
type kernelDevices struct{ sys, dev string }

func (k kernelDevices) Find(ctx context.Context, want sought) ([]string, error) {
	if want.kind == KindKRBD {
		return k.findRBD(want)
	}
	return k.findLoops(ctx, want)
}

// findLoops looks at every loop device. A path alone names no file for sure, as other mount namespaces have files at
// the same path; the FUSE connection's number does.
func (k kernelDevices) findLoops(ctx context.Context, want sought) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(k.sys, "block/loop*/loop/backing_file"))
	if err != nil {
		return nil, fmt.Errorf("list loop devices: %w", err)
	}
	var found []string
	var errs []error
	for _, file := range files {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		device := filepath.Join(k.dev, filepath.Base(filepath.Dir(filepath.Dir(file))))
		samePath := backingFile(text) == want.file
		if !samePath && device != want.device {
			continue
		}
		ours, err := k.backedBy(ctx, device, want, samePath)
		if err != nil {
			errs = append(errs, err)
		}
		if ours {
			found = append(found, device)
		}
	}
	return found, errors.Join(errs...)
}

// backedBy asks the loop device which file system its file is on. If that hangs or fails, as it may once the
// connection is dead, the recorded name together with the path decides.
func (kernelDevices) backedBy(ctx context.Context, device string, want sought, samePath bool) (bool, error) {
	recorded := device == want.device && samePath
	if want.connection == 0 {
		return recorded, nil
	}
	ctx, cancel := context.WithTimeout(ctx, backedByLimit)
	defer cancel()
	err := inChild(ctx, callBackedBy, device, strconv.FormatUint(uint64(want.connection), 10))
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.ENODEV):
		return false, nil
	case recorded:
		return true, nil
	default:
		return false, fmt.Errorf("identify %s: %w", device, err)
	}
}

// findRBD looks a kernel mapping up by pool and image. Both must match even if a device was recorded: its number may
// be another image's by now.
func (k kernelDevices) findRBD(want sought) ([]string, error) {
	dirs, err := filepath.Glob(filepath.Join(k.sys, "bus/rbd/devices/*"))
	if err != nil {
		return nil, fmt.Errorf("list rbd devices: %w", err)
	}
	var found []string
	for _, dir := range dirs {
		pool, err1 := os.ReadFile(filepath.Join(dir, "pool"))
		image, err2 := os.ReadFile(filepath.Join(dir, "name"))
		if errors.Is(err1, fs.ErrNotExist) || errors.Is(err2, fs.ErrNotExist) {
			continue
		}
		if err := errors.Join(err1, err2); err != nil {
			return found, fmt.Errorf("read rbd device: %w", err)
		}
		if strings.TrimSpace(string(pool)) == want.pool && strings.TrimSpace(string(image)) == want.image {
			found = append(found, filepath.Join(k.dev, "rbd"+filepath.Base(dir)))
		}
	}
	return found, nil
}

func (k kernelDevices) Detach(ctx context.Context, device string, want sought) error {
	id, isRBD := strings.CutPrefix(filepath.Base(device), "rbd")
	if !isRBD {
		backing := filepath.Join(k.sys, "block", filepath.Base(device), "loop/backing_file")
		return inChild(ctx, callDetach, device, strconv.FormatUint(uint64(want.connection), 10), backing, want.file)
	}
	remove := filepath.Join(k.sys, "bus/rbd/remove_single_major")
	if _, err := os.Stat(remove); err != nil {
		remove = filepath.Join(k.sys, "bus/rbd/remove")
	}
	return inChild(ctx, callRemoveRBD, remove, id)
}

// Number is the device's, as mountinfo has it.
func (kernelDevices) Number(device string) (major, minor uint32, err error) {
	var st unix.Stat_t
	if err := unix.Stat(device, &st); err != nil {
		return 0, 0, fmt.Errorf("read number of %s: %w", device, err)
	}
	return unix.Major(st.Rdev), unix.Minor(st.Rdev), nil
}

// Read reads one block past the page cache.
func (kernelDevices) Read(ctx context.Context, device string) error {
	return inChild(ctx, callRead, device)
}

// Forget takes a free loop device away: each activation makes its own. The kernel refuses one that is in use, and a
// free one that stays does no harm.
func (k kernelDevices) Forget(ctx context.Context, device string) {
	if n, isLoop := strings.CutPrefix(filepath.Base(device), "loop"); isLoop {
		_ = inChild(ctx, callForget, filepath.Join(k.dev, "loop-control"), n)
	}
}

// Abort makes every call into the FUSE file system fail at once, those that hang too.
func (k kernelDevices) Abort(connection uint32) error {
	path := filepath.Join(k.sys, "fs/fuse/connections", strconv.FormatUint(uint64(connection), 10), "abort")
	err := os.WriteFile(path, []byte("1"), 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("abort FUSE connection: %w", err)
	}
	return nil
}
