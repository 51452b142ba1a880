package cases

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

func init() {
	for _, style := range []string{styleOne, stylePromotable} {
		addManaged("operator-"+style, managedKind{style: style}, managedOperator)
	}
}

// managedOperator has keepone's own commands drive Pacemaker: each does what it says, Pacemaker and keepone agree after
// each, and nothing that was acknowledged is lost over all of them.
func managedOperator(ctx context.Context, m *managed) error {
	client := m.Client(ctx, m.address)
	defer client.Stop()
	for _, do := range []func(context.Context, *managed) error{
		managedSwitchover, managedDrain, managedRestart, managedStopStart, managedMaintenance,
	} {
		if _, err := client.AwaitAck(ctx, time.Now(), 10*time.Second); err != nil {
			return err
		}
		if err := do(ctx, m); err != nil {
			return err
		}
		if err := m.awaitManaged(ctx, managedBound); err != nil {
			return err
		}
	}
	if _, err := client.AwaitAck(ctx, time.Now(), 10*time.Second); err != nil {
		return err
	}
	client.Stop()
	v, err := client.Verify(ctx)
	return errors.Join(err, nothingLost(v), m.noConstraintStays(ctx))
}

func managedSwitchover(ctx context.Context, m *managed) error {
	from, epoch, err := m.holder(ctx, m.anyUp())
	if err != nil {
		return err
	}
	to := m.anyUp(from)
	if _, err := m.keepone(ctx, m.Node(1), "switchover", service, "--to", to.Name); err != nil {
		return err
	}
	at, now, err := m.holder(ctx, m.anyUp())
	if err != nil || at != to || now <= epoch {
		return errors.Join(err, fmt.Errorf("on %v at epoch %d after a switchover to %s", at, now, to.Name))
	}
	return nil
}

// managedDrain empties the holder; Pacemaker shows it in standby, and it is a candidate again at the end.
func managedDrain(ctx context.Context, m *managed) error {
	from, _, err := m.holder(ctx, m.anyUp())
	if err != nil {
		return err
	}
	if _, err := m.keepone(ctx, m.Node(1), "drain", from.Name); err != nil {
		return err
	}
	if _, err := m.awaitHolder(ctx, managedBound, from); err != nil {
		return err
	}
	out, err := from.Exec(ctx, "crm_mon", "-1")
	if err != nil || !strings.Contains(out, "standby") {
		return errors.Join(err, fmt.Errorf("crm_mon shows no standby of %s: %s", from.Name, out))
	}
	_, err = m.keepone(ctx, m.Node(1), "undrain", from.Name)
	return err
}

func managedRestart(ctx context.Context, m *managed) error {
	_, err := m.keepone(ctx, m.Node(1), "service", "restart", service, "--yes")
	return err
}

func managedStopStart(ctx context.Context, m *managed) error {
	if _, err := m.keepone(ctx, m.Node(1), "service", "stop", service, "--yes"); err != nil {
		return err
	}
	if at, _, err := m.holder(ctx, m.anyUp()); err == nil {
		return fmt.Errorf("it is stopped, and runs on %s", at.Name)
	}
	_, err := m.keepone(ctx, m.Node(1), "service", "start", service)
	return err
}

// managedMaintenance: with hands off neither daemon mends anything, and at the end both do again.
func managedMaintenance(ctx context.Context, m *managed) error {
	at, epoch, err := m.holder(ctx, m.anyUp())
	if err != nil {
		return err
	}
	if _, err := m.keepone(ctx, m.Node(1), "maintenance", "on", "--for", "10m"); err != nil {
		return err
	}
	out, err := at.Exec(ctx, "crm_mon", "-1")
	if err != nil || !strings.Contains(out, "DISABLED") && !strings.Contains(out, "unmanaged") && !strings.Contains(out, "maintenance") {
		return errors.Join(err, fmt.Errorf("crm_mon shows no maintenance: %s", out))
	}
	if _, err := m.keepone(ctx, m.Node(1), "maintenance", "off"); err != nil {
		return err
	}
	if err := m.agree(ctx, managedBound); err != nil {
		return err
	}
	still, now, err := m.holder(ctx, m.anyUp())
	if err != nil || still != at || now != epoch {
		return errors.Join(err, fmt.Errorf("epoch %d on %s became %d over a maintenance", epoch, at.Name, now))
	}
	return await(ctx, managedBound, "Pacemaker's hands on again", func() error {
		out, err := at.Exec(ctx, "crm_attribute", "--name", "maintenance-mode", "--query", "--quiet")
		if err != nil || strings.TrimSpace(out) != "false" {
			return errors.Join(err, fmt.Errorf("maintenance-mode is %q", out))
		}
		return nil
	})
}

// noConstraintStays: a move that left one would tie the service to a node for ever.
func (m *managed) noConstraintStays(ctx context.Context) error {
	out, err := m.anyUp().Exec(ctx, "cibadmin", "--query", "--scope", "constraints")
	if err == nil && strings.Contains(out, "cli-") {
		err = fmt.Errorf("a constraint of a move stays: %s", out)
	}
	return err
}
