package release

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepone-ha/keepone/pkg/core"
)

// ErrBusy says that another activation of the service holds the lock.
var ErrBusy = errors.New("another one is at work")

// lockPoll is between two tries: short against an activation, long against the cost of a try.
const lockPoll = 20 * time.Millisecond

// Lock takes the service's flock, one activation at a time, and waits for it until ctx ends (then ErrBusy). The
// lock ends with unlock or with the process. A stop does not take it: it must not wait for a paused starter (I7).
func Lock(ctx context.Context, runDir string, service core.ServiceName) (unlock func(), err error) {
	return lockFile(ctx, runDir, service, "lock")
}

// lockStop takes the lock under which one stop at a time takes the service's storage down: an activation has no part
// in it.
func lockStop(ctx context.Context, runDir string, service core.ServiceName) (unlock func(), err error) {
	return lockFile(ctx, runDir, service, "stop.lock")
}

func lockFile(ctx context.Context, runDir string, service core.ServiceName, name string) (unlock func(), err error) {
	if err := checkName(service); err != nil {
		return nil, fmt.Errorf("lock service: %w", err)
	}
	dir := Dir(runDir, service)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("lock service: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock service: %w", err)
	}
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock service %s: %w", service, err), f.Close())
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("lock service %s: %w", service, ErrBusy), f.Close())
		}
	}
}
