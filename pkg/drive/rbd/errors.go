package rbd

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/keepone-ha/keepone/pkg/worker"
)

func fail(code worker.Code, format string, args ...any) error {
	return &worker.Failure{Code: code, Message: fmt.Sprintf(format, args...)}
}

// errno returns the positive errno that Ceph gave, or 0.
func errno(err error) unix.Errno {
	var coded interface{ ErrorCode() int }
	if !errors.As(err, &coded) {
		return 0
	}
	code := coded.ErrorCode()
	return unix.Errno(max(code, -code))
}

// classify turns Ceph's errno into a Failure that says what to do. nil stays nil.
func classify(err error, doing string) error {
	if err == nil {
		return nil
	}
	switch errno(err) {
	case unix.ETIMEDOUT:
		return fail(worker.CodeCephAway, "%s: Ceph gave no answer within %s s; look at ceph status", doing, controlTimeout)
	case unix.ESHUTDOWN:
		return fail(worker.CodeBlocklisted, "%s: this client has been cut off by Ceph's blocklist", doing)
	case unix.EACCES, unix.EPERM:
		return fail(worker.CodeNoCap, "%s: refused: the keyring needs mon 'profile rbd' and osd 'profile rbd'", doing)
	case unix.ENOENT:
		return fail(worker.CodeImageMissing, "%s: not there", doing)
	case unix.ENOSPC, unix.EDQUOT:
		return fail(worker.CodeVolumeFull, "%s: Ceph's pool is full", doing)
	}
	return fmt.Errorf("%s: %w", doing, err)
}
