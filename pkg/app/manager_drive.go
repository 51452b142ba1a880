package app

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/pkg/api"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/drive/pacemaker"
	"github.com/keepone-ha/keepone/pkg/op"
	"github.com/keepone-ha/keepone/pkg/setup"
)

const (
	// driveSlack is past a service's own limits: Pacemaker's transitions, and a fence on the way.
	driveSlack = 90 * time.Second
	// moveLasts ends the constraint of a move that nobody took back: this daemon may die before it does.
	moveLasts = 10 * time.Minute
)

// drive carries an operator's wish out by Pacemaker, which would undo what is done behind its back. False: keepone
// itself does it, or what is left of it.
func (a *App) drive(ctx context.Context, ask op.Ask, f *follower) (op.Answer, bool, error) {
	d := driven{app: a, ask: ask, follow: f}
	switch ask.What {
	case core.RequestSwitchover:
		answer, err := d.switchover(ctx)
		return answer, true, err
	case core.RequestStop:
		answer, err := d.stop(ctx)
		return answer, true, err
	case core.RequestStart:
		return d.start(ctx)
	case core.RequestRestart:
		answer, err := d.restart(ctx)
		return answer, true, err
	case core.RequestFailover:
		return op.Answer{}, true, api.Refuse("Pacemaker runs %s: have its holder fenced with `keepone fence NODE`, and Pacemaker starts it elsewhere", ask.Service)
	case core.RequestDrain:
		f.say(0, "Pacemaker: standby of "+string(ask.Node))
		return op.Answer{}, false, pacemaker.Standby(ctx, string(ask.Node), true)
	case core.RequestUndrain:
		f.say(0, "Pacemaker: standby of "+string(ask.Node)+" ends")
		return op.Answer{}, false, pacemaker.Standby(ctx, string(ask.Node), false)
	case core.RequestMaintenance:
		f.say(0, "Pacemaker: maintenance-mode")
		return op.Answer{}, false, pacemaker.MaintenanceMode(ctx, true)
	case core.RequestMaintainOff, core.RequestFence, core.RequestFenceConfirm:
	}
	return op.Answer{}, false, nil
}

// driven is one wish under way.
type driven struct {
	app    *App
	ask    op.Ask
	follow *follower
}

// resource is what Pacemaker has of the service: the volume where that is a resource of its own, else the container.
func (d driven) resource(ctx context.Context) (pacemaker.Role, error) {
	status, err := pacemaker.ReadStatus(ctx)
	if err != nil {
		return pacemaker.Role{}, err
	}
	container := setup.Container(d.ask.Service)
	found := ""
	for _, r := range status.Resources {
		switch id, _, _ := strings.Cut(r.ID, ":"); id { // without the instance's number
		case setup.Volume(d.ask.Service):
			return pacemaker.Role{Resource: setup.VolumeClone(d.ask.Service), Promoted: true}, nil
		case container:
			found = container
		}
	}
	if found == "" {
		return pacemaker.Role{}, api.Refuse("Pacemaker has no resource %s: `keepone pacemaker setup --check` says what is missing", container)
	}
	return pacemaker.Role{Resource: found}, nil
}

// switchover moves the service and takes the constraint away again, which would else keep it there.
func (d driven) switchover(ctx context.Context) (op.Answer, error) {
	state := d.app.replica.State()
	g := state.Services[d.ask.Service].Grant
	switch {
	case state.Spec.Service(d.ask.Service) == nil:
		return op.Answer{}, api.Refuse("the cluster document has no service %q", d.ask.Service)
	case g == nil:
		return op.Answer{}, api.Refuse("%s runs nowhere now: `crm_mon -1` shows what Pacemaker makes of it", d.ask.Service)
	case g.Node == d.ask.Node:
		return op.Answer{}, api.Refuse("%s is on %s already", d.ask.Service, g.Node)
	}
	to, err := d.destination(ctx, state, g.Node)
	if err != nil {
		return op.Answer{}, err
	}
	role, err := d.resource(ctx)
	if err != nil {
		return op.Answer{}, err
	}
	d.follow.say(0, fmt.Sprintf("Pacemaker: move %s from %s to %s", role.Resource, g.Node, to))
	if err := pacemaker.Move(ctx, role, string(to), moveLasts); err != nil {
		return op.Answer{}, err
	}
	defer func() {
		if err := pacemaker.Clear(context.WithoutCancel(ctx), role); err != nil {
			d.follow.say(0, fmt.Sprintf("the constraint of the move stays for %s: %v", moveLasts, err))
		}
	}()
	return d.await(ctx, fmt.Sprintf("%s answers on %s", d.ask.Service, to), func(s core.State) bool {
		g := s.Services[d.ask.Service].Grant
		return g != nil && g.Node == to && g.Phase == core.PhaseRunning
	})
}

// destination is where the operator wants it, or the best node for it.
func (d driven) destination(ctx context.Context, state core.State, from core.NodeName) (core.NodeName, error) {
	seen := d.app.bestFacts(ctx)
	able := core.Ables(state, seen.View, d.app.replica.Now())[d.ask.Service]
	if to := d.ask.Node; to != "" {
		if !able[to].OK {
			return "", api.Refuse("%s can't take %s: %s", to, d.ask.Service, cmp.Or(able[to].Reason, "it is no member"))
		}
		return to, nil
	}
	var names []core.NodeName
	for name, a := range able {
		if a.OK && name != from {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "", api.Refuse("no other node can take %s now: keepone status", d.ask.Service)
	}
	return slices.MinFunc(names, func(a, b core.NodeName) int {
		return cmp.Or(cmp.Compare(able[b].Score, able[a].Score), cmp.Compare(a, b))
	}), nil
}

func (d driven) stop(ctx context.Context) (op.Answer, error) {
	role, err := d.resource(ctx)
	if err != nil {
		return op.Answer{}, err
	}
	d.follow.say(0, "Pacemaker: target-role of "+role.Resource+" Stopped")
	if err := pacemaker.Stop(ctx, role.Resource); err != nil {
		return op.Answer{}, err
	}
	return d.await(ctx, fmt.Sprintf("%s is stopped and vacated", d.ask.Service), func(s core.State) bool {
		return s.Services[d.ask.Service].Grant == nil
	})
}

// start lets Pacemaker start it again. One that keepone itself was told to keep stopped is freed first.
func (d driven) start(ctx context.Context) (op.Answer, bool, error) {
	state := d.app.replica.State()
	role, err := d.resource(ctx)
	if err != nil {
		return op.Answer{}, true, err
	}
	d.follow.say(0, "Pacemaker: target-role of "+role.Resource+" as it was")
	if err := pacemaker.Start(ctx, role.Resource); err != nil {
		return op.Answer{}, true, err
	}
	if state.Services[d.ask.Service].Stopped {
		return op.Answer{}, false, nil
	}
	answer, err := d.await(ctx, fmt.Sprintf("%s answers", d.ask.Service), d.runs)
	return answer, true, err
}

// restart ends the container alone where the volume is a resource of its own.
func (d driven) restart(ctx context.Context) (op.Answer, error) {
	if !d.runs(d.app.replica.State()) {
		return op.Answer{}, api.Refuse("%s is not running, there is nothing to restart", d.ask.Service)
	}
	if _, err := d.resource(ctx); err != nil {
		return op.Answer{}, err
	}
	container := setup.Container(d.ask.Service)
	d.follow.say(0, "Pacemaker: stop and start "+container)
	if err := pacemaker.Stop(ctx, container); err != nil {
		return op.Answer{}, err
	}
	_, err := d.await(ctx, "stopped", func(s core.State) bool { return !d.runs(s) })
	if started := pacemaker.Start(context.WithoutCancel(ctx), container); started != nil {
		return op.Answer{}, started // it must not stay stopped because nobody waited
	}
	if err != nil {
		return op.Answer{}, err
	}
	return d.await(ctx, fmt.Sprintf("%s answers again", d.ask.Service), d.runs)
}

func (d driven) runs(s core.State) bool {
	g := s.Services[d.ask.Service].Grant
	return g != nil && g.Phase == core.PhaseRunning
}

// await follows State until it is as wished. When the time is up Pacemaker goes on all the same.
func (d driven) await(ctx context.Context, done string, ok func(core.State) bool) (op.Answer, error) {
	bound := driveSlack
	state := d.app.replica.State()
	if spec := state.Spec.Service(d.ask.Service); spec != nil {
		bound += spec.StopLimit + spec.StartLimit
	}
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	for {
		state, changed := d.app.replica.Watch()
		if ok(state) {
			return op.Answer{State: core.RequestDone, Text: done}, nil
		}
		if d.ask.NoWait {
			return op.Answer{State: core.RequestDone, Text: "Pacemaker has its orders"}, nil
		}
		d.follow.say(0, stands(state, d.ask.Service))
		select {
		case <-ctx.Done():
			return op.Answer{State: core.RequestFailed, Text: fmt.Sprintf("not done within %s, and Pacemaker goes on: %s; `crm_mon -1` shows what it does",
				bound, stands(state, d.ask.Service))}, nil
		case <-changed:
		case <-time.After(followEvery):
		}
	}
}

// stands says where a service is.
func stands(state core.State, name core.ServiceName) string {
	svc := state.Services[name]
	switch g := svc.Grant; {
	case g != nil:
		return fmt.Sprintf("%s on %s: %s", name, g.Node, g.Phase)
	case svc.Blocked != "":
		return fmt.Sprintf("%s: %s", name, svc.Blocked)
	}
	return fmt.Sprintf("%s is held by no node", name)
}

// endMaintenance has Pacemaker take its hands up again once keepone's maintenance has ended, by an operator or in time.
func (a *App) endMaintenance(ctx context.Context) {
	if err := pacemaker.MaintenanceMode(ctx, false); err != nil {
		a.log.Error("maintenance has ended, and Pacemaker's maintenance-mode has not: crm_attribute --name maintenance-mode --update false", "err", err)
	}
}
