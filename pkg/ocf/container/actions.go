// Package container is what the resource agent ocf:keepone:container: a service's container, alone or with its lock and mount. It starts
// with a grant only, and stops with nothing but the kernel.
package container

import (
	"context"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/ocf"
	"github.com/keepone-ha/keepone/pkg/ocf/node"
	"github.com/keepone-ha/keepone/pkg/op"
)

// The depths of a monitor above that of the kernel's word.
const (
	depthVolume = 10
	depthProbes = 20
)

func (a *agent) node() node.Node        { return a.open(string(a.runDir), string(a.socket)) }
func (a *agent) name() core.ServiceName { return core.ServiceName(a.service) }

// start has keepone bring the container up under its grant (I4). One that runs is not asked about: it has its grant,
// or its lease's end is near.
func (a *agent) start(ctx context.Context, _ ocf.Call) (ocf.Code, error) {
	n := a.node()
	seen, err := n.Look(a.name())
	if err != nil {
		return ocf.ErrGeneric, err
	}
	if seen.Facts.Init && !seen.Record.Marks.Halted && !seen.Record.Marks.Contained {
		return ocf.Success, nil
	}
	if a.mode.Word == modeContainer {
		if err := a.mounted(seen); err != nil {
			return ocf.ErrGeneric, err
		}
		n.Wake(ctx, a.name()) // of the mount
	}
	_, err = n.Claim(ctx, op.Claim{Service: a.name(), Stage: core.StageRunning})
	return ocf.Success, err
}

// mounted checks what the resources before this one are to have done.
func (a *agent) mounted(seen node.Seen) error {
	switch {
	case !seen.Mapped():
		return ocf.Fail(ocf.ErrGeneric, "the volume of %s is not mapped here: order this resource after the promoted ocf:keepone:rbd, and on its node", a.name())
	case !seen.Facts.Mounted:
		return ocf.Fail(ocf.ErrGeneric, "the volume of %s is not mounted at %s: have ocf:heartbeat:Filesystem mount it there, before this resource", a.name(), seen.Record.Storage.Mount)
	}
	return nil
}

// stop needs nothing but the kernel, and never says stopped of what may run (I7).
func (a *agent) stop(ctx context.Context, c ocf.Call) (ocf.Code, error) {
	if a.mode.Word == modeContainer {
		return ocf.Success, a.node().StopContainer(ctx, c, a.name())
	}
	return ocf.Success, a.node().Stop(ctx, c, a.name())
}

func (a *agent) monitor(ctx context.Context, c ocf.Call) (ocf.Code, error) {
	n := a.node()
	seen, err := n.Look(a.name())
	if err != nil {
		return ocf.ErrGeneric, err
	}
	switch {
	case seen.Facts.Init:
	case a.gone(seen):
		return ocf.NotRunning, nil
	default:
		return ocf.ErrGeneric, ocf.Fail(ocf.ErrGeneric, "the container of %s does not run, and is not stopped either: %s", a.name(), seen.Words())
	}
	if c.Depth < depthVolume {
		return ocf.Success, nil
	}
	return a.deep(ctx, n, seen, c.Depth)
}

// gone reports whether nothing that this resource brings up is here. The volume is another resource's if the mode
// says so.
func (a *agent) gone(seen node.Seen) bool {
	if a.mode.Word == modeContainer {
		return !seen.Facts.Init && !seen.Facts.Populated
	}
	return seen.Facts.Idle()
}

// deep asks the daemon. Without one it rests on what the kernel shows: a daemon that restarts is no fault of the
// service.
func (a *agent) deep(ctx context.Context, n node.Node, seen node.Seen, depth int) (ocf.Code, error) {
	p, answered := n.Probe(ctx, a.name(), min(depth, depthProbes))
	switch {
	case answered && !p.OK:
		return ocf.ErrGeneric, ocf.Fail(ocf.ErrGeneric, "%s is not well: %s", a.name(), p.Why)
	case !answered && (!seen.Facts.Mapper || !seen.Facts.Mounted):
		return ocf.ErrGeneric, ocf.Fail(ocf.ErrGeneric, "the volume of %s went away below it: %s", a.name(), seen.Words())
	}
	return ocf.Success, nil
}
