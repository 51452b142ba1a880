package agent

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/release"
	"github.com/keepone-ha/keepone/pkg/worker"
)

const (
	retryShort = 200 * time.Millisecond // after something that should have worked
	lookAgain  = 2 * time.Second        // facts change without telling, too
	mostPause  = time.Minute            // between stops of what is contained and can't be vacated
)

// runner looks after one service on this node. All its work is in one goroutine: what is here changes by nobody
// else's hand, but for a guard's containment or an operator's stop, which its next look sees.
type runner struct {
	cfg  Config
	name core.ServiceName
	log  *slog.Logger

	announcing announcement
	failed     failedStart
	held       heldStop
	woken      chan struct{}

	mu   sync.Mutex
	does string
}

// failedStart remembers why an activation failed, until its grant has ended: the report of it may be lost.
type failedStart struct {
	epoch core.Epoch
	words string
}

// heldStop is a stop that contained a record, and could not vacate it: all that a further one could do is take down
// more of it, for its storage client is cut off meanwhile.
type heldStop struct {
	epoch   core.Epoch
	attempt int
	facts   release.Facts // that it found
	wait    time.Duration
	until   time.Time
}

// pause is how long the next stop of a record is put off. What has changed since the last one is looked after at once.
func (h heldStop) pause(here Here) time.Duration {
	if !here.Record.Marks.Contained || h.epoch != here.Record.Epoch || h.attempt != here.Record.Attempt || h.facts != here.Facts {
		return 0
	}
	return time.Until(h.until)
}

// hold puts the next stop off, for twice as long as the last if nothing has changed.
func (h heldStop) hold(here Here) heldStop {
	wait := lookAgain
	if h.epoch == here.Record.Epoch && h.attempt == here.Record.Attempt && h.facts == here.Facts {
		wait = min(2*h.wait, mostPause)
	}
	return heldStop{here.Record.Epoch, here.Record.Attempt, here.Facts, wait, time.Now().Add(wait)}
}

func newRunner(cfg Config, name core.ServiceName) *runner {
	return &runner{cfg: cfg, name: name, log: cfg.Log.With("service", string(name)), woken: make(chan struct{}, 1)}
}

func (r *runner) doing() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.does
}

func (r *runner) now(does string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.does = does
}

// run looks, does one step, and looks again.
func (r *runner) run(ctx context.Context) {
	defer r.announcing.end()
	for ctx.Err() == nil {
		state, changed := r.cfg.Replica.Watch()
		wait := r.step(ctx, state)
		if wait == 0 {
			continue
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-r.woken:
			r.held = heldStop{}
		case <-time.After(wait):
		}
	}
}

// step does what State and the facts ask for, and says how long to rest if nothing changes.
func (r *runner) step(ctx context.Context, state core.State) time.Duration {
	here, err := r.cfg.Node.Here(r.name)
	if err != nil {
		r.log.Error("can't tell what of the service is here; looking again", "err", err)
		return lookAgain // what can't be read is not absent
	}
	step, grant := Judge(state, r.cfg.Self, r.cfg.Instance, r.name, here, r.claimed(state))
	switch step {
	case Activate:
		return r.activate(ctx, state, grant, false)
	case Unclaimed:
		r.report(ctx, core.Vacated{Service: r.name, Epoch: grant.Epoch, Instance: grant.Instance})
		return retryShort
	case Restart:
		return r.restart(ctx, state, grant, here)
	case Mapped:
		return r.promoted(ctx, grant, here)
	case Adopt:
		return r.watch(ctx, state, grant, *here.Record)
	case Lost:
		r.report(ctx, core.RunFailed{
			Service: r.name, Epoch: grant.Epoch, Instance: grant.Instance, Run: grant.Run, Reason: "the container ended",
		})
		return retryShort
	case Clean:
		return r.clean(ctx, state, grant, here)
	case Vacant:
		failure := ""
		holds := grant.Phase != core.PhaseReleasing && grant.Phase != core.PhaseContained
		switch {
		case holds && here.Lease:
			failure = r.why(grant, leaseEnded)
		case holds:
			failure = r.why(grant, stopped(state, "it was stopped on this node"))
		}
		r.report(ctx, core.Vacated{Service: r.name, Epoch: grant.Epoch, Instance: grant.Instance, Failure: failure})
		return retryShort
	case Rest:
	}
	r.now("")
	return lookAgain
}

// promoted says that the volume is mapped and nothing more is up. That the end of the lease was the container's is said first.
func (r *runner) promoted(ctx context.Context, grant core.Grant, here Here) time.Duration {
	r.now("promoted")
	running := grant.Phase == core.PhaseRunning || grant.Phase == core.PhaseStarting && grant.Stage == core.StageRunning
	if running && here.Record.Attempt == grant.Run && here.Lease {
		r.report(ctx, core.RunFailed{Service: r.name, Epoch: grant.Epoch, Instance: grant.Instance, Run: grant.Run, Reason: leaseEnded})
		return retryShort
	}
	r.report(ctx, core.Promoted{Service: r.name, Epoch: grant.Epoch, Instance: grant.Instance, Run: grant.Run})
	return retryShort
}

// claimed reports whether an activation is still waited for. Where no cluster manager orders, the grant says it.
func (r *runner) claimed(state core.State) bool {
	if state.Spec.Manager != core.ManagerPacemaker {
		return true
	}
	claimed, _ := r.cfg.Claims.Claimed(r.name)
	return claimed
}

// why is what made the grant's activation fail, as far as this daemon remembers, or the other words.
func (r *runner) why(g core.Grant, otherwise string) string {
	if r.failed.epoch == g.Epoch && r.failed.words != "" {
		return r.failed.words
	}
	return otherwise
}

// leaseEnded is a failure under a cluster manager too: it did not ask for that stop.
const leaseEnded = "stopped: its lease has ended"

// stopped is the failure that a stop on this node is: none where a cluster manager stops what it has started.
func stopped(state core.State, words string) string {
	if state.Spec.Manager == core.ManagerPacemaker {
		return ""
	}
	return words
}

// stop takes down what is here. A daemon that is told to end waits for it: a stop that is cut short costs a fence.
// It is bounded all the same (I7).
func (r *runner) stop(ctx context.Context, state core.State, here release.Record) release.Result {
	r.announcing.end()
	return r.cfg.Node.Stop(context.WithoutCancel(ctx), here, r.graceful(state, here))
}

// stopRun ends the container and leaves the volume.
func (r *runner) stopRun(ctx context.Context, state core.State, here release.Record) release.Result {
	r.announcing.end()
	return r.cfg.Node.StopContainer(context.WithoutCancel(ctx), here, r.graceful(state, here))
}

// clean takes down whatever is here, and says what came of it if the grant is still ours.
func (r *runner) clean(ctx context.Context, state core.State, grant core.Grant, here Here) time.Duration {
	told := grant.Epoch != here.Record.Epoch || grant.Phase == core.PhaseContained
	if wait := r.held.pause(here); told && wait > 0 {
		r.now("contained; what is left of it is taken down later")
		return min(wait, lookAgain)
	}
	r.now("stopping")
	rec := *here.Record
	r.log.Info("stopping", "epoch", rec.Epoch, "attempt", rec.Attempt)
	result := r.stop(ctx, state, rec)
	r.log.Info("stopped", "epoch", rec.Epoch, "contained", result.Contained, "vacated", result.Vacated, "reasons", result.Reasons)
	if rec.Epoch == grant.Epoch && grant.Epoch != 0 {
		r.reportStop(ctx, grant, result, r.failureOf(state, grant, here))
	}
	if result.Vacated {
		return 0
	}
	if result.Contained {
		r.held = r.held.hold(here)
	}
	return lookAgain // try again: an unmount that failed may work later
}

// failureOf says why an activation had to be cleaned up although its grant is to be held.
func (r *runner) failureOf(state core.State, g core.Grant, here Here) string {
	marks := here.Record.Marks
	switch {
	case g.Phase == core.PhaseReleasing || g.Phase == core.PhaseContained:
		return ""
	case here.Lease:
		return r.why(g, leaseEnded)
	case marks.Contained || marks.Halted:
		return r.why(g, stopped(state, "stopped: "+marks.Reason))
	case here.Buried:
		return r.why(g, stopped(state, "it was stopped on this node"))
	}
	return r.why(g, "its activation was cut short, or its storage went away")
}

// reportStop tells the leader that the grant is vacated, or at least contained (I3: neither is said for hope).
func (r *runner) reportStop(ctx context.Context, g core.Grant, result release.Result, failure string) {
	switch {
	case result.Vacated:
		r.report(ctx, core.Vacated{Service: r.name, Epoch: g.Epoch, Instance: g.Instance, Failure: failure})
	case result.Contained:
		reason := failure
		for _, why := range result.Reasons {
			if reason != "" {
				reason += "; "
			}
			reason += why
		}
		r.report(ctx, core.Contained{Service: r.name, Epoch: g.Epoch, Instance: g.Instance, Reason: reason})
	}
}

func (r *runner) graceful(state core.State, here release.Record) time.Duration {
	if spec := state.Spec.Service(r.name); spec != nil {
		return spec.StopLimit
	}
	return here.StopLimit
}

// restart ends the old run and starts the next on the volume that stays mounted.
func (r *runner) restart(ctx context.Context, state core.State, grant core.Grant, here Here) time.Duration {
	r.now("restarting")
	result := r.stopRun(ctx, state, *here.Record)
	if !result.Contained {
		r.log.Error("the old run can't be ended; leaving the volume to a full stop", "reasons", result.Reasons)
		return r.clean(ctx, state, grant, here)
	}
	if why := r.failing(ctx, state.Spec.Manager, *here.Record); why != "" {
		return r.abandon(ctx, state, grant, *here.Record, why)
	}
	return r.activate(ctx, state, grant, true)
}

// report has the leader commit c. It tries once, within a bound: if that comes to nothing the next look, at State and
// at what is here, finds the same thing to say.
func (r *runner) report(ctx context.Context, c core.Command) {
	const bound = 2 * time.Second
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	outcome, err := r.cfg.Replica.Propose(ctx, c)
	if outcome != core.Done {
		r.log.Info("report not committed; the next look tells what is left to say", "command", c.Kind(), "outcome", outcome.String(), "err", err)
	}
}

// stopAfter takes down what a failed activation left, and reports it as the activation's failure.
func (r *runner) stopAfter(ctx context.Context, state core.State, grant core.Grant, failure *worker.Failure) time.Duration {
	r.log.Error("activation failed", "epoch", grant.Epoch, "code", string(failure.Code), "err", failure.Message)
	r.failed = failedStart{grant.Epoch, failure.Message}
	here, err := r.cfg.Node.Here(r.name)
	if err != nil {
		return lookAgain
	}
	if here.Record == nil || here.Record.Marks.Vacated {
		r.report(ctx, core.Vacated{Service: r.name, Epoch: grant.Epoch, Instance: grant.Instance, Failure: failure.Message})
		return retryShort
	}
	result := r.stop(ctx, state, *here.Record)
	r.reportStop(ctx, grant, result, failure.Message)
	return retryShort
}
