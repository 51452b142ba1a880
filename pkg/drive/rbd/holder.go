package rbd

import (
	"context"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
	"golang.org/x/sys/unix"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/worker"
)

// Holder is the new holder's data client. It implements takeover.Holder, and imagefs.Device once it has the lock.
type Holder struct {
	conn    *Conn
	volume  core.VolumeSpec
	address string
	ioctx   *rados.IOContext
	img     *rbd.Image
}

// Hold makes a holder of a data connection. The image is opened by Lock, behind the barrier.
func (c *Conn) Hold(volume core.VolumeSpec) (*Holder, error) {
	address, err := c.Address()
	if err != nil {
		return nil, err
	}
	ioctx, err := c.pool(volume)
	if err != nil {
		return nil, err
	}
	return &Holder{conn: c, volume: volume, address: address, ioctx: ioctx}, nil
}

// Address is the client that the next holder will have to cut off.
func (h *Holder) Address() string { return h.address }

// Barrier implements takeover.Holder.
func (h *Holder) Barrier(ctx context.Context) error { return h.conn.Barrier(ctx) }

// Open opens the image and begins to watch it. Lock does it if it was not done.
func (h *Holder) Open() error {
	if h.img != nil {
		return nil
	}
	img, err := h.conn.open(h.volume, false)
	if err != nil {
		return err
	}
	h.img = img
	return nil
}

// Lock implements takeover.Holder. Managed mode: librbd hands the lock to nobody who asks for it.
func (h *Holder) Lock(context.Context) error {
	if err := h.Open(); err != nil {
		return err
	}
	err := h.img.LockAcquire(rbd.LockModeExclusive)
	switch errno(err) {
	case unix.EROFS, unix.EBUSY:
		return fail(worker.CodeImageStranger, "image %s is locked by a client that lives%s", Name(h.volume), h.owner())
	}
	return classify(err, "take lock of "+Name(h.volume))
}

func (h *Holder) owner() string {
	owners, err := h.img.LockGetOwners()
	if err != nil || len(owners) == 0 {
		return ""
	}
	return ": " + owners[0].Owner
}

// Unlock implements takeover.Holder.
func (h *Holder) Unlock(context.Context) error {
	return classify(h.img.LockRelease(), "release lock of "+Name(h.volume))
}

// RaiseEpoch implements takeover.Holder.
func (h *Holder) RaiseEpoch(ctx context.Context, to core.Epoch) (core.Epoch, error) {
	return raiseEpoch(ctx, h.ioctx, h.img, to)
}

// Close closes the image and the client.
func (h *Holder) Close() error {
	var err error
	if h.img != nil {
		err = classify(h.img.Close(), "close "+Name(h.volume))
	}
	h.conn.Close()
	return err
}

// Size is the image's size in bytes now.
func (h *Holder) Size() (uint64, error) {
	size, err := h.img.GetSize()
	return size, ioErrno(err)
}

// ReadAt reads all of p or fails with an errno.
func (h *Holder) ReadAt(p []byte, off int64) (int, error) {
	n, err := h.img.ReadAt(p, off)
	return n, ioErrno(err)
}

// WriteAt writes all of p or fails with an errno. Only Flush makes it durable.
func (h *Holder) WriteAt(p []byte, off int64) (int, error) {
	n, err := h.img.WriteAt(p, off)
	return n, ioErrno(err)
}

// Flush returns once all that was written before is in the cluster (I8).
func (h *Holder) Flush() error { return ioErrno(h.img.Flush()) }

var zeros [512]byte

// Zero makes a range read as zeros and gives its space back. librbd's own discard may leave parts of it as they
// are; writing the same zeros does not, and frees whole objects all the same.
func (h *Holder) Zero(off, length int64) error {
	_, err := h.img.WriteSame(uint64(off), uint64(length), zeros[:], rados.OpFlagNone)
	return ioErrno(err)
}

// ioErrno makes a plain errno of librbd's error; what has none becomes EIO.
func ioErrno(err error) error {
	if err == nil {
		return nil
	}
	if n := errno(err); n != 0 {
		return n
	}
	return unix.EIO
}
