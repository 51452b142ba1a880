package release

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// The parts of the kernel that a stop works on. Tests put fakes in their place; the lab tests hold the real ones
// to the same behaviour.
type (
	// cgroupTree is cgroup v2. An error means not known.
	cgroupTree interface {
		Populated(path string) (bool, error) // nested ones count; one that does not exist is not populated
		Kill(path string) error              // one sweep over all of it
		Survivors(path string) []string      // what is left, in words
	}
	// linkTable is the host's network links.
	linkTable interface {
		Down(name string) error // one that does not exist is down
		Up(name string) (bool, error)
	}
	// mountTable is the mounts of this mount namespace. Calls that may hang end with their context.
	mountTable interface {
		List() ([]Mount, error)
		Sync(ctx context.Context, m Mount) error
		Unmount(ctx context.Context, path string, detach bool) error
		Broken(m Mount) string // what the file system says went wrong; empty: nothing
	}
	// deviceTable is block devices and the FUSE connections behind them.
	deviceTable interface {
		Find(ctx context.Context, want sought) ([]string, error)      // device nodes that are set up for it
		Detach(ctx context.Context, device string, want sought) error // asks for it once, if it is that still
		Number(device string) (major, minor uint32, err error)
		Read(ctx context.Context, device string) error // one block, past every cache
		Forget(ctx context.Context, device string)     // takes a loop device away that is attached no more
		Abort(connection uint32) error                 // of FUSE; one that is gone is no error
	}
)

// host is this machine as a stop sees it.
type host struct {
	cgroups cgroupTree
	links   linkTable
	mounts  mountTable
	devices deviceTable
}

func system() *host {
	return &host{
		cgroups: cgroupFS{proc: "/proc"},
		links:   netLinks{},
		mounts:  kernelMounts{proc: "/proc", sys: "/sys"},
		devices: kernelDevices{sys: "/sys", dev: "/dev"},
	}
}

// poll is between two looks at a fact that should change soon: short against a failover, long against its cost.
const poll = 5 * time.Millisecond

var errNotYet = errors.New("still so at the end of the wait")

// until calls done every poll until it says yes or limit or ctx has passed, and returns its last error.
func until(ctx context.Context, limit time.Duration, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		ok, err := done()
		if ok {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if err == nil {
				err = errNotYet
			}
			return fmt.Errorf("%w (%w)", err, ctx.Err())
		}
	}
}
