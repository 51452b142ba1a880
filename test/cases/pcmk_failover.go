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
		addManaged("cold-start-"+style, managedKind{style: style}, managedColdStart)
		addManaged("power-cut-"+style, managedKind{style: style}, managedPowerCut)
	}
}

// managedBound is for a failover under Pacemaker with the recommended totem settings, on a busy machine.
const managedBound = 40 * time.Second

// managedColdStart: the cluster has just formed by itself; it is cut, and forms once more.
func managedColdStart(ctx context.Context, m *managed) error {
	_, epoch, err := m.holder(ctx, m.anyUp())
	if err != nil {
		return err
	}
	client := m.Client(ctx, m.address)
	defer client.Stop()
	if _, err := client.AwaitAck(ctx, time.Now(), 5*time.Second); err != nil {
		return err
	}
	for _, n := range m.Nodes() {
		if err := n.PowerCut(ctx); err != nil {
			return err
		}
	}
	client.Stop()
	for _, n := range m.Nodes() {
		if err := errors.Join(n.PowerOn(ctx), n.StartPacemaker(ctx)); err != nil {
			return err
		}
	}
	if err := m.awaitManaged(ctx, time.Minute); err != nil {
		return err
	}
	_, now, err := m.holder(ctx, m.anyUp())
	if err != nil || now <= epoch {
		return errors.Join(err, fmt.Errorf("epoch %d after %d", now, epoch))
	}
	v, err := client.Verify(ctx)
	return errors.Join(err, nothingLost(v))
}

// managedPowerCut: the holder loses its power.
func managedPowerCut(ctx context.Context, m *managed) error {
	t, err := m.failOver(ctx, managedBound, func(ctx context.Context, n *lab.Node) error { return n.PowerCut(ctx) })
	if err != nil {
		return err
	}
	m.Logf("answers after %s", t.took())
	return errors.Join(nothingLost(t.Verdict), m.agree(ctx, managedBound))
}
