package node

import (
	"context"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/pkg/clock"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/ocf"
	"github.com/keepone-ha/keepone/pkg/op"
	"github.com/keepone-ha/keepone/pkg/release"
)

// Stop takes down all of a service that is here, its volume too. It needs neither daemon nor quorum nor Ceph, and
// fails if a process of the service may still run (I7). A volume that could not be let go of is no failure, as
// nothing writes to it any more: the next holder cuts this node's client off before it touches it (I6).
func (n Node) Stop(ctx context.Context, c ocf.Call, service core.ServiceName) error {
	r, known, err := n.record(service)
	if err != nil || !known {
		return err
	}
	if facts, err := n.facts(r); err == nil && r.Marks.Vacated && facts.Idle() {
		return nil
	}
	res := n.Kernel.Stop(ctx, n.RunDir, r, options(ctx, c, r, release.Options{}.Bound()))
	return n.stopped(ctx, c, service, res, res.Vacated)
}

// StopContainer ends the container and leaves the volume as it is. Like Stop it needs nothing (I7).
func (n Node) StopContainer(ctx context.Context, c ocf.Call, service core.ServiceName) error {
	r, known, err := n.record(service)
	if err != nil || !known {
		return err
	}
	if facts, err := n.facts(r); err == nil && r.Marks.Contained && !facts.Init && !facts.Populated {
		return nil
	}
	res := n.Kernel.StopContainer(ctx, n.RunDir, r, options(ctx, c, r, containBound))
	return n.stopped(ctx, c, service, res, true)
}

func (n Node) stopped(ctx context.Context, c ocf.Call, service core.ServiceName, res release.Result, whole bool) error {
	why := strings.Join(res.Reasons, "; ")
	if !res.Contained {
		return ocf.Fail(ocf.ErrGeneric, "something of %s may still run here: %s", service, why)
	}
	switch {
	case !whole:
		c.Note("nothing of %s runs here any more, but its volume was not let go of cleanly: the next holder cuts it off (%s)", service, why)
	case why != "":
		c.Note("%s is stopped: %s", service, why)
	}
	n.Wake(ctx, service)
	return nil
}

// containBound is what containment may take at most, with the wait for what is late.
const containBound = 10 * time.Second

// options gives the container its own time to shut down, within what is left of the action's: the rest of the stop
// gets the longest that it may need if the container's own time allows, else two thirds of all.
func options(ctx context.Context, c ocf.Call, r release.Record, rest time.Duration) release.Options {
	graceful := r.StopLimit
	if deadline, bounded := ctx.Deadline(); bounded {
		left := deadline.Sub(clock.Now(ctx))
		graceful = max(0, min(graceful, max(left-rest, left/3)))
	}
	return release.Options{Reason: "its resource agent was asked to " + string(c.Verb), Graceful: graceful}
}

// wakeLimit: a daemon that is well answers within milliseconds, and nothing depends on it.
const wakeLimit = time.Second

// Wake tells the daemon that something of the service changed here. It is of no consequence whether it hears that.
func (n Node) Wake(ctx context.Context, service core.ServiceName) {
	ctx, cancel := clock.WithTimeout(ctx, wakeLimit)
	defer cancel()
	_ = n.Daemon.Call(ctx, op.MethodWake, op.Wake{Service: service}, nil, nil)
}
