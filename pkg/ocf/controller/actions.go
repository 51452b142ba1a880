// Package controller is what the resource agent ocf:keepone:controller: it ties keepone's election on a node to Pacemaker.
package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/keepone-ha/keepone/pkg/clock"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/ocf"
	"github.com/keepone-ha/keepone/pkg/ocf/node"
	"github.com/keepone-ha/keepone/pkg/op"
)

// watch is what the agent remembers from start to stop.
type watch struct {
	Services []core.ServiceName // whose attributes were published
	Lost     time.Time          // since when no leader with a quorum is in touch; zero: one is
	Gone     []core.ServiceName `json:",omitempty"` // whose attributes were taken away since the daemon died
	Owed     bool               // the daemon was away at the start: it is yet to be asked to publish
}

const memory = "controller"

func (a *agent) node() node.Node { return a.open(string(a.runDir), string(a.socket)) }

// startWait is for a daemon that starts and a cluster that elects its leader. Pacemaker does nothing new anywhere, not even
// fail over, while a start goes on: so it must not last as long as a dead daemon does.
const startWait = 10 * time.Second

// start waits a while until the daemon takes part in the election, and has it publish what the node may do. If it does
// not, the start fails, and a monitor has it publish once it is back.
func (a *agent) start(ctx context.Context, _ ocf.Call) (ocf.Code, error) {
	n := a.node()
	short, cancel := clock.WithTimeout(ctx, startWait)
	defer cancel()
	h, err := n.Ready(short, nil)
	if err != nil {
		var f *ocf.Failure
		if errors.As(err, &f) && f.Code == ocf.ErrGeneric { // else waiting mends nothing
			err = errors.Join(err, n.Remember(memory, watch{Owed: true}))
		}
		return ocf.ErrGeneric, err
	}
	if err := n.Publish(ctx, op.Publish{}); err != nil {
		return ocf.ErrGeneric, fmt.Errorf("publish the election: %w", err)
	}
	return ocf.Success, n.Remember(memory, watch{Services: services(h)})
}

// stop takes the attributes away, but for those of services that run here. It never fails.
func (a *agent) stop(ctx context.Context, c ocf.Call) (ocf.Code, error) {
	n := a.node()
	var w watch
	known, err := n.Recall(memory, &w)
	if err != nil {
		c.Note("%v", err)
	}
	if err := n.Publish(ctx, op.Publish{Off: true}); err != nil && known {
		c.Note("keeponed can't take the attributes away: %v", err)
		a.clear(ctx, c, n, w.Services)
	}
	if err := n.Forget(memory); err != nil {
		c.Note("%v", err)
	}
	return ocf.Success, nil
}

// restartWait is what a daemon gets that is restarted, by an upgrade or by systemd (RestartSec), before it counts as
// dead.
const restartWait = 5 * time.Second

func (a *agent) monitor(ctx context.Context, c ocf.Call) (ocf.Code, error) {
	n := a.node()
	var w watch
	known, err := n.Recall(memory, &w)
	if err != nil {
		return ocf.ErrGeneric, err
	}
	if !known {
		return ocf.NotRunning, nil
	}
	h, err := n.Awake(ctx, restartWait)
	if err != nil {
		a.bury(ctx, c, n, w)
		return ocf.ErrGeneric, fmt.Errorf("keeponed is dead: %w", err)
	}
	if (w.Owed || c.Probe()) && h.Healthy && h.Quorum { // a Pacemaker that has just started knows no attributes of this node
		if err := n.Publish(ctx, op.Publish{}); err != nil {
			return ocf.ErrGeneric, fmt.Errorf("publish the election: %w", err)
		}
		w.Owed = false
		if err := n.Remember(memory, w); err != nil {
			return ocf.ErrGeneric, err
		}
	}
	return a.judge(ctx, n, w, h)
}

// judge is about a daemon that answers.
func (a *agent) judge(ctx context.Context, n node.Node, w watch, h op.Health) (ocf.Code, error) {
	now := watch{Services: w.Services, Lost: w.Lost, Owed: w.Owed}
	if list := services(h); len(list) > 0 {
		now.Services = list
	}
	moment := clock.Now(ctx)
	inTouch := h.Quorum && h.Leader != ""
	switch {
	case inTouch:
		now.Lost = time.Time{}
	case w.Lost.IsZero():
		now.Lost = moment
	}
	if !now.equal(w) {
		if err := n.Remember(memory, now); err != nil {
			return ocf.ErrGeneric, err
		}
	}
	switch {
	case inTouch && !h.Healthy:
		return ocf.ErrGeneric, ocf.Fail(ocf.ErrGeneric, "keeponed is not well: %s", h.Why)
	case !inTouch && moment.Sub(now.Lost) >= time.Duration(a.grace):
		return ocf.ErrGeneric, ocf.Fail(ocf.ErrGeneric, "no leader with a quorum for %s: %s", moment.Sub(now.Lost).Round(time.Second), h.Why)
	}
	return ocf.Success, nil
}

func (w watch) equal(other watch) bool {
	return slices.Equal(w.Services, other.Services) && w.Lost.Equal(other.Lost) && slices.Equal(w.Gone, other.Gone)
}

// bury takes away, once for each service, what a dead daemon can take back no more. One that runs here gets its turn when
// it has ended: Pacemaker would start it here again, and wait for a daemon that is dead.
func (a *agent) bury(ctx context.Context, c ocf.Call, n node.Node, w watch) {
	left := slices.DeleteFunc(slices.Clone(w.Services), func(s core.ServiceName) bool { return slices.Contains(w.Gone, s) })
	gone := a.clear(ctx, c, n, left)
	if len(gone) == 0 {
		return // the next monitor looks again
	}
	w.Gone = slices.Concat(w.Gone, gone)
	if err := n.Remember(memory, w); err != nil {
		c.Note("%v", err)
	}
}

// clear deletes the attributes of services that certainly do not run here, and says whose are gone. The others keep
// theirs: without it Pacemaker would stop what runs well.
func (a *agent) clear(ctx context.Context, c ocf.Call, n node.Node, services []core.ServiceName) (gone []core.ServiceName) {
	for _, service := range services {
		seen, err := n.Look(service)
		if err != nil || !seen.Facts.Idle() {
			continue
		}
		if err := n.Attributes.Delete(ctx, core.ElectionAttribute(service)); err != nil {
			c.Note("%v", err)
			continue
		}
		gone = append(gone, service)
	}
	return gone
}

// reload has keeponed publish anew; a changed grace counts from the next monitor on.
func (a *agent) reload(ctx context.Context, _ ocf.Call) (ocf.Code, error) {
	return ocf.Success, a.node().Publish(ctx, op.Publish{})
}

func services(h op.Health) []core.ServiceName {
	return slices.Sorted(maps.Keys(h.Services))
}
