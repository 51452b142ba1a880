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
		addManaged("cold-start-"+style, managedKind{style: style}, managedColdStart)
		addManaged("power-cut-"+style, managedKind{style: style}, managedPowerCut)
	}
	addManaged("dc-lost", managedKind{style: styleOne}, dcLost)
	addManaged("leader-lost", managedKind{style: stylePromotable}, leaderLost)
	addManaged("all-lost-one", managedKind{style: styleOne}, allLost)
	addManaged("all-lost-promotable", managedKind{style: stylePromotable}, allLost)
	addManaged("five-nodes", managedKind{style: stylePromotable, nodes: 5}, managedPowerCut)
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

// managedPowerCut: the holder loses its power, and is neither leader nor DC. The service goes to one node and stays.
func managedPowerCut(ctx context.Context, m *managed) error {
	if err := m.awaitSettled(ctx); err != nil {
		return err
	}
	before, after, err := m.loses(ctx, powerCut)
	if err == nil && after.epoch != before.epoch+1 {
		err = fmt.Errorf("epoch %d became %d: it went to more than one node", before.epoch, after.epoch)
	}
	if err != nil {
		return err
	}
	e, err := m.lastEvent(ctx, after.node, "failover")
	for _, phase := range []string{"detect", "storage", "start", "probe"} {
		if err == nil && e.Phases[phase] <= 0 {
			err = fmt.Errorf("the history says nothing of the time of %s: %v", phase, e.Phases)
		}
	}
	return err
}

// dcLost: the holder is Pacemaker's DC too.
func dcLost(ctx context.Context, m *managed) error {
	dc, err := m.dc(ctx)
	if err == nil {
		err = m.bring(ctx, dc)
	}
	if err != nil {
		return err
	}
	_, _, err = m.loses(ctx, powerCut)
	return err
}

// leaderLost: the holder leads keepone too.
func leaderLost(ctx context.Context, m *managed) error {
	_, _, err := m.loses(ctx, m.cutLeading)
	return err
}

// allLost: one node is holder, leader and DC.
func allLost(ctx context.Context, m *managed) error {
	dc, err := m.dc(ctx)
	if err == nil {
		err = m.bring(ctx, dc)
	}
	if err != nil {
		return err
	}
	before, _, err := m.loses(ctx, m.cutLeading)
	if err == nil && before.node != dc {
		err = fmt.Errorf("%s was cut, the DC is %s", before.node.Name, dc.Name)
	}
	return err
}

// cutLeading kills the keeponed of whoever leads until the holder does, which serves on all the while, and cuts its power
// at once: leadership leaves a holder again after a moment.
func (m *managed) cutLeading(ctx context.Context, holder *lab.Node) error {
	killed := ""
	return await(ctx, managedBound, "leadership with the holder", func() error {
		s, err := m.status(ctx, holder)
		switch {
		case err != nil:
			return err
		case s.Leader == holder.Name && s.Quorum:
			return holder.PowerCut(ctx)
		case s.Leader == "" || m.awaitOnline(ctx, time.Second) != nil:
			return fmt.Errorf("leader %q", s.Leader)
		case s.Leader == killed: // not yet noticed, or elected again
			killed = ""
			return errors.Join(pass(ctx, time.Second), fmt.Errorf("%s leads", s.Leader))
		}
		killed = s.Leader
		return errors.Join(m.named(killed).Kill(ctx, lab.Daemon), fmt.Errorf("%s led", killed))
	})
}

// dc is Pacemaker's.
func (m *managed) dc(ctx context.Context) (*lab.Node, error) {
	v, err := m.anyUp().CRM(ctx)
	if err != nil {
		return nil, err
	}
	if n := m.named(v.DC); n != nil {
		return n, nil
	}
	return nil, fmt.Errorf("no node is the DC %q", v.DC)
}

func (m *managed) named(name string) *lab.Node {
	for _, n := range m.Nodes() {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// bring has Pacemaker move the service to a node, as an operator does, and takes the constraint away again.
func (m *managed) bring(ctx context.Context, to *lab.Node) error {
	holder, _, err := m.holder(ctx, m.anyUp())
	if err != nil || holder == to {
		return err
	}
	if err := m.crmMove(ctx, to); err != nil {
		return err
	}
	if _, err := m.awaitHolder(ctx, managedBound, holder); err != nil {
		return err
	}
	return m.crmClear(ctx, to)
}

// movable is what an operator moves: all of the service, or its promoted volume, which the rest follows.
func (m *managed) movable() []string {
	if m.style == styleOne {
		return []string{"--resource", m.resource()}
	}
	return []string{"--resource", "rbd-" + service + "-clone", "--promoted"}
}

func (m *managed) crmMove(ctx context.Context, to *lab.Node) error {
	return m.crm(ctx, to, append([]string{"crm_resource", "--move", "--node", to.Name}, m.movable()...)...)
}

func (m *managed) crmClear(ctx context.Context, ask *lab.Node) error {
	return m.crm(ctx, ask, append([]string{"crm_resource", "--clear"}, m.movable()...)...)
}

// crm runs one of Pacemaker's own tools.
func (m *managed) crm(ctx context.Context, n *lab.Node, argv ...string) error {
	ctx, cancel := context.WithTimeout(ctx, managedBound) // pcs waits for what it has asked for
	defer cancel()
	out, err := n.Exec(ctx, argv...)
	m.Logf("%s: %s → %s", n.Name, strings.Join(argv, " "), strings.TrimSpace(out))
	return err
}
