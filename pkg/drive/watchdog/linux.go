package watchdog

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const classDir = "/sys/class/watchdog"

// linux is the running kernel.
type linux struct{}

func (linux) Attribute(name string) (string, error) {
	text, err := os.ReadFile(filepath.Join(classDir, name))
	return trimmed(text), err
}

func (linux) Open(device string) (port, error) {
	fd, err := unix.Open(device, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: device, Err: err}
	}
	return handle(fd), nil
}

// handle is a file descriptor. It is not an os.File: nothing but its owner may close it, no finalizer either.
type handle int

func (h handle) Support() (options, boot uint32, err error) {
	info, err := unix.IoctlGetWatchdogInfo(int(h))
	if err != nil {
		return 0, 0, fmt.Errorf("ask what it supports: %w", err)
	}
	// A driver that does not know says so with an error or with 0: neither is a reason not to use it.
	status, _ := unix.IoctlGetUint32(int(h), unix.WDIOC_GETBOOTSTATUS)
	return info.Options, status, nil
}

func (h handle) SetTimeout(seconds int) error {
	if err := unix.IoctlSetPointerInt(int(h), unix.WDIOC_SETTIMEOUT, seconds); err != nil {
		return fmt.Errorf("set its timeout to %d s: %w", seconds, err)
	}
	return nil
}

func (h handle) Timeout() (int, error) {
	seconds, err := unix.IoctlGetUint32(int(h), unix.WDIOC_GETTIMEOUT)
	if err != nil {
		return 0, fmt.Errorf("read its timeout: %w", err)
	}
	return int(seconds), nil
}

func (h handle) KeepAlive() error { return unix.IoctlWatchdogKeepalive(int(h)) }

func (h handle) Close(magic bool) error {
	var wrote error
	if magic {
		_, wrote = unix.Write(int(h), []byte("V"))
	}
	if err := unix.Close(int(h)); err != nil {
		return err
	}
	return wrote
}
