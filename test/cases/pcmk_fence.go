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
		addManaged("bmc-dead-"+style, managedKind{style: style, edit: clientScope}, clientScopeEnough)
	}
	addManaged("bmc-dead-with-others", managedKind{style: styleOne, more: dummy, cib: besideService, edit: clientScope}, clientScopeNotEnough)
	addManaged("double-fence", managedKind{style: stylePromotable}, doubleFence)
}

// clientScope has the document say that Pacemaker may be told of a fence that covers keepone's storage client alone.
func clientScope(c *cluster) { c.document += "\n[pacemaker]\nclient_scope = true\n" }

// dummy is a resource that is none of keepone's.
const dummy = `<primitive id="other" class="ocf" provider="pacemaker" type="Dummy">
<operations><op id="other-monitor" name="monitor" interval="10s" timeout="20s"/></operations>
</primitive>
`

// besideService keeps it on the service's node.
func besideService(cib string) string {
	return strings.Replace(cib, "<constraints>",
		`<constraints><rsc_colocation id="other-beside" rsc="other" with-rsc="container-`+service+`" score="INFINITY"/>`, 1)
}

func cutWithDeadBMC(ctx context.Context, n *lab.Node) error {
	n.BMC().Dead()
	return n.PowerCut(ctx)
}

// clientScopeEnough: nothing but keepone's resources were on the node, so cutting its storage client off will do.
func clientScopeEnough(ctx context.Context, m *managed) error {
	before, after, err := m.loses(ctx, cutWithDeadBMC)
	if err != nil {
		return err
	}
	e, err := m.lastEvent(ctx, after.node, "failover")
	if err == nil && (e.Proof != "storage" || e.From != before.node.Name || e.To != after.node.Name) {
		err = fmt.Errorf("the history says %s → %s by %q", e.From, e.To, e.Proof)
	}
	return err
}

// clientScopeNotEnough: Pacemaker must not start elsewhere what may still run there. Everything waits for a person.
func clientScopeNotEnough(ctx context.Context, m *managed) error {
	before, err := m.stand(ctx)
	if err != nil {
		return err
	}
	client, written, err := m.writing(ctx)
	if err != nil {
		return err
	}
	defer client.Stop()
	if err := cutWithDeadBMC(ctx, before.node); err != nil {
		return err
	}
	seat := m.anyUp(before.node)
	if err := errors.Join(m.unclean(ctx, before.node), m.cutOffSoon(ctx, before.client)); err != nil {
		return err
	}
	if err := m.nothingStarts(ctx, 5*time.Second, before.node); err != nil {
		return err
	}
	if _, err := m.keepone(ctx, seat, "fence", "confirm", before.node.Name, "--yes"); err != nil {
		return err
	}
	if err := m.awaitManaged(ctx, managedBound); err != nil {
		return err
	}
	after, err := m.stand(ctx)
	if err := errors.Join(err, movedOn(before, after), m.cutOff(ctx, before.client), written()); err != nil {
		return err
	}
	return m.AwaitCRM(ctx, managedBound, "the other resource beside it", func(v lab.CRMView) error {
		if at := v.Holder("other"); at != after.node.Name {
			return fmt.Errorf("it is on %q", at)
		}
		return nil
	})
}

// unclean waits until Pacemaker has noticed that a node is lost.
func (m *managed) unclean(ctx context.Context, lost *lab.Node) error {
	return m.AwaitCRM(ctx, managedBound, lost.Name+" unclean", func(v lab.CRMView) error {
		for _, n := range v.Nodes {
			if n.Name == lost.Name && n.Unclean {
				return nil
			}
		}
		return fmt.Errorf("nodes: %+v", v.Nodes)
	})
}

// cutOffSoon waits until a client is cut off.
func (m *managed) cutOffSoon(ctx context.Context, client string) error {
	return await(ctx, managedBound, "the old holder's client cut off", func() error { return m.cutOff(ctx, client) })
}

// nothingStarts is an error if the lost node's resources come up elsewhere, or Pacemaker believes that it is fenced.
func (m *managed) nothingStarts(ctx context.Context, watch time.Duration, lost *lab.Node) error {
	for end := time.Now().Add(watch); time.Now().Before(end); {
		v, err := m.anyUp(lost).CRM(ctx)
		if err != nil {
			return err
		}
		for _, id := range []string{m.resource(), "other"} {
			if at := v.Holder(id); at != "" && at != lost.Name {
				return fmt.Errorf("%s started on %s while it may run on %s", id, at, lost.Name)
			}
		}
		for _, n := range v.Nodes {
			if n.Name == lost.Name && !n.Unclean {
				return fmt.Errorf("%s is believed to be fenced: %+v", lost.Name, n)
			}
		}
		if at := m.twins(); len(at) > 0 {
			return fmt.Errorf("the service started on %v", at)
		}
		if err := pass(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// doubleFence: two people on two nodes and Pacemaker want the same dead node fenced at once, and it is shot once.
func doubleFence(ctx context.Context, m *managed) error {
	before, _, err := m.loses(ctx, func(ctx context.Context, holder *lab.Node) error {
		// Frozen and silent, its power stays on: somebody has to switch it off.
		if err := errors.Join(holder.Isolate(ctx, lab.AllLinks, lab.BothWays), holder.Pause(ctx)); err != nil {
			return err
		}
		var asked []*lab.Running
		for _, n := range m.Nodes() {
			if n == holder {
				continue
			}
			r, err := n.Launch(ctx, "fence_keepone", "-o", "off", "-n", holder.Name)
			if err != nil {
				return err
			}
			asked = append(asked, r)
		}
		var errs []error
		for _, r := range asked {
			code, err := r.Wait(managedBound)
			if err == nil && code != 0 {
				err = fmt.Errorf("fence_keepone ended with %d: %s", code, r.Said())
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
	if err != nil {
		return err
	}
	for _, n := range m.Nodes() {
		want := 0
		if n == before.node {
			want = 1
		}
		if shots := n.BMC().OffOrders(); shots != want {
			return fmt.Errorf("%s was ordered off %d times, expected %d", n.Name, shots, want)
		}
	}
	return nil
}
