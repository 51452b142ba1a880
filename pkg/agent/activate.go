package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/worker"
)

const (
	leasePoll   = 10 * time.Millisecond  // an ack takes 1 to 5 ms after the grant
	probeFirst  = 250 * time.Millisecond // patience of the first probe; doubles
	probeLast   = time.Minute            // and then it is the probe's own bound that counts
	probeSoon   = 50 * time.Millisecond  // between probes until the first healthy one
	commitBound = 5 * time.Second        // of one try to commit a client's address
)

// took is where the time of an activation went.
type took struct {
	storage, start, probe time.Duration
}

// activate runs one activation to its end: the service answers, or what was begun is taken down and reported.
func (r *runner) activate(ctx context.Context, state core.State, grant core.Grant, mounted bool) time.Duration {
	plan, ok := r.plan(state, grant)
	if !ok {
		return lookAgain
	}
	plan.Restart = mounted
	spec := *state.Spec.Service(r.name)
	r.now("starting")
	r.log.Info("starting", "epoch", grant.Epoch, "run", grant.Run, "cause", string(grant.Cause))
	bounded, cancel := context.WithTimeout(ctx, spec.StartLimit)
	defer cancel()
	follow := r.whileWanted(bounded, cancel, grant)
	began := time.Now()
	times, failure := r.bring(bounded, plan, spec)
	if ctx.Err() == nil && failure == nil && plan.Stage == core.StageRunning {
		failure = r.answers(bounded, spec, &times)
	}
	cancel()
	<-follow
	switch {
	case ctx.Err() != nil:
		return 0 // the daemon stops; the next one adopts or takes down what is here
	case failure == nil:
	case !r.wanted(r.cfg.Replica.State(), grant):
		return r.giveUp(ctx, state, grant, failure)
	case mounted:
		return r.failRun(ctx, state, grant, failure)
	default:
		return r.stopAfter(ctx, state, grant, failure)
	}
	if plan.Stage == core.StagePromoted {
		r.log.Info("promoted", "epoch", grant.Epoch, "after", time.Since(began))
		r.report(ctx, core.Promoted{Service: r.name, Epoch: grant.Epoch, Instance: grant.Instance, Run: grant.Run, Storage: times.storage})
		return retryShort
	}
	r.log.Info("answers", "epoch", grant.Epoch, "run", grant.Run, "after", time.Since(began))
	r.report(ctx, core.Started{
		Service: r.name, Epoch: grant.Epoch, Instance: grant.Instance, Run: grant.Run,
		Storage: times.storage, Start: times.start, Probe: times.probe,
	})
	return retryShort
}

// wanted reports whether State still wants this very run here, and whoever claimed it still waits.
func (r *runner) wanted(state core.State, grant core.Grant) bool {
	d, now := want(state, r.cfg.Self, r.cfg.Instance, r.name)
	return d == hold && now.Epoch == grant.Epoch && now.Run == grant.Run && r.claimed(state)
}

// giveUp ends an activation that nobody wants any more. It is no failure.
func (r *runner) giveUp(ctx context.Context, state core.State, grant core.Grant, why *worker.Failure) time.Duration {
	if d, now := want(r.cfg.Replica.State(), r.cfg.Self, r.cfg.Instance, r.name); d != hold || now.Epoch != grant.Epoch || now.Run != grant.Run {
		r.log.Info("start given up: its grant is wanted back", "epoch", grant.Epoch, "err", why.Message)
		return 0 // the next look takes down what was begun
	}
	r.log.Info("start given up: the cluster manager waits for it no more", "epoch", grant.Epoch, "run", grant.Run, "err", why.Message)
	here, err := r.cfg.Node.Here(r.name)
	switch {
	case err != nil:
		return lookAgain
	case here.Record == nil || here.Record.Marks.Vacated || here.Record.Epoch != grant.Epoch:
		return 0 // the next look gives the grant back
	case grant.Staged && here.Record.Storage.Kept:
		if r.stopRun(ctx, state, *here.Record).Contained {
			return 0 // the next look says promoted
		}
	}
	r.reportStop(ctx, grant, r.stop(ctx, state, *here.Record), "")
	return retryShort
}

// whileWanted cancels an activation whose grant is wanted back: a holder that goes on starting for its whole limit
// would be fenced for it. The channel is closed when it has ended.
func (r *runner) whileWanted(ctx context.Context, cancel context.CancelFunc, grant core.Grant) <-chan struct{} {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			var claims <-chan struct{} // nil: without a cluster manager nothing comes of it
			if r.cfg.Claims != nil {
				_, claims = r.cfg.Claims.Claimed(r.name)
			}
			state, changed := r.cfg.Replica.Watch()
			if !r.wanted(state, grant) {
				cancel()
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-changed:
			case <-claims:
			}
		}
	}()
	return ended
}

// failRun reports a restart in place that did not come up; the volume stays for the next one.
func (r *runner) failRun(ctx context.Context, state core.State, grant core.Grant, failure *worker.Failure) time.Duration {
	r.log.Error("restart failed", "epoch", grant.Epoch, "run", grant.Run, "err", failure.Message)
	here, err := r.cfg.Node.Here(r.name)
	if err != nil {
		return lookAgain
	}
	if here.Record != nil {
		if result := r.stopRun(ctx, state, *here.Record); !result.Contained {
			return r.stopAfter(ctx, state, grant, failure)
		}
	}
	r.report(ctx, core.RunFailed{
		Service: r.name, Epoch: grant.Epoch, Instance: grant.Instance, Run: grant.Run, Reason: failure.Message,
	})
	return retryShort
}

// bring runs the helper until the container's init runs.
func (r *runner) bring(ctx context.Context, plan worker.Plan, spec core.ServiceSpec) (took, *worker.Failure) {
	var times took
	last := time.Now() // the wait for the lease is storage's: from the grant to the mount
	contested := false
	ctx, cancel := context.WithCancel(ctx)
	duplicate := r.askDuplicate(ctx, spec.Network)
	defer func() {
		cancel()
		<-duplicate
	}()
	if !r.awaitLease(ctx, plan) {
		return times, &worker.Failure{Code: worker.CodeLease, Message: "the leader acknowledged no lease for this grant"}
	}
	helper, err := r.cfg.Starter.Start(ctx, plan)
	if err != nil {
		return times, &worker.Failure{Code: worker.CodeUnknown, Message: err.Error()}
	}
	defer helper.Kill() // a no-op once it has ended
	for {
		select {
		case <-ctx.Done():
			return times, &worker.Failure{Code: worker.CodeUnknown, Message: fmt.Sprintf("not up within its start limit of %s", spec.StartLimit)}
		case p, ok := <-helper.Progress():
			if !ok {
				return times, &worker.Failure{Code: worker.CodeUnknown, Message: "the activation helper ended without a word; its log says why"}
			}
			r.log.Debug("step", "step", string(p.Step), "took", p.Took)
			switch p.Step {
			case worker.StepFailed:
				return times, p.Failure
			case worker.StepMapped:
				bearer, failure := r.mayGo(ctx, plan, p.Address, duplicate)
				if failure != nil {
					return times, failure
				}
				contested = bearer.OldHolder
				if err := helper.Go(); err != nil {
					return times, &worker.Failure{Code: worker.CodeUnknown, Message: err.Error()}
				}
			case worker.StepPromoted:
				times.storage = time.Since(last)
				return times, nil
			case worker.StepMounted:
				times.storage, last = time.Since(last), time.Now()
			case worker.StepStarted:
				times.start = time.Since(last)
				r.announce(ctx, plan, Announcement{Network: spec.Network, Link: plan.Container.Link, Contested: contested})
				return times, nil
			case worker.StepLease, worker.StepAnnounce:
			}
		}
	}
}

// awaitLease waits until the guard has a live lease that names the grant (I4).
func (r *runner) awaitLease(ctx context.Context, plan worker.Plan) bool {
	for !r.cfg.Leased(plan.Service, plan.Epoch) {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(leasePoll):
		}
	}
	return true
}

// mayGo lets the helper touch the volume's content: its client is committed with the grant (I6), and nobody else
// answers for the service's addresses.
func (r *runner) mayGo(ctx context.Context, plan worker.Plan, address string, duplicate <-chan Bearer) (Bearer, *worker.Failure) {
	if err := r.commitClient(ctx, plan, address); err != nil {
		return Bearer{}, &worker.Failure{Code: worker.CodeUnknown, Message: err.Error()}
	}
	var bearer Bearer
	select {
	case bearer = <-duplicate:
		if bearer.Stranger != "" {
			return bearer, &worker.Failure{Code: worker.CodeAddressInUse, Message: bearer.Stranger}
		}
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		return bearer, &worker.Failure{Code: worker.CodeUnknown, Message: "the check for duplicate addresses did not end in time"}
	}
	return bearer, nil
}

// commitClient commits the address and waits until this node has applied it. An unknown outcome is asked again:
// what counts is what State says.
func (r *runner) commitClient(ctx context.Context, plan worker.Plan, address string) error {
	if address == "" {
		return errors.New("the mapper names no client address")
	}
	c := core.CommitClient{Service: plan.Service, Epoch: plan.Epoch, Instance: plan.Instance, Address: address}
	for {
		bounded, cancel := context.WithTimeout(ctx, commitBound)
		outcome, err := r.cfg.Replica.Propose(bounded, c)
		cancel()
		if outcome == core.Refused {
			return fmt.Errorf("commit storage client %s: %w", address, err)
		}
		now, changed := r.cfg.Replica.Watch() // after the answer: what it tells of can't be missed
		if g := now.Services[plan.Service].Grant; g != nil && g.Epoch == plan.Epoch && slices.Contains(g.Clients, address) {
			return nil
		}
		select {
		case <-changed: // what the leader has applied is here in a moment
		case <-time.After(retryShort):
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return fmt.Errorf("commit storage client %s: no quorum answered in time: %w", address, ctx.Err())
		}
	}
}

// askDuplicate looks for another bearer of the addresses while storage is being taken. The channel has one answer,
// then is closed.
func (r *runner) askDuplicate(ctx context.Context, n core.NetworkSpec) <-chan Bearer {
	answer := make(chan Bearer, 1)
	go func() {
		defer close(answer)
		bearer, err := r.cfg.Net.Duplicate(ctx, n)
		if err != nil && ctx.Err() == nil {
			r.log.Warn("can't look for duplicate addresses; going on", "err", err)
		}
		answer <- bearer
	}()
	return answer
}

// announcement is one under way. It ends before the service is taken down: its lease may last until after the next
// holder announces the same addresses.
type announcement struct {
	cancel context.CancelFunc
	ended  chan struct{}
}

func (a *announcement) end() {
	if a.cancel != nil {
		a.cancel()
		<-a.ended
		*a = announcement{}
	}
}

// announce tells the network about the addresses while the lease is good. It outlives the activation, and ends with
// the run.
func (r *runner) announce(ctx context.Context, plan worker.Plan, a Announcement) {
	r.announcing.end()
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	r.announcing = announcement{cancel, ended}
	good := func() bool { return ctx.Err() == nil && r.cfg.Leased(plan.Service, plan.Epoch) }
	go func() {
		defer close(ended)
		r.cfg.Net.Announce(ctx, a, good)
	}()
}

// answers probes until the service is healthy.
func (r *runner) answers(ctx context.Context, spec core.ServiceSpec, times *took) *worker.Failure {
	began := time.Now()
	var last error
	// The first probes are impatient: a frame lost while switches learn the address must not cost a whole timeout.
	for patience := probeFirst; ; patience = min(2*patience, probeLast) {
		impatient, cancel := context.WithTimeout(ctx, patience)
		err := r.cfg.Prober.Probe(impatient, spec)
		cancel()
		if err == nil {
			times.probe = time.Since(began)
			return nil
		}
		if ctx.Err() == nil || last == nil { // one that was cut short says nothing of the service
			last = err
		}
		select {
		case <-ctx.Done():
			return &worker.Failure{Code: worker.CodeUnknown, Message: fmt.Sprintf("does not answer within its start limit of %s: %v", spec.StartLimit, last)}
		case <-time.After(probeSoon):
		}
		if here, err := r.cfg.Node.Here(r.name); err == nil && here.Record != nil && !here.Facts.Init {
			return &worker.Failure{Code: worker.CodeContainerStart, Message: "the container ended before it answered"}
		}
	}
}
