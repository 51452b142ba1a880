package cases

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/test/lab"
)

func hang(ctx context.Context, n *lab.Node) error { return n.Pause(ctx) }

func cutWithBMC(ctx context.Context, n *lab.Node) error {
	n.BMC().Dead()
	return n.PowerCut(ctx)
}

// lose measures from the bad thing to the first answer.
func lose(bad func(context.Context, *lab.Node) error) func(context.Context, *cluster) (sample, error) {
	return func(ctx context.Context, c *cluster) (sample, error) {
		if err := c.awaitSettled(ctx); err != nil {
			return sample{}, err
		}
		t, err := c.failOver(ctx, 2*time.Minute, bad)
		if err != nil {
			return sample{}, err
		}
		if err := t.From.PowerCut(ctx); err != nil { // a hung node comes back by power
			return sample{}, err
		}
		return sample{Value: t.took().Seconds(), Phases: t.Event.Phases}, nothingLost(t.Verdict)
	}
}

// loseLeadingHolder makes the leader the holder, and cuts it before leadership moves.
func loseLeadingHolder(ctx context.Context, c *cluster) (sample, error) {
	s, err := c.status(ctx, c.anyUp())
	if err != nil {
		return sample{}, err
	}
	if s.Services[0].Holder != s.Leader {
		if _, err := c.keepone(ctx, c.anyUp(), "switchover", service, "--to", s.Leader, "--yes"); err != nil {
			return sample{}, err
		}
	}
	s, err = c.status(ctx, c.anyUp())
	if err != nil {
		return sample{}, err
	}
	if s.Services[0].Holder != s.Leader {
		return sample{}, fmt.Errorf("leadership moved to %s before the cut", s.Leader)
	}
	t, err := c.failOver(ctx, time.Minute, powerCut)
	if err != nil {
		return sample{}, err
	}
	return sample{Value: t.took().Seconds(), Phases: t.Event.Phases}, nothingLost(t.Verdict)
}

// busyHolder is the holder, with a client that writes; the caller stops it.
func (c *cluster) busyHolder(ctx context.Context) (*lab.Node, *lab.Client, error) {
	holder, _, err := c.holder(ctx, c.anyUp())
	if err != nil {
		return nil, nil, err
	}
	client := c.Client(ctx, c.address)
	if _, err := client.AwaitAck(ctx, time.Now(), 5*time.Second); err != nil {
		client.Stop()
		return nil, nil, err
	}
	return holder, client, nil
}

// measureSwitchover is the gap that a client sees, less the container's own stop and start.
func measureSwitchover(ctx context.Context, c *cluster) (sample, error) {
	holder, client, err := c.busyHolder(ctx)
	if err != nil {
		return sample{}, err
	}
	defer client.Stop()
	began := time.Now()
	if _, err := c.keepone(ctx, holder, "switchover", service, "--to", c.anyUp(holder).Name, "--yes"); err != nil {
		return sample{}, err
	}
	if _, err := client.AwaitAck(ctx, time.Now(), 10*time.Second); err != nil {
		return sample{}, err
	}
	client.Stop()
	e, err := c.lastEvent(ctx, c.anyUp(), "switchover")
	if err != nil {
		return sample{}, err
	}
	v, err := client.Verify(ctx)
	if err != nil {
		return sample{}, err
	}
	gap := client.GapAround(began).Length().Seconds()
	return sample{Value: max(0, gap-e.Phases["start"]-e.Phases["probe"]), Phases: e.Phases}, nothingLost(v)
}

// measureDaemonKill is how much longer than usual a client waits when the holder's daemon is killed: nothing.
func measureDaemonKill(ctx context.Context, c *cluster) (sample, error) {
	holder, client, err := c.busyHolder(ctx)
	if err != nil {
		return sample{}, err
	}
	defer client.Stop()
	began := time.Now()
	if err := holder.Kill(ctx, lab.Daemon); err != nil {
		return sample{}, err
	}
	select {
	case <-ctx.Done():
	case <-time.After(5 * time.Second):
	}
	client.Stop()
	const usual = 0.3 // a client's own pace and time-out: less is no gap
	if gap := client.GapAround(began).Length().Seconds(); gap > usual {
		return sample{Value: gap}, nil
	}
	return sample{}, nil
}

// idle measures one of the daemons on the node that leads, with nothing going on.
func idle(program string, measure func(ctx context.Context, n *lab.Node, pid string) (float64, error)) func(context.Context, *cluster) (sample, error) {
	return func(ctx context.Context, c *cluster) (sample, error) {
		if err := c.awaitSettled(ctx); err != nil {
			return sample{}, err
		}
		worst := 0.0
		for _, n := range c.Nodes() {
			pid, err := n.Exec(ctx, "sh", "-c", "for p in /proc/[0-9]*; do [ \"$(cat $p/comm)\" = "+program[:min(15, len(program))]+" ] && tr '\\0' ' ' <$p/cmdline | grep -vq helper && basename $p; done; true")
			if err != nil {
				return sample{}, err
			}
			first, _, _ := strings.Cut(strings.TrimSpace(pid), "\n")
			if first == "" {
				return sample{}, fmt.Errorf("%s does not run on %s", program, n.Name)
			}
			v, err := measure(ctx, n, first)
			if err != nil {
				return sample{}, err
			}
			worst = max(worst, v)
		}
		return sample{Value: worst}, nil
	}
}

// cpuShare is a process's share of a core over ten seconds, in percent.
func cpuShare(ctx context.Context, n *lab.Node, pid string) (float64, error) {
	const seconds, ticks = 10, 100
	read := func() (float64, error) {
		text, err := n.Exec(ctx, "cat", "/proc/"+pid+"/stat")
		if err != nil {
			return 0, err
		}
		fields := strings.Fields(text[strings.LastIndex(text, ")")+1:])
		user, err1 := strconv.ParseFloat(fields[11], 64)
		system, err2 := strconv.ParseFloat(fields[12], 64)
		return user + system, errors.Join(err1, err2)
	}
	before, err := read()
	if err != nil {
		return 0, err
	}
	select {
	case <-ctx.Done():
	case <-time.After(seconds * time.Second):
	}
	after, err := read()
	return (after - before) / ticks / seconds * 100, err
}

// residentMB is a process's resident memory in megabytes.
func residentMB(ctx context.Context, n *lab.Node, pid string) (float64, error) {
	text, err := n.Exec(ctx, "grep", "VmRSS", "/proc/"+pid+"/status")
	if err != nil {
		return 0, err
	}
	kb, err := strconv.ParseFloat(strings.Fields(text)[1], 64)
	return kb / 1024, err
}
