package cases

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keepone-ha/keepone/test/lab"
)

func init() {
	addManaged("split-corosync-holder", managedKind{style: styleOne}, corosyncWithoutHolder)
	addManaged("split-corosync-other", managedKind{style: stylePromotable}, corosyncWithoutOther)
	for _, style := range []string{styleOne, stylePromotable} {
		addManaged("split-raft-holder-"+style, managedKind{style: style, cib: quickController}, raftWithoutHolder)
	}
	addManaged("split-both", managedKind{style: styleOne}, differentMajorities)
	addManaged("split-link", managedKind{style: stylePromotable}, oneLink)
}

// corosyncWithoutHolder: corosync alone loses the holder. Pacemaker's majority has keepone fence it, which hears that
// node well; what the holder's own Pacemaker stops meanwhile it may stop.
func corosyncWithoutHolder(ctx context.Context, m *managed) error {
	before, _, err := m.moves(ctx, func(ctx context.Context, n *lab.Node) error { return n.Silence(ctx, lab.CorosyncTalk) })
	if err != nil {
		return err
	}
	if shots := before.node.BMC().OffOrders(); shots != 1 {
		return fmt.Errorf("%s was ordered off %d times, expected 1", before.node.Name, shots)
	}
	return nil
}

// corosyncWithoutOther: corosync alone loses a node that holds nothing. That one is fenced, and the service rests.
func corosyncWithoutOther(ctx context.Context, m *managed) error {
	var lost *lab.Node
	if err := m.rests(ctx, 2*time.Second, func(ctx context.Context, holder *lab.Node) error {
		lost = m.last(holder)
		if err := lost.Silence(ctx, lab.CorosyncTalk); err != nil {
			return err
		}
		return await(ctx, managedBound, lost.Name+" fenced", func() error {
			if lost.IsUp() {
				return errors.New("it is on")
			}
			return nil
		})
	}); err != nil {
		return err
	}
	return errors.Join(lost.Heal(ctx), lost.PowerOn(ctx), lost.StartPacemaker(ctx), m.AwaitPacemaker(ctx, formLimit), m.awaitOnline(ctx, formLimit))
}

// raftWithoutHolder: the holder's keeponed loses its peers, its guard does not: the lease goes on, and so does the
// service, through whatever Pacemaker makes of a controller without a leader.
func raftWithoutHolder(ctx context.Context, m *managed) error {
	return m.rests(ctx, 3*time.Second, func(ctx context.Context, n *lab.Node) error {
		if err := n.Silence(ctx, lab.RaftTalk); err != nil {
			return err
		}
		return errors.Join(m.controllerFailed(ctx, n), pass(ctx, 6*time.Second), n.Heal(ctx), m.awaitOnline(ctx, formLimit))
	})
}

// differentMajorities: Raft goes on without the holder, and corosync without one of the others. Pacemaker's majority
// wants that other one shot, without which Raft would have none and the holder's lease would end: so nobody is, and the
// service rests.
func differentMajorities(ctx context.Context, m *managed) error {
	return m.rests(ctx, 2*time.Second, func(ctx context.Context, holder *lab.Node) error {
		other := m.last(holder)
		return errors.Join(
			holder.Silence(ctx, lab.RaftTalk), other.Silence(ctx, lab.CorosyncTalk),
			m.unclean(ctx, other), pass(ctx, 6*time.Second), m.nothingShot(),
			holder.Heal(ctx), other.Heal(ctx), m.awaitOnline(ctx, formLimit),
		)
	})
}

// oneLink: one link of two is cut, of the holder and of another node: nobody notices.
func oneLink(ctx context.Context, m *managed) error {
	if err := m.rests(ctx, 5*time.Second, func(ctx context.Context, holder *lab.Node) error {
		return errors.Join(holder.Isolate(ctx, 1, lab.BothWays), m.last(holder).Isolate(ctx, 1, lab.BothWays))
	}); err != nil {
		return err
	}
	var errs []error
	for _, n := range m.Nodes() {
		errs = append(errs, n.Heal(ctx))
	}
	return errors.Join(append(errs, m.AwaitPacemaker(ctx, 10*time.Second), m.nothingShot())...)
}

// last is the last node that is up, but for one: the first ones are asked about the others.
func (c *cluster) last(not *lab.Node) *lab.Node {
	var last *lab.Node
	for _, n := range c.Nodes() {
		if n != not && n.IsUp() {
			last = n
		}
	}
	return last
}
