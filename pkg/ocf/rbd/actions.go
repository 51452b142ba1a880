// Package rbd is what the resource agent ocf:keepone:rbd: a promotable clone in the place of ocf:linbit:drbd. Promoted
// means that this node holds the grant and the storage's lock, and that the volume is a block device here.
package rbd

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/keepone-ha/keepone/pkg/clock"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/ocf"
	"github.com/keepone-ha/keepone/pkg/ocf/node"
	"github.com/keepone-ha/keepone/pkg/op"
)

// part is what the agent remembers from start to stop: this node takes part.
type part struct {
	Score node.Score // as it was last set
	Owed  bool       // keeponed is yet to be asked to keep the score: it was away
}

func (a *agent) node() node.Node        { return a.open(string(a.runDir), string(a.socket)) }
func (a *agent) name() core.ServiceName { return core.ServiceName(a.service) }
func (a *agent) memory() string         { return "rbd-" + string(a.service) }
func (a *agent) publish(c ocf.Call) op.Publish {
	return op.Publish{Service: a.name(), Promotion: node.Promotion(c.Instance)}
}

// startWait is for a node that has just booted. Pacemaker does nothing new anywhere, not even fail over, while a start
// goes on: so it must not last as long as a dead daemon does.
const startWait = 5 * time.Second

// start says that this node takes part from here on. It waits a while until the node could be given the volume, and then
// goes on without: a node without a score is not promoted, and a monitor sets it once there is one. A start that failed
// would be tried again and then given up, for longer than what was wrong may last.
func (a *agent) start(ctx context.Context, c ocf.Call) (ocf.Code, error) {
	n := a.node()
	short, cancel := clock.WithTimeout(ctx, startWait)
	defer cancel()
	p := part{Score: node.NoScore}
	h, err := n.Ready(short, func(h op.Health) (bool, error) { return node.Able(h, a.name()) })
	var f *ocf.Failure
	switch {
	case err == nil:
		p.Score = node.Score(h.Services[a.name()].Score)
		a.tell(ctx, c, n, p.Score)
	case errors.As(err, &f) && f.Code != ocf.ErrGeneric: // waiting mends nothing
		return ocf.ErrGeneric, err
	default:
		c.Note("this node takes part and can't be promoted yet: %v", err)
	}
	if err := n.Publish(ctx, a.publish(c)); err != nil {
		p.Owed = true
		c.Note("keeponed does not keep the promotion score yet: %v", err)
	}
	return ocf.Success, n.Remember(a.memory(), p)
}

// stop ends taking part. A volume that is still here is taken down too: nothing of it may stay behind.
func (a *agent) stop(ctx context.Context, c ocf.Call) (ocf.Code, error) {
	n := a.node()
	if err := a.letGo(ctx, c, n); err != nil {
		return ocf.ErrGeneric, err
	}
	off := a.publish(c)
	off.Off = true
	if err := n.Publish(ctx, off); err != nil {
		a.tell(ctx, c, n, node.NoScore)
	}
	return ocf.Success, n.Forget(a.memory())
}

// promote has keepone grant the volume to this node, lock and map it. Without a grant there is no promotion (I4), so
// keeponed is asked even if the volume is mapped here.
func (a *agent) promote(ctx context.Context, _ ocf.Call) (ocf.Code, error) {
	n := a.node()
	if err := n.Links.Free(a.linkPath()); err != nil {
		return ocf.ErrInstalled, err
	}
	claimed, err := n.Claim(ctx, op.Claim{Service: a.name(), Stage: core.StagePromoted})
	if err != nil {
		return ocf.ErrGeneric, err
	}
	return ocf.Success, n.Links.Point(a.linkPath(), claimed.Device)
}

// demote lets go of the volume (I7).
func (a *agent) demote(ctx context.Context, c ocf.Call) (ocf.Code, error) {
	return ocf.Success, a.letGo(ctx, c, a.node())
}

func (a *agent) letGo(ctx context.Context, c ocf.Call, n node.Node) error {
	if err := n.Stop(ctx, c, a.name()); err != nil {
		return err
	}
	return a.unlink(n)
}

// monitor looks at the kernel and the records; the daemon adds what they can't show. It forks for a changed score
// alone.
func (a *agent) monitor(ctx context.Context, c ocf.Call) (ocf.Code, error) {
	n := a.node()
	seen, err := n.Look(a.name())
	if err != nil {
		return ocf.ErrGeneric, err
	}
	var p part
	started, err := n.Recall(a.memory(), &p)
	if err != nil {
		return ocf.ErrGeneric, err
	}
	if started {
		a.rescore(ctx, c, n, p, seen.Mapped())
	}
	switch {
	case seen.Facts.Idle() && started:
		return ocf.Success, nil
	case seen.Facts.Idle():
		return ocf.NotRunning, nil
	case !seen.Mapped():
		return ocf.FailedPromoted, ocf.Fail(ocf.FailedPromoted, "%s is here in part only: %s", a.name(), seen.Words())
	}
	return a.well(ctx, n, seen)
}

// well asks about a volume that is mapped. A daemon that is away says nothing against it.
func (a *agent) well(ctx context.Context, n node.Node, seen node.Seen) (ocf.Code, error) {
	if p, answered := n.Probe(ctx, a.name(), depthVolume); answered && !p.OK {
		return ocf.FailedPromoted, ocf.Fail(ocf.FailedPromoted, "the volume of %s is broken: %s", a.name(), p.Why)
	}
	if err := n.Links.Point(a.linkPath(), seen.Device); err != nil {
		return ocf.FailedPromoted, ocf.Fail(ocf.FailedPromoted, "%v", err)
	}
	return ocf.RunningPromoted, nil
}

// depthVolume is the probe that looks at the volume and not at the front-end.
const depthVolume = 10

// reload has keeponed publish anew: nothing of a running volume depends on a parameter that may change.
func (a *agent) reload(ctx context.Context, c ocf.Call) (ocf.Code, error) {
	return ocf.Success, a.node().Publish(ctx, a.publish(c))
}

// rescore sets the promotion score if it changed, and at a probe: then Pacemaker may know of none. While the volume
// is here the score is never taken away, for that would demote a service that runs.
func (a *agent) rescore(ctx context.Context, c ocf.Call, n node.Node, p part, mapped bool) {
	h, err := n.Health(ctx)
	if err != nil || !h.Quorum {
		return // nothing is known that is newer
	}
	if p.Owed && n.Publish(ctx, a.publish(c)) == nil {
		if p.Owed = false; n.Remember(a.memory(), p) != nil {
			return
		}
	}
	score := node.NoScore
	if able := h.Services[a.name()]; able.OK {
		score = node.Score(able.Score)
	}
	if (score == p.Score && !c.Probe()) || (score == node.NoScore && mapped) {
		return
	}
	if !a.tell(ctx, c, n, score) {
		return
	}
	p.Score = score
	if err := n.Remember(a.memory(), p); err != nil {
		c.Note("%v", err)
	}
}

// tell sets the score in the cluster manager; false: it did not take it, and the next monitor tries again.
func (a *agent) tell(ctx context.Context, c ocf.Call, n node.Node, score node.Score) bool {
	err := n.SetScore(ctx, c.Instance, score)
	if err != nil {
		c.Note("promotion score: %v", err)
	}
	return err == nil
}

func (a *agent) linkPath() string {
	if a.device != "" {
		return string(a.device)
	}
	return filepath.Join(string(a.runDir), "dev", string(a.service))
}

// unlink removes the link, and nothing else that may be there.
func (a *agent) unlink(n node.Node) error {
	if n.Links.Free(a.linkPath()) != nil {
		return nil
	}
	return n.Links.Remove(a.linkPath())
}
