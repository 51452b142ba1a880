package sim

import (
	"time"

	"github.com/keepone-ha/keepone/pkg/agent"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/release"
)

const (
	retryShort  = 200 * time.Millisecond
	lookAgain   = 2 * time.Second
	reportLimit = 2 * time.Second
)

// runner is the agent's for one service: the real judgement, and the steps that it orders on the model.
type runner struct {
	d      *daemon
	n      *node
	h      *holding
	failed map[core.Epoch]string
}

func (r *runner) run(p *process) {
	r.failed = map[core.Epoch]string{}
	p.await(forever, func() bool { return r.d.ready })
	for {
		changed, runs := r.d.changed, r.h.runs
		if wait := r.step(p); wait > 0 {
			p.await(wait, func() bool { return r.d.changed != changed || r.h.runs != runs })
		}
	}
}

func (r *runner) here() agent.Here {
	if !r.h.has {
		return agent.Here{}
	}
	rec := r.h.rec
	return agent.Here{Record: &rec, Facts: r.h.facts(), Buried: r.h.isBuried(rec.Epoch, rec.Attempt)}
}

// step does what State and the facts ask for, and says how long to rest if nothing changes.
func (r *runner) step(p *process) time.Duration {
	state := *r.d.state()
	here := r.here()
	step, g := agent.Judge(state, r.n.name, r.n.life, r.h.name, here, r.claimed())
	say := func(c core.Command) time.Duration {
		r.d.propose(p, c, reportLimit)
		return retryShort
	}
	switch step {
	case agent.Activate:
		return r.activate(p, state, g, false)
	case agent.Restart:
		if result := r.h.stop(p, r.graceful(state), true); !result.Contained {
			return r.clean(p, state, g)
		}
		return r.activate(p, state, g, true)
	case agent.Adopt:
		return r.watch(p, state, g)
	case agent.Lost:
		return say(core.RunFailed{Service: r.h.name, Epoch: g.Epoch, Instance: g.Instance, Run: g.Run, Reason: "the container ended"})
	case agent.Clean:
		return r.clean(p, state, g)
	case agent.Vacant:
		failure := ""
		if g.Phase != core.PhaseReleasing && g.Phase != core.PhaseContained {
			failure = r.stopped("it was stopped on this node")
			if words := r.failed[g.Epoch]; words != "" {
				failure = words
			}
		}
		return say(core.Vacated{Service: r.h.name, Epoch: g.Epoch, Instance: g.Instance, Failure: failure})
	case agent.Unclaimed:
		return say(core.Vacated{Service: r.h.name, Epoch: g.Epoch, Instance: g.Instance})
	case agent.Mapped:
		return say(core.Promoted{Service: r.h.name, Epoch: g.Epoch, Instance: g.Instance, Run: g.Run})
	case agent.Rest:
	}
	return lookAgain
}

func (r *runner) graceful(state core.State) time.Duration {
	if spec := state.Spec.Service(r.h.name); spec != nil {
		return spec.StopLimit
	}
	return r.h.rec.StopLimit
}

// clean takes down whatever is here, and says what came of it if the grant is still ours.
func (r *runner) clean(p *process, state core.State, g core.Grant) time.Duration {
	epoch := r.h.rec.Epoch
	failure := ""
	if g.Phase != core.PhaseReleasing && g.Phase != core.PhaseContained {
		marks := r.h.rec.Marks
		switch failure = r.failed[g.Epoch]; {
		case failure != "":
		case marks.Contained || marks.Halted || r.h.isBuried(r.h.rec.Epoch, r.h.rec.Attempt):
			failure = r.stopped("it was stopped on this node")
		default:
			failure = "its activation was cut short, or its storage went away"
		}
	}
	result := r.h.stop(p, r.graceful(state), false)
	if epoch == g.Epoch && g.Epoch != 0 {
		r.reportStop(p, g, result, failure)
	}
	if result.Vacated {
		return 0
	}
	return lookAgain
}

func (r *runner) reportStop(p *process, g core.Grant, result release.Result, failure string) {
	switch {
	case result.Vacated:
		r.d.propose(p, core.Vacated{Service: r.h.name, Epoch: g.Epoch, Instance: g.Instance, Failure: failure}, reportLimit)
	case result.Contained:
		r.d.propose(p, core.Contained{Service: r.h.name, Epoch: g.Epoch, Instance: g.Instance, Reason: failure}, reportLimit)
	}
}

// watch looks after a running container: the end of it, its probes, and what State wants next.
func (r *runner) watch(p *process, _ core.State, g core.Grant) time.Duration {
	failures := 0
	for {
		state := *r.d.state()
		step, now := agent.Judge(state, r.n.name, r.n.life, r.h.name, r.here(), r.claimed())
		if step != agent.Adopt {
			return 0
		}
		if now.Phase == core.PhaseStarting && r.answers() {
			r.d.propose(p, core.Started{Service: r.h.name, Epoch: now.Epoch, Instance: now.Instance, Run: now.Run}, reportLimit)
		}
		if failures = failures + 1; r.answers() || p.w.managed() {
			failures = 0
		} else if failures >= 3 && now.Phase == core.PhaseRunning {
			r.d.propose(p, core.RunFailed{Service: r.h.name, Epoch: g.Epoch, Instance: g.Instance, Run: now.Run, Reason: "3 probes failed in a row"}, reportLimit)
			return retryShort
		}
		changed := r.d.changed
		p.await(lookAgain, func() bool { return r.d.changed != changed || !r.h.runs })
	}
}

func (r *runner) answers() bool {
	if cl := r.h.client; cl != nil && cl.cut {
		return false // a front-end that can't write does not answer for long
	}
	return r.h.runs && !r.n.wrong.container.sick && r.n.w.now >= r.h.begun+100*time.Millisecond
}

// activate runs one activation to its end: the service answers, or what was begun is taken down and reported.
func (r *runner) activate(p *process, state core.State, g core.Grant, mounted bool) time.Duration {
	spec := state.Spec.Service(r.h.name)
	if spec == nil {
		return lookAgain
	}
	began := p.w.now
	err := r.comeUp(p, state, g, spec.StartLimit, mounted)
	if err == nil && g.Stage == core.StagePromoted {
		r.d.propose(p, core.Promoted{
			Service: r.h.name, Epoch: g.Epoch, Instance: g.Instance, Run: g.Run, Storage: p.w.now - began,
		}, reportLimit)
		return retryShort
	}
	if err == nil {
		r.d.propose(p, core.Started{
			Service: r.h.name, Epoch: g.Epoch, Instance: g.Instance, Run: g.Run, Storage: r.h.begun - began, Probe: p.w.now - r.h.begun,
		}, reportLimit)
		return retryShort
	}
	p.w.say("%s fails to start %s@%d: %v", r.n.name, r.h.name, g.Epoch, err)
	if !r.wanted(g) {
		return r.giveUp(p, g, spec.StopLimit)
	}
	if mounted {
		if result := r.h.stop(p, spec.StopLimit, true); result.Contained {
			r.d.propose(p, core.RunFailed{Service: r.h.name, Epoch: g.Epoch, Instance: g.Instance, Run: g.Run, Reason: err.Error()}, reportLimit)
			return retryShort
		}
	}
	r.failed[g.Epoch] = err.Error()
	if !r.h.has || r.h.rec.Marks.Vacated {
		r.d.propose(p, core.Vacated{Service: r.h.name, Epoch: g.Epoch, Instance: g.Instance, Failure: err.Error()}, reportLimit)
		return retryShort
	}
	r.reportStop(p, g, r.h.stop(p, spec.StopLimit, false), err.Error())
	return retryShort
}

func (r *runner) comeUp(p *process, state core.State, g core.Grant, limit time.Duration, mounted bool) error {
	p.w.busy++
	defer func() { p.w.busy-- }()
	s := p.within(limit)
	if err := r.bring(p, s, state, g, mounted); err != nil {
		return err
	}
	if g.Stage == core.StagePromoted {
		return nil
	}
	return r.untilAnswers(p, s, g)
}

// wanted reports whether State still wants this very run here.
func (r *runner) wanted(g core.Grant) bool {
	return r.granted(g) && r.claimed()
}

// granted reports whether State has this very run here, whoever waits for it.
func (r *runner) granted(g core.Grant) bool {
	now := r.d.state().Services[r.h.name].Grant
	return now != nil && now.Instance == r.n.life && now.Epoch == g.Epoch && now.Run == g.Run &&
		now.Phase != core.PhaseReleasing && now.Phase != core.PhaseContained
}

// claimed reports whether an activation is still waited for.
func (r *runner) claimed() bool {
	if r.d.claims == nil {
		return true
	}
	is, _ := r.d.claims.Claimed(r.h.name)
	return is
}

// stopped is the failure that a stop on this node is: none where a cluster manager stops what it has started.
func (r *runner) stopped(words string) string {
	if r.n.w.managed() {
		return ""
	}
	return words
}

// giveUp ends an activation that nobody wants any more. It is no failure.
func (r *runner) giveUp(p *process, g core.Grant, graceful time.Duration) time.Duration {
	switch {
	case !r.granted(g), !r.h.has, r.h.rec.Marks.Vacated, r.h.rec.Epoch != g.Epoch:
		return 0
	case g.Staged && r.h.rec.Storage.Kept:
		if r.h.stop(p, graceful, true).Contained {
			return 0
		}
	}
	r.reportStop(p, g, r.h.stop(p, graceful, false), "")
	return retryShort
}
