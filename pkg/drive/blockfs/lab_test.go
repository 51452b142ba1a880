//go:build lab

package blockfs

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/keepone-ha/keepone/pkg/worker"
)

func newFile(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestRound makes, checks and mounts a file system and finds nothing left behind.
func TestRound(t *testing.T) {
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			path := newFile(t, 320<<20)
			dir := filepath.Join(t.TempDir(), "mnt")
			loop, err := Attach(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			for _, err := range []error{
				Make(t.Context(), loop.Device, fs),
				Check(t.Context(), loop.Device, fs),
				Mount(t.Context(), loop.Device, dir, fs),
				loop.Release(),
				os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600),
			} {
				if err != nil {
					t.Error(err)
				}
			}
			if Full(t.Context(), dir) {
				t.Error("an empty volume counts as full")
			}
			if err := Unmount(t.Context(), dir); err != nil {
				t.Error(err)
			}
			if err := Cleared(t.Context(), loop.Device, path); err != nil {
				t.Error(err)
			}
			if err := Unmount(t.Context(), dir); err != nil {
				t.Errorf("unmount of what is not mounted: %v", err)
			}
		})
	}
}

func TestBusy(t *testing.T) {
	path, dir := newFile(t, 32<<20), filepath.Join(t.TempDir(), "mnt")
	loop, err := Attach(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = loop.Release() }()
	if err := Make(t.Context(), loop.Device, "ext4"); err != nil {
		t.Fatal(err)
	}
	if err := Mount(t.Context(), loop.Device, dir, "ext4"); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	if err := Unmount(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "busy") {
		t.Errorf("unmount under a user: %v", err)
	}
	_ = f.Close()
	if err := Unmount(t.Context(), dir); err != nil {
		t.Error(err)
	}
}

func TestBroken(t *testing.T) {
	path, dir := newFile(t, 32<<20), filepath.Join(t.TempDir(), "mnt")
	loop, err := Attach(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = loop.Release() }()
	if err := Check(t.Context(), loop.Device, "ext4"); code(err) != worker.CodeFileSystem {
		t.Errorf("check of zeros: %v", err)
	}
	for _, fs := range []string{"ext4", "xfs"} {
		if err := Mount(t.Context(), loop.Device, dir, fs); code(err) != worker.CodeFileSystem {
			t.Errorf("mount of zeros: %v", err)
		} else {
			t.Log(err)
		}
	}
}

func backed(device, path string) bool {
	text, err := os.ReadFile("/sys/block/" + strings.TrimPrefix(device, "/dev/") + "/loop/backing_file")
	return err == nil && strings.TrimSpace(string(text)) == path
}

// TestKeep: a device that is kept outlives its last user, also a mount of it, until it is dropped.
func TestKeep(t *testing.T) {
	path, dir := newFile(t, 32<<20), filepath.Join(t.TempDir(), "mnt")
	loop, err := Attach(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := Make(t.Context(), loop.Device, "ext4"); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{loop.Keep(), loop.Release()} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if !backed(loop.Device, path) {
		t.Fatal("it went with its last user")
	}
	for _, err := range []error{Mount(t.Context(), loop.Device, dir, "ext4"), Unmount(t.Context(), dir)} {
		if err != nil {
			t.Error(err)
		}
	}
	if !backed(loop.Device, path) {
		t.Fatal("it went with its mount")
	}
	file, err := os.OpenFile(loop.Device, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	again := &Loop{Device: loop.Device, file: file}
	for _, err := range []error{again.Drop(), again.Drop(), again.Release(), Cleared(t.Context(), loop.Device, path)} {
		if err != nil {
			t.Error(err)
		}
	}
	if backed(loop.Device, path) {
		t.Error("it was dropped, and stays")
	}
}

// TestDropBeforeRelease is the way back of an activation that fails after it kept the device.
func TestDropBeforeRelease(t *testing.T) {
	path := newFile(t, 32<<20)
	loop, err := Attach(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{loop.Keep(), loop.Drop(), loop.Release(), Cleared(t.Context(), loop.Device, path)} {
		if err != nil {
			t.Error(err)
		}
	}
}

// TestPrivate: on a machine whose mounts travel, as under systemd, what is mounted in a private directory stays there, and
// can be unmounted although another file system was mounted beside it later.
func TestPrivate(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	shared := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(unix.Mount("tmpfs", shared, "tmpfs", 0, ""))
	defer func() { _ = unix.Unmount(shared, unix.MNT_DETACH) }()
	must(unix.Mount("", shared, "", unix.MS_SHARED, ""))
	dir, first, second := filepath.Join(shared, "dir"), filepath.Join(shared, "dir/first"), filepath.Join(shared, "dir/second")
	must(errors.Join(os.MkdirAll(first, 0o700), os.MkdirAll(second, 0o700)))
	bound, err := Private(dir)
	if err != nil || !bound {
		t.Fatalf("bound %t, %v", bound, err)
	}
	must(unix.Mount("tmpfs", first, "tmpfs", 0, ""))
	must(privateParent(second)) // as Mount does
	must(unix.Unmount(first, 0))
	must(Unmount(t.Context(), dir))
	if again, err := Private(second); err != nil || !again {
		t.Errorf("below a shared mount again: bound %t, %v", again, err)
	}
}
