package app

import (
	"context"
	"time"

	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/observe"
	"github.com/keepone-ha/keepone/pkg/replica"
)

const (
	decideLimit = 3 * time.Second
	preferAfter = 2 * time.Second // leadership moves only when the wish has lasted
)

// leadLoop decides for as long as this node leads, each time under a context that dies with its leadership.
func (a *App) leadLoop(ctx context.Context) {
	_ = a.replica.Lead(ctx, a.lead)
}

// lead looks and decides again and again.
func (a *App) lead(ctx context.Context, l replica.Leadership) {
	state := a.replica.State()
	a.log.Info("leading", "term", l.Term)
	timing := state.Spec.Timing
	a.observer.Lead(l.Barrier, timing)
	a.manager.look()
	defer a.observer.Follow()
	a.leading.Store(true)
	defer a.leading.Store(false)
	silent := suspects{app: a, busy: map[core.NodeName]bool{}}
	defer silent.reading.Wait()
	var wish core.NodeName
	var since time.Time
	maintained := state.Maintenance.On
	for ctx.Err() == nil {
		state = a.replica.State()
		if maintained && !state.Maintenance.On && state.Spec.Manager == core.ManagerPacemaker {
			go a.endMaintenance(ctx)
		}
		maintained = state.Maintenance.On
		if grown := observe.Longer(timing, state.Spec.Timing); grown != timing {
			timing = grown
			a.observer.Lead(boottime.Now(), timing) // I5: leases of either length may have been acknowledged until now
		}
		silent.look(ctx, state)
		view := a.observer.View(state, boottime.Now(), a.voters())
		view.CorosyncQuorate = a.manager.corosyncQuorate()
		a.decide(ctx, state, view)
		if to := core.PreferLeader(state, view); to != wish {
			wish, since = to, time.Now()
		} else if to != "" && time.Since(since) > preferAfter {
			a.moveLead(ctx, to)
			since = time.Now()
		}
		select {
		case <-ctx.Done():
		case <-a.decideNow:
		case <-time.After(observe.LookAgain(state, view)):
		}
	}
}

// decide proposes what core decided, in its order. What is refused, lost or unknown is seen by the next look.
func (a *App) decide(ctx context.Context, state core.State, view core.View) {
	if state.Cluster == "" {
		return
	}
	for _, c := range core.Decide(state, view, a.replica.Now()) {
		bounded, cancel := context.WithTimeout(ctx, decideLimit)
		outcome, err := a.replica.Propose(bounded, c)
		cancel()
		if outcome != core.Done {
			a.log.Info("decision not committed", "command", c.Kind(), "outcome", outcome.String(), "err", err)
			return
		}
		a.log.Debug("decided", "command", c.Kind())
		if give, ok := c.(core.Give); ok {
			a.guard.ackAgain(give.Node)
		}
	}
}

func (a *App) voters() []core.NodeName {
	var names []core.NodeName
	for _, m := range a.replica.Members() {
		if m.Voter {
			names = append(names, m.Name)
		}
	}
	return names
}

// moveLead hands leadership to a node that holds nothing.
func (a *App) moveLead(ctx context.Context, to core.NodeName) {
	// Not under the leadership's own context: that dies with success.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), decideLimit)
	defer cancel()
	a.log.Info("handing leadership over", "to", string(to))
	if err := a.replica.TransferLeadership(ctx, to); err != nil {
		a.log.Info("leadership stays", "err", err)
	}
}
