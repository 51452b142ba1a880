package cases

import (
	"context"
	"errors"
	"fmt"
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

// pacemakersOrders: what an operator tells Pacemaker is done, and the grant follows.
func pacemakersOrders(ctx context.Context, m *managed) error {
	if err := m.moved(ctx); err != nil {
		return fmt.Errorf("move: %w", err)
	}
	if err := m.stoodBy(ctx); err != nil {
		return fmt.Errorf("standby: %w", err)
	}
	return nil
}

// moved: moved to a node of the operator's choice; taking the constraint away moves nothing.
func (m *managed) moved(ctx context.Context) error {
	var to *lab.Node
	_, after, err := m.moves(ctx, func(ctx context.Context, holder *lab.Node) error {
		to = m.anyUp(holder)
		return m.crmMove(ctx, to)
	})
	if err == nil && after.node != to {
		err = fmt.Errorf("it went to %s, not to %s", after.node.Name, to.Name)
	}
	if err != nil {
		return err
	}
	return m.rests(ctx, 2*time.Second, func(ctx context.Context, n *lab.Node) error { return m.crmClear(ctx, n) })
}

// stoodBy: a node in standby gives the service up, and takes nothing back when it ends.
func (m *managed) stoodBy(ctx context.Context) error {
	before, _, err := m.moves(ctx, func(ctx context.Context, holder *lab.Node) error {
		return m.crm(ctx, holder, "crm_standby", "--node", holder.Name, "--update", "on")
	})
	if err != nil {
		return err
	}
	return m.rests(ctx, 3*time.Second, func(ctx context.Context, _ *lab.Node) error {
		return m.crm(ctx, before.node, "crm_standby", "--node", before.node.Name, "--delete")
	})
}

// handsOff: what Pacemaker may not manage it neither stops nor restarts, and neither does keepone: in maintenance-mode
// every daemon of both is restarted in turn below a container that does not notice.
func handsOff(ctx context.Context, m *managed) error {
	if err := m.unmanaged(ctx); err != nil {
		return fmt.Errorf("unmanaged: %w", err)
	}
	err := m.rests(ctx, 2*time.Second, func(ctx context.Context, _ *lab.Node) error {
		if err := m.crm(ctx, m.Node(1), "crm_attribute", "--name", "maintenance-mode", "--update", "true"); err != nil {
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
		err := m.crm(ctx, m.Node(1), "crm_attribute", "--name", "maintenance-mode", "--delete")
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
	manage := func(value string) error {
		for _, r := range m.resources() {
			if err := m.crm(ctx, m.Node(1), "crm_resource", "--resource", r, "--meta", "--set-parameter", "is-managed", "--parameter-value", value); err != nil {
				return err
			}
		}
		return nil
	}
	var holder *lab.Node
	err := m.rests(ctx, 3*time.Second, func(ctx context.Context, n *lab.Node) error {
		holder = n
		return errors.Join(manage("false"), m.crm(ctx, n, "crm_standby", "--node", n.Name, "--update", "on"))
	})
	if err != nil {
		return err
	}
	_, _, err = m.moves(ctx, func(context.Context, *lab.Node) error { return manage("true") })
	return errors.Join(err, m.crm(ctx, holder, "crm_standby", "--node", holder.Name, "--delete"))
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
