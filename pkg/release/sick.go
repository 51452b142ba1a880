package release

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// readLimit bounds one read of a volume: longer than a slow cluster takes, shorter than any monitor's timeout.
const readLimit = 10 * time.Second

// Sick says what is wrong with the record's volume, empty if nothing is: it reads a block past every cache, which a
// client that was cut off can't, and asks the file system for errors.
func Sick(ctx context.Context, r Record) string {
	why, _ := system().sick(ctx, r)
	return why
}

// Failing is Sick where it is certain, for one who stops a service for it. Storage that hangs is none: it may go on.
func Failing(ctx context.Context, r Record) string {
	why, certain := system().sick(ctx, r)
	if !certain {
		return ""
	}
	return why
}

func (h *host) sick(ctx context.Context, r Record) (why string, certain bool) {
	mounts, err := h.mounts.List()
	if err != nil {
		return fmt.Sprintf("mounts can't be read: %v", err), false
	}
	for _, m := range mounts {
		if m.Path != r.Storage.Mount {
			continue
		}
		if broken := h.mounts.Broken(m); broken != "" {
			return broken, true
		}
	}
	if r.Storage.Device == "" {
		return "no device of its volume is known", false
	}
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	err = h.devices.Read(ctx, r.Storage.Device)
	var errno unix.Errno
	switch {
	case err == nil:
		return "", false
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("%s has not answered a read for %s: its storage hangs", r.Storage.Device, readLimit), false
	}
	return fmt.Sprintf("%s can't be read: %v: its storage client may have been cut off", r.Storage.Device, err), errors.As(err, &errno)
}

// childRead reads one block past the page cache.
func childRead(args []string) error {
	if len(args) != 1 {
		return unix.EINVAL
	}
	fd, err := unix.Open(args[0], unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	const block = 4096
	room := make([]byte, 2*block) // O_DIRECT wants its buffer aligned
	skip := block - int(uintptr(unsafe.Pointer(&room[0]))%block)
	n, err := unix.Pread(fd, room[skip:skip+block], 0)
	if err == nil && n != block {
		return unix.EIO
	}
	return err
}
