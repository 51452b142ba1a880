package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/keepone-ha/keepone/pkg/clock"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/release"
)

const (
	volumeEvery = 5 * time.Second // between looks at the volume below a running container
	lookTwice   = time.Second
)

// watch looks after a running container until State, its init, its lease or its probes ask for something else.
func (r *runner) watch(ctx context.Context, state core.State, grant core.Grant, here release.Record) time.Duration {
	spec := state.Spec.Service(r.name)
	if spec == nil {
		return lookAgain
	}
	r.now("running")
	watching, stop := context.WithCancel(ctx)
	defer stop()
	exited, err := r.cfg.Node.Exited(watching, here)
	if err != nil {
		r.log.Warn("can't watch the container's init; looking instead", "err", err)
		return retryShort
	}
	probes := time.NewTicker(interval(*spec)) // kept over changes of State: they must not put a probe off for ever
	defer probes.Stop()
	looks := time.NewTicker(volumeEvery)
	defer looks.Stop()
	failures := 0
	for {
		now, changed := r.cfg.Replica.Watch()
		if r.moved(now, grant, here) {
			return 0
		}
		select {
		case <-ctx.Done():
			return 0
		case <-exited:
			return 0 // the next look finds it lost, or contained
		case <-r.woken:
			return retryShort
		case <-changed:
			continue
		case <-looks.C:
			if why := r.failing(ctx, state.Spec.Manager, here); why != "" {
				return r.abandon(ctx, now, grant, here, why)
			}
			continue
		case <-probes.C:
		}
		err := r.probe(ctx, *spec)
		if err == nil {
			failures = 0
			r.now("running")
			r.answeredAtLast(ctx, grant)
			continue
		}
		// A run that has not answered yet, under a daemon that came back, has until its start limit: the leader counts it.
		if _, g := want(r.cfg.Replica.State(), r.cfg.Self, r.cfg.Instance, r.name); g.Phase == core.PhaseStarting {
			continue
		}
		if failures++; state.Spec.Manager == core.ManagerPacemaker {
			r.now(fmt.Sprintf("running; its probes fail: %v", err)) // the cluster manager's own monitor decides
			continue
		}
		if failures >= patience(*spec) && ctx.Err() == nil {
			r.report(ctx, core.RunFailed{
				Service: r.name, Epoch: grant.Epoch, Instance: grant.Instance, Run: grant.Run,
				Reason: fmt.Sprintf("%d probes failed in a row: %v", failures, err),
			})
			return retryShort
		}
	}
}

// failing says what is certainly wrong with the volume, at two looks. A front-end that answers out of its memory passes its
// probes for long on a volume that takes no write any more. A cluster manager's monitor looks for itself.
func (r *runner) failing(ctx context.Context, manager core.Manager, here release.Record) string {
	if manager == core.ManagerPacemaker || r.cfg.Node.Failing(ctx, here) == "" || clock.Pause(ctx, lookTwice) != nil {
		return ""
	}
	return r.cfg.Node.Failing(ctx, here)
}

// abandon takes the service down and gives its grant back: another run on the same mapping would fail as well, while the
// next activation, here or elsewhere, is another storage client.
func (r *runner) abandon(ctx context.Context, state core.State, grant core.Grant, here release.Record, why string) time.Duration {
	r.log.Error("the volume fails: giving the service up", "epoch", grant.Epoch, "reason", why)
	r.now("stopping: its volume fails")
	r.reportStop(ctx, grant, r.stop(ctx, state, here), why)
	return retryShort
}

// probe asks once. The bound stands behind those of the probes themselves.
func (r *runner) probe(ctx context.Context, spec core.ServiceSpec) error {
	const perProbe = 2 * time.Second
	bound := perProbe
	for _, p := range spec.Probes {
		bound += max(p.Timeout, perProbe)
	}
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	return r.cfg.Prober.Probe(ctx, spec)
}

// moved reports whether State wants something else than that this run goes on.
func (r *runner) moved(state core.State, grant core.Grant, here release.Record) bool {
	d, now := want(state, r.cfg.Self, r.cfg.Instance, r.name)
	return d != hold || now.Epoch != grant.Epoch || now.Run > here.Attempt
}

// answeredAtLast reports Started for a run whose report was lost, or whose daemon was restarted meanwhile.
func (r *runner) answeredAtLast(ctx context.Context, grant core.Grant) {
	_, now := want(r.cfg.Replica.State(), r.cfg.Self, r.cfg.Instance, r.name)
	if now.Phase == core.PhaseStarting && now.Epoch == grant.Epoch && now.Run == grant.Run {
		r.report(ctx, core.Started{Service: r.name, Epoch: now.Epoch, Instance: now.Instance, Run: now.Run})
	}
}

// interval between probes: the shortest that the service names.
func interval(spec core.ServiceSpec) time.Duration {
	shortest := 2 * time.Second
	for _, p := range spec.Probes {
		if p.Interval > 0 && p.Interval < shortest {
			shortest = p.Interval
		}
	}
	return shortest
}

// patience is how many probes in a row may fail.
func patience(spec core.ServiceSpec) int {
	most := 1
	for _, p := range spec.Probes {
		most = max(most, p.Failures)
	}
	return most
}
