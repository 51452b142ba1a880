package cases

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strconv"
	"time"

	"github.com/keepone-ha/keepone/test/lab"
)

// managedBenches measure keepone under Pacemaker beside the stock stack.
var managedBenches = []benchCase{
	{
		name: "pcmk-powercut-default", unit: "s", nodes: 3,
		managed: &managedKind{style: stylePromotable, totem: "# as Debian ships"}, runManaged: loseManaged,
		stock: stockLose(powerCut),
	},
	{
		name: "pcmk-powercut", unit: "s", nodes: 3, mark: mark{4, 8}, ratioMark: 1 / 0.75,
		managed: &managedKind{style: stylePromotable}, runManaged: loseManaged,
		stock: stockLose(powerCut), stockTotem: recommended,
		views: []view{
			{name: "pcmk-after-membership", phase: phaseAfter, ratioMark: 2},
			{name: "pcmk-powercut-to-default", stockOf: "pcmk-powercut-default", ratioMark: 3},
		},
	},
	{
		name: "pcmk-powercut-one", unit: "s", nodes: 3, mark: mark{4, 8},
		managed: &managedKind{style: styleOne}, runManaged: loseManaged,
		// The stock stack has one style only, a group: what stands beside the other one stands beside this one.
		views: []view{{name: "pcmk-powercut-one-to-stock", stockOf: "pcmk-powercut", ratioMark: 1 / 0.75}},
	},
	{
		name: "pcmk-monitor", unit: "ms of CPU", nodes: 3, ratioMark: 5, runs: 3,
		managed: &managedKind{style: stylePromotable}, runManaged: measureMonitors, stock: stockMonitor,
		views: []view{
			{name: "pcmk-monitor-forks", unit: "forks", phase: phaseForks},
			{name: "pcmk-monitor-execs", unit: "execs", phase: phaseExecs},
		},
	},
	{name: "fence-off", unit: "s", nodes: 3, ratioMark: 8, run: measureFence, stock: stockFence},
}

// Phases of a failover that corosync's log shows, the same for both stacks.
const (
	phaseMembership = "membership" // from the bad thing to the first survivor's membership without the node
	phaseAfter      = "after"      // from there to the first answer
)

// membership splits an outage where the first survivor's corosync forms a membership without the lost node.
func membership(l *lab.Lab, t takeover) (map[string]float64, error) {
	var first time.Time
	var errs []error
	for _, n := range l.Nodes() {
		if n == t.From {
			continue
		}
		at, err := n.MembershipWithout(t.From, t.Began)
		errs = append(errs, err)
		if err == nil && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	if first.IsZero() {
		return nil, errors.Join(errs...)
	}
	return map[string]float64{
		phaseMembership: first.Sub(t.Began).Seconds(), phaseAfter: t.Answered.Sub(first).Seconds(),
	}, nil
}

// loseManaged cuts the holder's power and measures to the first answer.
func loseManaged(ctx context.Context, m *managed) (sample, error) {
	if err := m.awaitReady(ctx); err != nil {
		return sample{}, err
	}
	t, err := m.failOver(ctx, stockBound, powerCut)
	if err != nil {
		return sample{}, err
	}
	phases, err := membership(m.Lab, t)
	if err != nil {
		return sample{}, err
	}
	maps.Copy(phases, t.Event.Phases)
	return sample{Value: t.took().Seconds(), Phases: phases}, nothingLost(t.Verdict)
}

// recover brings every node and BMC back, for the next run.
func (m *managed) recover(ctx context.Context) error {
	for _, n := range m.Nodes() {
		if err := errors.Join(n.BMC().Heal(ctx), n.Heal(ctx), n.PowerOn(ctx)); err != nil {
			return err
		}
		if n.PID(ctx, lab.Corosync) != 0 {
			continue
		}
		if err := n.StartPacemaker(ctx); err != nil {
			return err
		}
	}
	return m.awaitReady(ctx)
}

// awaitReady waits until every node that does not hold the service could take it, and nothing is under way in
// Pacemaker.
func (m *managed) awaitReady(ctx context.Context) error {
	if err := errors.Join(m.awaitOnline(ctx, formLimit), m.AwaitPacemaker(ctx, formLimit)); err != nil {
		return err
	}
	if err := errors.Join(m.awaitManaged(ctx, formLimit), m.awaitCandidates(ctx, formLimit), m.awaitSettled(ctx)); err != nil {
		return err
	}
	_, err := m.anyUp().Exec(ctx, "crm_resource", "--wait", "--timeout", "30s")
	return err
}

// measureFence has a node that is well switched off by the fence agent, from its call to its word that off is proven.
func measureFence(ctx context.Context, c *cluster) (sample, error) {
	s, err := c.status(ctx, c.anyUp())
	if err != nil {
		return sample{}, err
	}
	holder, _, err := c.holder(ctx, c.anyUp())
	if err != nil {
		return sample{}, err
	}
	// Neither holder nor leader, so that nothing else has to happen meanwhile.
	target := c.anyUp(holder, c.named(s.Leader))
	return timed(ctx, holder, target, filepath.Join(c.BinDir, "fence_keepone"), "-o", "off", "-n", target.Name)
}

// stockFence is the same by fence_ipmilan.
func stockFence(ctx context.Context, s *stock) (sample, error) {
	holder, err := s.holder(ctx)
	if err != nil {
		return sample{}, err
	}
	target := s.Node(holder.Index%len(s.Nodes()) + 1)
	b := target.BMC()
	return timed(ctx, holder, target, "fence_ipmilan", "--action=off", "--ip="+b.Address, "--username="+b.User, "--password="+b.Password,
		"--lanplus", "--cipher="+strconv.Itoa(lab.CipherSuite))
}

// timed is how long a fence agent took on a node, which must have done it.
func timed(ctx context.Context, on, target *lab.Node, argv ...string) (sample, error) {
	began := time.Now()
	out, err := on.Exec(ctx, argv...)
	took := time.Since(began)
	if err == nil && target.IsUp() {
		err = fmt.Errorf("%s is on", target.Name)
	}
	if err != nil {
		return sample{}, fmt.Errorf("%s of %s: %w: %s", argv[0], target.Name, err, out)
	}
	return sample{Value: took.Seconds()}, nil
}
