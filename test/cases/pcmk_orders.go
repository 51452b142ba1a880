package cases

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/test/lab"
)

func init() {
	for _, style := range []string{styleOne, stylePromotable} {
		addManaged("orders-"+style, managedKind{style: style}, pacemakersOrders)
		addManaged("hands-off-"+style, managedKind{style: style}, handsOff)
		addManaged("full-stop-"+style, managedKind{style: style}, fullStop)
	}
}

// pacemakersOrders: what an operator tells Pacemaker by pcs is done, the grant follows, and keepone shows it.
func pacemakersOrders(ctx context.Context, m *managed) error {
	for _, order := range []struct {
		name string
		do   func(context.Context) error
	}{{"move", m.moved}, {"ban", m.movedAway}, {"standby", m.stoodBy}, {"disable", m.disabled}} {
		if err := order.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", order.name, err)
		}
	}
	return nil
}

// pcs runs it on a node that is up.
func (m *managed) pcs(ctx context.Context, argv ...string) error {
	return m.crm(ctx, m.anyUp(), append([]string{"pcs"}, argv...)...)
}

// shows waits until a person who asks for the status sees the words.
func (m *managed) shows(ctx context.Context, words ...string) error {
	return await(ctx, 15*time.Second, fmt.Sprintf("%q in the status", words), func() error {
		out, err := m.keepone(ctx, m.anyUp(), "status")
		if err != nil {
			return err
		}
		out = strings.Join(strings.Fields(out), " ") // lines are wrapped
		for _, w := range words {
			if !strings.Contains(out, w) {
				return fmt.Errorf("no %q: %s", w, out)
			}
		}
		return nil
	})
}

// movedByPCS is a move of all of the service, or of its promoted volume, which the rest follows.
func (m *managed) movedByPCS(how string, to ...string) []string {
	argv := append([]string{"resource", how, m.resources()[0]}, to...)
	if m.style == stylePromotable {
		argv = append(argv, "--promoted")
	}
	return argv
}

// moved: moved to a node of the operator's choice. pcs takes its constraint back by itself, and nothing moves again.
func (m *managed) moved(ctx context.Context) error {
	var to *lab.Node
	_, after, err := m.moves(ctx, func(ctx context.Context, holder *lab.Node) error {
		to = m.last(holder)
		return m.pcs(ctx, m.movedByPCS("move", to.Name)...)
	})
	if err == nil && after.node != to {
		err = fmt.Errorf("it went to %s, not to %s", after.node.Name, to.Name)
	}
	if err != nil {
		return err
	}
	return errors.Join(m.noConstraintStays(ctx), m.rests(ctx, 2*time.Second, func(context.Context, *lab.Node) error { return nil }))
}

// movedAway: moved off its node by a ban that stays until the operator takes it back, which moves nothing.
func (m *managed) movedAway(ctx context.Context) error {
	before, _, err := m.moves(ctx, func(ctx context.Context, _ *lab.Node) error {
		return m.pcs(ctx, m.movedByPCS("move-with-constraint")...)
	})
	if err != nil {
		return err
	}
	if err := m.shows(ctx, m.resources()[0]+": it is banned from "+before.node.Name, "pcs resource clear "+m.resources()[0]); err != nil {
		return err
	}
	return m.rests(ctx, 2*time.Second, func(ctx context.Context, _ *lab.Node) error {
		return errors.Join(m.pcs(ctx, m.movedByPCS("clear")...), m.noConstraintStays(ctx), m.shows(ctx, "Nothing is wrong."))
	})
}

// stoodBy: a node in standby gives the service up, and takes nothing back when it ends.
func (m *managed) stoodBy(ctx context.Context) error {
	before, _, err := m.moves(ctx, func(ctx context.Context, holder *lab.Node) error {
		return m.pcs(ctx, "node", "standby", holder.Name)
	})
	if err := errors.Join(err, m.shows(ctx, before.node.Name+" standby")); err != nil {
		return err
	}
	return m.rests(ctx, 3*time.Second, func(ctx context.Context, _ *lab.Node) error {
		return m.pcs(ctx, "node", "unstandby", before.node.Name)
	})
}

// disabled: what is disabled is stopped, says so, and comes back when it is enabled, with nothing lost.
func (m *managed) disabled(ctx context.Context) error {
	before, err := m.stand(ctx)
	if err != nil {
		return err
	}
	client, written, err := m.writing(ctx)
	if err != nil {
		return err
	}
	defer client.Stop()
	top := m.resources()[len(m.resources())-1]
	if err := errors.Join(m.pcs(ctx, "resource", "disable", top, "--wait=30"), m.shows(ctx, top+": it is disabled")); err != nil {
		return err
	}
	if at := m.inits(); len(at) > 0 {
		return fmt.Errorf("it is disabled, and a container runs on %v", at)
	}
	if err := errors.Join(m.pcs(ctx, "resource", "enable", top, "--wait=30"), m.awaitManaged(ctx, managedBound), written()); err != nil {
		return err
	}
	after, err := m.stand(ctx)
	if err == nil && after.init == before.init && after.node == before.node {
		err = fmt.Errorf("it was never stopped: %s", after)
	}
	return errors.Join(err, m.nothingShot())
}

// handsOff: what Pacemaker may not manage it neither stops nor restarts, and neither does keepone: in maintenance-mode
// every daemon of both is restarted in turn below a container that does not notice.
func handsOff(ctx context.Context, m *managed) error {
	if err := m.unmanaged(ctx); err != nil {
		return fmt.Errorf("unmanaged: %w", err)
	}
	err := m.rests(ctx, 2*time.Second, func(ctx context.Context, _ *lab.Node) error {
		if err := errors.Join(m.pcs(ctx, "property", "set", "maintenance-mode=true"), m.shows(ctx, "it is in maintenance-mode")); err != nil {
			return err
		}
		for _, n := range m.Nodes() {
			if err := m.restartAll(ctx, n); err != nil {
				return fmt.Errorf("restart daemons of %s: %w", n.Name, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("maintenance: %w", err)
	}
	return m.rests(ctx, 4*time.Second, func(ctx context.Context, _ *lab.Node) error {
		err := m.pcs(ctx, "property", "unset", "maintenance-mode")
		return errors.Join(err, m.agree(ctx, managedBound))
	})
}

// restartAll ends and starts Pacemaker with its corosync, and then keeponed, and waits for each.
func (m *managed) restartAll(ctx context.Context, n *lab.Node) error {
	for _, step := range []func() error{
		func() error { return n.Stop(ctx, lab.Pacemakerd) },
		func() error { return n.Stop(ctx, lab.Corosync) },
		func() error { return n.StartPacemaker(ctx) },
		func() error { return m.AwaitPacemaker(ctx, formLimit) },
		func() error { return n.Stop(ctx, lab.Daemon) },
		func() error { return n.Start(ctx, lab.Daemon) },
		func() error { return m.awaitOnline(ctx, formLimit) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// unmanaged: a standby of the holder moves nothing while the service is not managed, and does as soon as it is.
func (m *managed) unmanaged(ctx context.Context) error {
	manage := func(how string) error { return m.pcs(ctx, append([]string{"resource", how}, m.resources()...)...) }
	var holder *lab.Node
	err := m.rests(ctx, 3*time.Second, func(ctx context.Context, n *lab.Node) error {
		holder = n
		return errors.Join(manage("unmanage"), m.pcs(ctx, "node", "standby", n.Name), m.shows(ctx, m.resource()+": Pacemaker does not manage it"))
	})
	if err != nil {
		return err
	}
	_, _, err = m.moves(ctx, func(context.Context, *lab.Node) error { return manage("manage") })
	return errors.Join(err, m.pcs(ctx, "node", "unstandby", holder.Name))
}

// resources are the top ones that the service is made of.
func (m *managed) resources() []string {
	if m.style == styleOne {
		return []string{m.resource()}
	}
	return []string{"rbd-" + service + "-clone", "group-" + service}
}

// fullStop: the whole of Pacemaker is stopped in good order, and started. The service is stopped for that long, its
// volume vacated, nothing is fenced.
func fullStop(ctx context.Context, m *managed) error {
	before, err := m.stand(ctx)
	if err != nil {
		return err
	}
	client, written, err := m.writing(ctx)
	if err != nil {
		return err
	}
	defer client.Stop()
	if err := m.StopPacemaker(ctx); err != nil {
		return err
	}
	if at := m.twins(); len(at) > 0 {
		return fmt.Errorf("the service runs on %v, though Pacemaker has stopped", at)
	}
	if at, err := m.locker(ctx); err != nil || at != "" {
		return errors.Join(fmt.Errorf("%q has the image's lock, though Pacemaker has stopped", at), err)
	}
	for _, n := range m.Nodes() {
		if err := n.StartPacemaker(ctx); err != nil {
			return err
		}
	}
	if err := m.awaitManaged(ctx, time.Minute); err != nil {
		return err
	}
	after, err := m.stand(ctx)
	if err == nil && after.epoch <= before.epoch {
		err = fmt.Errorf("epoch %d after %d", after.epoch, before.epoch)
	}
	return errors.Join(err, written(), m.nothingShot())
}

// nothingShot is an error if any node was ordered off.
func (m *managed) nothingShot() error {
	for _, n := range m.Nodes() {
		if shots := n.BMC().OffOrders(); shots > 0 {
			return fmt.Errorf("%s was ordered off", n.Name)
		}
	}
	return nil
}
