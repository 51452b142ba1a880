package rbd

// #cgo LDFLAGS: -lrados
// #include <errno.h>
// #include <stdlib.h>
// #include <rados/librados.h>
//
// // keepone_cas writes key in one step if it still has the value old ("" if it is absent).
// static int keepone_cas(rados_ioctx_t io, const char *oid, const char *key, const char *old, size_t oldlen,
//                        const char *val, size_t vallen) {
//	int unused = 0;
//	rados_write_op_t op = rados_create_write_op();
//	rados_write_op_assert_exists(op);
//	rados_write_op_omap_cmp(op, key, LIBRADOS_CMPXATTR_OP_EQ, old, oldlen, &unused);
//	rados_write_op_omap_set(op, &key, &val, &vallen, 1);
//	int ret = rados_write_op_operate(op, io, oid, NULL, 0);
//	rados_release_write_op(op);
//	return ret;
// }
import "C"

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"unsafe"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
	"golang.org/x/sys/unix"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/worker"
)

// epochKey is the image's metadata key; `rbd image-meta get IMAGE keepone.epoch` shows it.
const epochKey = "keepone.epoch"

// casTries bounds how often two writers of the epoch can disturb each other.
const casTries = 16

func readEpoch(img *rbd.Image) (core.Epoch, string, error) {
	text, err := img.GetMetadata(epochKey)
	if errors.Is(err, rbd.ErrNotFound) {
		return 0, "", nil
	}
	if err != nil {
		return 0, "", classify(err, "read epoch of image")
	}
	epoch, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, text, fail(worker.CodeEpochAhead, "image metadata %s is %q, which is no epoch", epochKey, text)
	}
	return core.Epoch(epoch), text, nil
}

// raiseEpoch writes to unless the image carries a higher epoch, and returns what it carries. librbd's own
// metadata call can't compare, and two writers could take the epoch back (I2): so the key is set where librbd
// keeps it, in the header object's omap, under a comparison.
func raiseEpoch(ctx context.Context, ioctx *rados.IOContext, img *rbd.Image, to core.Epoch) (core.Epoch, error) {
	id, err := img.GetId()
	if err != nil {
		return 0, classify(err, "read id of image")
	}
	for range casTries {
		if err := ctx.Err(); err != nil {
			return 0, fmt.Errorf("write epoch of image: %w", err)
		}
		carried, text, err := readEpoch(img)
		if err != nil || carried >= to {
			return carried, err
		}
		err = compareAndSet(ioctx, "rbd_header."+id, "metadata_"+epochKey, text, strconv.FormatUint(uint64(to), 10))
		if err != nil && !errors.Is(err, unix.ECANCELED) {
			return 0, classify(cephErrno{err}, "write epoch of image")
		}
	}
	return 0, fail(worker.CodeUnknown, "write epoch of image: somebody else writes it all the time")
}

// cephErrno lets classify read a plain errno.
type cephErrno struct{ error }

func (e cephErrno) ErrorCode() int {
	var n unix.Errno
	_ = errors.As(e.error, &n)
	return int(n)
}

func compareAndSet(ioctx *rados.IOContext, object, key, was, to string) error {
	cObject, cKey, cWas, cTo := C.CString(object), C.CString(key), C.CString(was), C.CString(to)
	defer func() {
		for _, s := range []*C.char{cObject, cKey, cWas, cTo} {
			C.free(unsafe.Pointer(s))
		}
	}()
	ret := C.keepone_cas(C.rados_ioctx_t(ioctx.Pointer()), cObject, cKey, cWas, C.size_t(len(was)), cTo, C.size_t(len(to)))
	if ret < 0 {
		return unix.Errno(-ret)
	}
	return nil
}
