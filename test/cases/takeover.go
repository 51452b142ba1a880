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
	add("power-cut", kind{}, func(ctx context.Context, c *cluster) error {
		return c.expectTakeover(ctx, "bmc-off", powerCut)
	})
	add("bmc-dead", kind{}, func(ctx context.Context, c *cluster) error {
		return c.expectTakeover(ctx, "storage", func(ctx context.Context, n *lab.Node) error {
			n.BMC().Dead()
			return n.PowerCut(ctx)
		})
	})
	add("isolated", kind{}, func(ctx context.Context, c *cluster) error {
		return c.expectTakeover(ctx, "storage", func(ctx context.Context, n *lab.Node) error {
			return errors.Join(n.Isolate(ctx, 0, lab.BothWays), n.Isolate(ctx, 1, lab.BothWays))
		})
	})
	add("five-nodes", kind{nodes: 5}, func(ctx context.Context, c *cluster) error {
		return c.expectTakeover(ctx, "bmc-off", powerCut)
	})
	add("ceph-daemon-lost", kind{spread: true}, func(ctx context.Context, c *cluster) error {
		return c.expectTakeover(ctx, "bmc-off", powerCut)
	})
	add("leader-and-holder-lost", kind{nodes: 5}, leaderAndHolderLost)
	add("leader-is-holder", kind{}, func(ctx context.Context, c *cluster) error {
		if _, err := loseLeadingHolder(ctx, c); err != nil {
			return err
		}
		return nil
	})
	add("i6/stopped-holder", kind{}, stoppedHolder)
	add("reboot", kind{}, reboot)
}

const takeoverBound = 30 * time.Second

func powerCut(ctx context.Context, n *lab.Node) error { return n.PowerCut(ctx) }

// expectTakeover loses the holder and expects the front-end elsewhere, by the proof named, nothing lost, and the
// whole of it explained in the history.
func (c *cluster) expectTakeover(ctx context.Context, proof string, bad func(context.Context, *lab.Node) error) error {
	t, err := c.failOver(ctx, takeoverBound, bad)
	if err != nil {
		return err
	}
	c.Logf("%s → %s in %.2f s, %s, event %+v", t.From.Name, t.To.Name, t.took().Seconds(), t.Verdict, t.Event)
	return errors.Join(nothingLost(t.Verdict), explained(t, proof))
}

// explained is an error unless the failover's event names both nodes, the proof and where the time went.
func explained(t takeover, proof string) error {
	e := t.Event
	if e.From != t.From.Name || e.To != t.To.Name || e.Proof != proof {
		return fmt.Errorf("event says %s → %s by %q, expected %s → %s by %q", e.From, e.To, e.Proof, t.From.Name, t.To.Name, proof)
	}
	sum := e.Phases["total"]
	if took := t.took().Seconds(); sum < took/2 || sum > took+1.5 {
		return fmt.Errorf("the event's phases add up to %.2f s, the front-end was away for %.2f s: %v", sum, took, e.Phases)
	}
	return nil
}

// leaderAndHolderLost cuts both at once: three of five voters are left.
func leaderAndHolderLost(ctx context.Context, c *cluster) error {
	if err := c.awaitSettled(ctx); err != nil {
		return err
	}
	return c.expectTakeover(ctx, "bmc-off", func(ctx context.Context, holder *lab.Node) error {
		s, err := c.status(ctx, holder)
		if err != nil {
			return err
		}
		for _, n := range c.Nodes() {
			if n.Name == s.Leader {
				return errors.Join(n.PowerCut(ctx), holder.PowerCut(ctx))
			}
		}
		return fmt.Errorf("no node is the leader %q", s.Leader)
	})
}

// stoppedHolder stops every process of the holder, lets another take over, and lets the old one go on: whatever it
// had in flight must fail, and no byte of it land (I6).
func stoppedHolder(ctx context.Context, c *cluster) error {
	t, err := c.failOver(ctx, takeoverBound, func(ctx context.Context, n *lab.Node) error { return n.Pause(ctx) })
	if err != nil {
		return err
	}
	if err := errors.Join(nothingLost(t.Verdict), explained(t, "storage")); err != nil {
		return err
	}
	before, err := lab.ReadRecords(ctx, c.address)
	if err != nil {
		return err
	}
	if err := t.From.Continue(ctx); err != nil {
		return err
	}
	// What wakes must contain itself, and the service must stay where it is.
	if err := await(ctx, 20*time.Second, "old holder cleaned up", func() error {
		out, err := t.From.Exec(ctx, "sh", "-c", "cat /sys/fs/cgroup/keepone/one/run/cgroup.events; grep -c /var/lib/keepone/volumes/one /proc/mounts || true")
		if err != nil {
			return err
		}
		if !strings.Contains(out, "populated 0") {
			return fmt.Errorf("something of the service still runs on %s: %s", t.From.Name, strings.TrimSpace(out))
		}
		return nil
	}); err != nil {
		return err
	}
	return c.sameRecords(ctx, before, t.To)
}

// sameRecords is an error if a record of before is gone or the service moved.
func (c *cluster) sameRecords(ctx context.Context, before []uint64, at *lab.Node) error {
	after, err := lab.ReadRecords(ctx, c.address)
	if err != nil {
		return err
	}
	have := map[uint64]bool{}
	for _, r := range after {
		have[r] = true
	}
	for _, r := range before {
		if !have[r] {
			return fmt.Errorf("record %d is gone after the old holder went on", r)
		}
	}
	if len(after) > len(before) {
		return fmt.Errorf("%d records came by themselves after the old holder went on", len(after)-len(before))
	}
	now, _, err := c.holder(ctx, at) // what has just woken does not know yet
	if err != nil {
		return err
	}
	if now != at {
		return fmt.Errorf("the service went on to %s", now.Name)
	}
	return nil
}

// reboot resets the holder faster than it counts as down: its return is the proof.
func reboot(ctx context.Context, c *cluster) error {
	holder, epoch, err := c.holder(ctx, c.anyUp())
	if err != nil {
		return err
	}
	holder.BMC().Dead() // so that off can't be read meanwhile
	if err := holder.Reset(ctx); err != nil {
		return err
	}
	return await(ctx, takeoverBound, "service running again at a higher epoch", func() error {
		_, now, err := c.holder(ctx, c.anyUp(holder))
		if err == nil && now <= epoch {
			err = fmt.Errorf("still at epoch %d", now)
		}
		return err
	})
}
