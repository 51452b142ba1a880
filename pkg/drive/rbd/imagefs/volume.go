// Package imagefs shows one block device of user space as one file, `image`, in a FUSE file system of its own.
package imagefs

import (
	"errors"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Device is what is shown. Errors are unix.Errno. All methods may be called at the same time.
type Device interface {
	Size() (uint64, error)
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	Flush() error
	Zero(off, length int64) error
}

// volume guards a Device: once it is lost, it stays lost.
type volume struct {
	dev    Device
	lost   atomic.Bool
	errors atomic.Uint64
}

// note counts err and says what the file system above is told.
func (v *volume) note(err error, flush bool) syscall.Errno {
	if err == nil {
		return 0
	}
	v.errors.Add(1)
	var n unix.Errno
	if !errors.As(err, &n) {
		n = unix.EIO
	}
	switch {
	case flush, n == unix.ESHUTDOWN, n == unix.EROFS, n == unix.ENOTCONN, n == unix.ETIMEDOUT:
		// After a failed flush nobody knows what is durable, and the next one may say OK (I8). A client that was
		// cut off, or lost the lock, must not write again, whatever Ceph answers later (I6).
		v.lost.Store(true)
		return unix.EIO
	case n == unix.ENOSPC:
		return n
	}
	return unix.EIO
}

// do runs one operation on a device that is not lost. An error that comes while another one finds it lost counts
// as that.
func (v *volume) do(flush bool, op func() error) syscall.Errno {
	if v.lost.Load() {
		v.errors.Add(1)
		return unix.EIO
	}
	if n := v.note(op(), flush); n != 0 {
		return n
	}
	if v.lost.Load() {
		// An acknowledgement that crosses the loss is withheld: the caller may take it for more than it is.
		v.errors.Add(1)
		return unix.EIO
	}
	return 0
}
