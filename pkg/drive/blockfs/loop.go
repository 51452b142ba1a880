// Package blockfs makes a file system on a volume usable here: loop device, check, mount, and back. Every call
// that the kernel may keep for as long as the storage hangs is bounded; what it left behind is Unknown.
package blockfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepone-ha/keepone/pkg/worker"
)

func fail(code worker.Code, format string, args ...any) error {
	return &worker.Failure{Code: code, Message: fmt.Sprintf(format, args...)}
}

// bounded runs a call that the kernel may keep. When ctx ends first the call goes on, and what it does is Unknown.
func bounded(ctx context.Context, what string, call func() error) error {
	done := make(chan error, 1)
	go func() { done <- call() }() // ends with the call, at the latest with this short-lived process
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fail(worker.CodeUnknown, "%s: no end within the bound: the storage hangs", what)
	}
}

const (
	loopTries = 64
	loopPause = 5 * time.Millisecond
	// sectors of what is below: RBD and FUSE move whole pages, and smaller direct writes would be read-modify-write.
	loopBlock = 512
)

// Loop is a loop device that this process holds. It is set to clear itself when the last user is gone: after a
// mount that is the unmount, whoever does it, also the end of a mount namespace. So neither a helper that is
// killed half-way nor a node that loses power leaves a device behind.
type Loop struct {
	Device string
	file   *os.File
}

// Attach makes a loop device of the file, with direct I/O: without it a flush of the device would not reach the
// file's owner in order, and pages would be kept twice.
func Attach(ctx context.Context, path string) (*Loop, error) {
	var loop *Loop
	err := bounded(ctx, "attach loop device", func() (err error) {
		loop, err = attach(ctx, path)
		return err
	})
	if err != nil {
		return nil, err
	}
	return loop, nil
}

func attach(ctx context.Context, path string) (*Loop, error) {
	backing, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open volume: %w", err)
	}
	defer func() { _ = backing.Close() }()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open loop control: %w", err)
	}
	defer func() { _ = control.Close() }()
	for range loopTries {
		n, err := fresh(control)
		if err != nil {
			return nil, err
		}
		device := fmt.Sprintf("/dev/loop%d", n)
		loop, err := configure(device, backing)
		if err == nil {
			return loop, nil
		}
		forget(device)
		// Somebody else took it between the two calls, or udev has not made its node yet.
		if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENXIO) {
			return nil, fmt.Errorf("configure loop device: %w", err)
		}
		if err := sleep(ctx, loopPause); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("configure loop device: %d were taken by others", loopTries)
}

// fresh makes a new loop device. One that the kernel calls free may be in the hands of a process that is attaching it
// to storage that hangs: whoever opens it then hangs too.
func fresh(control *os.File) (int, error) {
	const next = ^uintptr(0) // -1: whichever number is not in use
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, control.Fd(), unix.LOOP_CTL_ADD, next)
	if errno != 0 {
		return 0, fmt.Errorf("make loop device: %w", errno)
	}
	return int(n), nil
}

// forget takes a device away that nobody uses any more. The kernel refuses one that is in use; what stays is a free
// device and does no harm.
func forget(device string) {
	n, err := strconv.Atoi(strings.TrimPrefix(device, "/dev/loop"))
	if err != nil {
		return
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer func() { _ = control.Close() }()
	_ = unix.IoctlSetInt(int(control.Fd()), unix.LOOP_CTL_REMOVE, n)
}

func configure(device string, backing *os.File) (*Loop, error) {
	file, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	config := unix.LoopConfig{Fd: uint32(backing.Fd()), Size: loopBlock}
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO
	copy(config.Info.File_name[:len(config.Info.File_name)-1], backing.Name())
	if err := unix.IoctlLoopConfigure(int(file.Fd()), &config); err != nil {
		_ = file.Close()
		return nil, err
	}
	loop := &Loop{Device: device, file: file}
	info, err := unix.IoctlLoopGetStatus64(int(file.Fd()))
	if err == nil && info.Flags&unix.LO_FLAGS_DIRECT_IO == 0 {
		err = errors.New("the kernel refuses direct I/O on it")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("set up %s: %w", device, err), loop.Release())
	}
	return loop, nil
}

// Keep lets the device stay attached when its last user is gone, until Detach.
func (l *Loop) Keep() error {
	info, err := unix.IoctlLoopGetStatus64(int(l.file.Fd()))
	if err == nil {
		info.Flags &^= unix.LO_FLAGS_AUTOCLEAR
		err = unix.IoctlLoopSetStatus64(int(l.file.Fd()), info)
	}
	if err != nil {
		return fmt.Errorf("keep %s: %w", l.Device, err)
	}
	return nil
}

// Drop takes Keep back.
func (l *Loop) Drop() error {
	if err := unix.IoctlSetInt(int(l.file.Fd()), unix.LOOP_CLR_FD, 0); err != nil && !errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("detach %s: %w", l.Device, err)
	}
	return nil
}

// Release lets the device go. Unless it is mounted, that clears it.
func (l *Loop) Release() error {
	if err := l.file.Close(); err != nil {
		return fmt.Errorf("release %s: %w", l.Device, err)
	}
	return nil
}

// Cleared waits until the device is no longer backed by the file, which Release alone does not promise: udev or a
// scanner may have it open. Then the device goes away.
func Cleared(ctx context.Context, device, path string) error {
	name := strings.TrimPrefix(device, "/dev/")
	for {
		text, err := os.ReadFile("/sys/block/" + name + "/loop/backing_file")
		if err != nil || strings.TrimSpace(string(text)) != path {
			forget(device)
			return nil
		}
		if err := sleep(ctx, loopPause); err != nil {
			return fmt.Errorf("%s is still attached: %w", device, err)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
