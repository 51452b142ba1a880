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
		addManaged("daemon-stopped-"+style, managedKind{style: style, cib: quickController}, daemonStopped)
		addManaged("controller-stopped-"+style, managedKind{style: style}, controllerStopped)
	}
	addManaged("daemon-killed", managedKind{style: stylePromotable}, daemonKilled)
	addManaged("stale-attribute", managedKind{style: styleOne}, staleAttribute)
	addManaged("rejoined-without-daemon", managedKind{style: stylePromotable, nodes: 5, cib: quickController}, rejoinedWithoutDaemon)
	addManaged("daemon-stopped-elsewhere", managedKind{style: styleOne, nodes: 5, cib: quickController}, daemonStoppedElsewhere)
}

// quickController has the controller looked at every second, and gives a missing leader less patience, so that a case
// need not wait long for what Pacemaker makes of a dead daemon.
func quickController(cib string) string {
	const monitor = `id="keepone-controller-monitor" name="monitor" interval="`
	cib = strings.Replace(cib, monitor+"10s", monitor+"1s", 1)
	return strings.Replace(cib, `type="controller">`, `type="controller">
          <instance_attributes id="keepone-controller-params">`+lab.NVPair("keepone-controller-grace", "grace", "2")+`</instance_attributes>`, 1)
}

// daemonKilled: keeponed of the holder dies and is started again: nothing of it shows.
func daemonKilled(ctx context.Context, m *managed) error {
	return m.rests(ctx, 4*time.Second, func(ctx context.Context, n *lab.Node) error { return n.Kill(ctx, lab.Daemon) })
}

// daemonStopped: keeponed of the holder is dead for good. The service lives on, through whatever Pacemaker makes of its
// failed controller; then Pacemaker stops it without keeponed (I7), and it comes up elsewhere.
func daemonStopped(ctx context.Context, m *managed) error {
	if err := m.rests(ctx, 0, func(ctx context.Context, n *lab.Node) error {
		if err := n.Stop(ctx, lab.Daemon); err != nil {
			return err
		}
		return errors.Join(m.controllerFailed(ctx, n), pass(ctx, 3*time.Second))
	}); err != nil {
		return err
	}
	before, _, err := m.moves(ctx, func(ctx context.Context, n *lab.Node) error {
		return m.crm(ctx, m.anyUp(n), "crm_standby", "--node", n.Name, "--update", "on")
	})
	if err != nil {
		return err
	}
	if !before.node.IsUp() {
		return fmt.Errorf("%s was shot, though it stopped what was here", before.node.Name)
	}
	return m.nothingShot()
}

// controllerStopped: an operator stops the controller, everywhere and then on the holder alone, while keeponed lives: the
// service goes on. What is held no more is given up, and nobody has it until the controller is back.
func controllerStopped(ctx context.Context, m *managed) error {
	const clone = "keepone-controller-clone"
	if err := m.rests(ctx, 4*time.Second, func(ctx context.Context, _ *lab.Node) error {
		return errors.Join(m.pcs(ctx, "resource", "disable", clone, "--wait=30"), m.shows(ctx, clone+": it is disabled"))
	}); err != nil {
		return fmt.Errorf("disabled: %w", err)
	}
	if err := m.rests(ctx, 4*time.Second, func(ctx context.Context, n *lab.Node) error {
		return errors.Join(m.pcs(ctx, "resource", "enable", clone, "--wait=30"), m.pcs(ctx, "resource", "ban", clone, n.Name, "--wait=30"))
	}); err != nil {
		return fmt.Errorf("banned from the holder: %w", err)
	}
	holder, _, err := m.holder(ctx, m.anyUp())
	if err != nil {
		return err
	}
	// Away from there it goes, and what it leaves behind there is nobody's word that it could come back.
	_, _, err = m.moves(ctx, func(ctx context.Context, _ *lab.Node) error { return m.pcs(ctx, m.movedByPCS("move")...) })
	if err != nil {
		return err
	}
	return errors.Join(
		await(ctx, 10*time.Second, "no word of "+holder.Name, func() error { return m.ineligible(ctx, holder) }),
		m.pcs(ctx, "resource", "clear", clone), m.nothingShot(),
	)
}

// controllerFailed waits until Pacemaker has noticed that keeponed is dead.
func (m *managed) controllerFailed(ctx context.Context, n *lab.Node) error {
	return await(ctx, 20*time.Second, "a failure of the controller on "+n.Name, func() error {
		out, err := m.anyUp(n).Exec(ctx, "crm_failcount", "--query", "--resource", "keepone-controller", "--node", n.Name)
		if err == nil && strings.Contains(out, "value=0") {
			err = fmt.Errorf("none: %s", strings.TrimSpace(out))
		}
		return err
	})
}

// daemonStoppedElsewhere: a node without keeponed, whose controller Pacemaker tries to start, does not keep the others
// from a failover.
func daemonStoppedElsewhere(ctx context.Context, m *managed) error {
	holder, _, err := m.holder(ctx, m.anyUp())
	if err != nil {
		return err
	}
	dead := m.last(holder)
	if err := errors.Join(dead.Stop(ctx, lab.Daemon), m.controllerFailed(ctx, dead)); err != nil {
		return err
	}
	_, _, err = m.loses(ctx, powerCut)
	return err
}

// rejoinedWithoutDaemon: a node takes part in Pacemaker again, without keeponed: what Pacemaker starts there does not keep
// the others from a failover.
func rejoinedWithoutDaemon(ctx context.Context, m *managed) error {
	holder, _, err := m.holder(ctx, m.anyUp())
	if err != nil {
		return err
	}
	dead := m.last(holder)
	if err := errors.Join(
		dead.Stop(ctx, lab.Daemon), dead.Stop(ctx, lab.Pacemakerd), dead.Stop(ctx, lab.Corosync), dead.StartPacemaker(ctx),
		m.AwaitPacemaker(ctx, formLimit), pass(ctx, 2*time.Second),
	); err != nil {
		return err
	}
	_, _, err = m.loses(ctx, powerCut)
	return err
}

// staleAttribute: a node crashes and comes back with Pacemaker and without keeponed: nobody says there that it could have
// the service, so Pacemaker starts nothing on it, though it has nowhere else to go.
func staleAttribute(ctx context.Context, m *managed) error {
	before, after, err := m.loses(ctx, powerCut)
	if err != nil {
		return err
	}
	back := before.node
	if err := errors.Join(back.PowerOn(ctx), back.Stop(ctx, lab.Daemon), back.StartPacemaker(ctx), m.AwaitPacemaker(ctx, formLimit)); err != nil {
		return err
	}
	if err := m.ineligible(ctx, back); err != nil {
		return err
	}
	for _, n := range m.Nodes() {
		if n == back {
			continue
		}
		if err := m.crm(ctx, after.node, "crm_standby", "--node", n.Name, "--update", "on"); err != nil {
			return err
		}
	}
	if err := await(ctx, managedBound, "the service stopped", func() error {
		if at := m.twins(); len(at) > 0 {
			return fmt.Errorf("it runs on %v", at)
		}
		return nil
	}); err != nil {
		return err
	}
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		if at := m.twins(); len(at) > 0 {
			return fmt.Errorf("it runs on %v", at)
		}
		if err := errors.Join(m.ineligible(ctx, back), pass(ctx, 300*time.Millisecond)); err != nil {
			return err
		}
	}
	// With keeponed it may.
	if err := errors.Join(back.Start(ctx, lab.Daemon), m.awaitManaged(ctx, managedBound)); err != nil {
		return err
	}
	last, err := m.stand(ctx)
	if err == nil && last.node != back {
		err = fmt.Errorf("it is on %s, which is in standby", last.node.Name)
	}
	return err
}

// ineligible is an error if Pacemaker has a word that a node could have the service.
func (m *managed) ineligible(ctx context.Context, n *lab.Node) error {
	out, err := n.Exec(ctx, "attrd_updater", "--query", "--name", "keepone-"+service, "--node", n.Name)
	_, value, known := strings.Cut(strings.TrimSpace(out), `value="`)
	if err == nil && known && value != `"` && value != `0"` {
		return fmt.Errorf("%s is said to be able to have the service: %s", n.Name, strings.TrimSpace(out))
	}
	return nil // it knows none: that is an error of the tool's
}
