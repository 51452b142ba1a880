package app

import (
	"context"
	"encoding/json"
	"time"

	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/release"
	"github.com/keepone-ha/keepone/pkg/version"
)

const (
	reportEvery = 800 * time.Millisecond
	reportLimit = time.Second
)

// methodReport is the node protocol's: a member tells the leader about itself.
const methodReport = "report"

// reportLoop tells the leader about this node, again and again and at once when something changed.
func (a *App) reportLoop(ctx context.Context) {
	for ctx.Err() == nil {
		state, changed := a.replica.Watch()
		if state.Spec.Manager != core.ManagerPacemaker {
			changed = nil // else whatever the leader committed may change what it lets this node do
		}
		if leader := a.replica.Leader(); leader != "" {
			call, cancel := context.WithTimeout(ctx, reportLimit)
			var v verdict
			if err := a.peers.Call(call, leader, methodReport, a.report(), &v); err != nil {
				a.log.Debug("report to leader", "leader", string(leader), "err", err)
			} else {
				a.abilities.Set(boottime.Now(), v.Able)
			}
			cancel()
		}
		a.turn()
		select {
		case <-ctx.Done():
		case <-a.reportNow:
		case <-changed:
		case <-time.After(reportEvery):
		}
	}
}

// dated is a report as it goes over the wire: with the sender's wall clock, for the doctor alone.
type dated struct {
	core.Report
	Wall time.Time
}

// report is what this node says of itself.
func (a *App) report() dated {
	state := a.replica.State()
	r := core.Report{
		Instance: a.instance, Holds: a.holds(), Ready: a.ready(),
		Claims: a.claims.All(), Version: version.Version, Digest: state.Document.Digest, BMCs: a.problems.of(state.Spec.Nodes),
	}
	return dated{r, time.Now()}
}

// ready is for which services this node is a candidate: for none while it is about to go down.
func (a *App) ready() map[core.ServiceName]core.Ready {
	all := a.storage.Ready()
	if !release.Leaving(a.file.RunDir) {
		return all
	}
	for name, r := range all {
		all[name] = core.Ready{Reason: errLeaving.Error(), Epoch: r.Epoch}
	}
	return all
}

// holds is what the kernel shows of services here. A thing that can't be told counts for every service: it makes
// this node no candidate, and proves nothing about an earlier life (I3).
func (a *App) holds() []core.Target {
	epochs := map[core.ServiceName]core.Epoch{}
	if records, err := release.List(a.file.RunDir); err == nil {
		for _, r := range records {
			epochs[r.Service] = r.Epoch
		}
	}
	left := release.Leftovers(release.Places{RunDir: a.file.RunDir, CgroupRoot: a.file.CgroupRoot, Volumes: a.file.VolumesDir})
	seen := map[core.ServiceName]bool{}
	var holds []core.Target
	add := func(name core.ServiceName) {
		if !seen[name] {
			seen[name] = true
			holds = append(holds, core.Target{Service: name, Epoch: epochs[name]})
		}
	}
	for _, l := range left {
		if l.Service != "" {
			add(l.Service)
			continue
		}
		a.log.Warn("something of an unknown service is here", "kind", string(l.Kind), "what", l.What)
		state := a.replica.State()
		for _, name := range state.ServiceNames() {
			add(name)
		}
	}
	return holds
}

// serveReport takes a member's report; its name is from its certificate.
func (a *App) serveReport(_ context.Context, peer core.NodeName, body json.RawMessage) (any, error) {
	var r dated
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, err
	}
	if !r.Wall.IsZero() { // an older version says none
		a.clocks.set(peer, time.Until(r.Wall))
	}
	a.observer.Reported(peer, boottime.Now(), r.Report)
	return a.judge(peer), nil
}
