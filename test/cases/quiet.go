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
	add("switchover", kind{}, switchover)
	add("drain", kind{}, drain)
	add("maintenance", kind{}, maintenance)
	add("link-blip", kind{}, linkBlip)
	add("daemon-restart-adopts", kind{}, daemonRestart)
	add("restart-in-place", kind{}, restartInPlace)
	add("quorum-lost-and-back", kind{}, quorumLost)
	add("i5/lease-end-contained", kind{}, leaseEnd)
	add("i5/guard-killed", kind{}, guardKilled)
	add("i7/stop-without-daemon", kind{}, stopWithoutDaemon)
	add("fence", kind{}, fenceAsked)
	add("cold-start", kind{}, coldStart)
	add("cut-off", kind{}, cutOff)
}

// undisturbed does something to the holder and expects that its user sees nothing of it for a while.
func (c *cluster) undisturbed(ctx context.Context, watch time.Duration, do func(context.Context, *lab.Node) error) error {
	holder, epoch, err := c.holder(ctx, c.anyUp())
	if err != nil {
		return err
	}
	client := c.Client(ctx, c.address)
	defer client.Stop()
	if _, err := client.AwaitAck(ctx, time.Now(), 5*time.Second); err != nil {
		return err
	}
	began := time.Now()
	if err := do(ctx, holder); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(watch):
	}
	if _, err := client.AwaitAck(ctx, time.Now(), 5*time.Second); err != nil {
		return fmt.Errorf("the front-end stopped answering: %w", err)
	}
	client.Stop()
	now, after, err := c.holder(ctx, c.anyUp())
	if err != nil {
		return err
	}
	if now != holder || after != epoch {
		return fmt.Errorf("the service went from %s epoch %d to %s epoch %d", holder.Name, epoch, now.Name, after)
	}
	v, err := client.Verify(ctx)
	if err != nil {
		return err
	}
	c.Logf("longest gap %s", client.GapAround(began).Length())
	return nothingLost(v)
}

func switchover(ctx context.Context, c *cluster) error {
	holder, epoch, err := c.holder(ctx, c.anyUp())
	if err != nil {
		return err
	}
	client := c.Client(ctx, c.address)
	defer client.Stop()
	to := c.anyUp(holder)
	out, err := c.keepone(ctx, holder, "switchover", service, "--to", to.Name, "--yes")
	if err != nil {
		return err
	}
	if !strings.Contains(out, to.Name) {
		return fmt.Errorf("switchover does not say where the service went: %q", out)
	}
	now, after, err := c.holder(ctx, to)
	if err != nil {
		return err
	}
	if now != to || after <= epoch {
		return fmt.Errorf("on %s at epoch %d, expected %s above %d", now.Name, after, to.Name, epoch)
	}
	if _, err := client.AwaitAck(ctx, time.Now(), 10*time.Second); err != nil {
		return err
	}
	client.Stop()
	v, err := client.Verify(ctx)
	return errors.Join(err, nothingLost(v))
}

func drain(ctx context.Context, c *cluster) error {
	holder, _, err := c.holder(ctx, c.anyUp())
	if err != nil {
		return err
	}
	if _, err := c.keepone(ctx, holder, "drain", holder.Name); err != nil {
		return err
	}
	now, err := c.awaitHolder(ctx, takeoverBound, holder)
	if err != nil {
		return err
	}
	if _, err := c.keepone(ctx, now, "switchover", service, "--to", holder.Name, "--yes"); err == nil {
		return errors.New("switchover to a drained node was not refused")
	}
	if _, err := c.keepone(ctx, now, "undrain", holder.Name); err != nil {
		return err
	}
	// No failback unless asked.
	return c.undisturbed(ctx, 3*time.Second, func(context.Context, *lab.Node) error { return nil })
}

// maintenance is hands off: nothing is fenced or moved, not even when every daemon is gone.
func maintenance(ctx context.Context, c *cluster) error {
	if _, err := c.keepone(ctx, c.anyUp(), "maintenance", "on", "--for", "2m"); err != nil {
		return err
	}
	err := c.undisturbed(ctx, 6*time.Second, func(ctx context.Context, _ *lab.Node) error {
		var errs []error
		for _, n := range c.Nodes() {
			errs = append(errs, n.Stop(ctx, lab.Daemon))
		}
		select {
		case <-ctx.Done():
		case <-time.After(6 * time.Second):
		}
		for _, n := range c.Nodes() {
			errs = append(errs, n.Start(ctx, lab.Daemon))
		}
		return errors.Join(append(errs, c.awaitOnline(ctx, formLimit))...)
	})
	if err != nil {
		return err
	}
	_, err = c.keepone(ctx, c.anyUp(), "maintenance", "off")
	return errors.Join(err, c.undisturbed(ctx, 5*time.Second, func(context.Context, *lab.Node) error { return nil }))
}

// linkBlip cuts one link for long, then both for less than the suspect bound: nothing happens.
func linkBlip(ctx context.Context, c *cluster) error {
	return c.undisturbed(ctx, 4*time.Second, func(ctx context.Context, n *lab.Node) error {
		if err := n.Isolate(ctx, 1, lab.BothWays); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Second):
		}
		if err := errors.Join(n.Heal(ctx), n.Isolate(ctx, 0, lab.BothWays), n.Isolate(ctx, 1, lab.BothWays)); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
		return n.Heal(ctx)
	})
}

// daemonRestart kills the daemon on the holder: the next one adopts what runs.
func daemonRestart(ctx context.Context, c *cluster) error {
	return c.undisturbed(ctx, 8*time.Second, func(ctx context.Context, n *lab.Node) error { return n.Kill(ctx, lab.Daemon) })
}

// restartInPlace kills the container's init: the service is back on the same node, under the same grant.
func restartInPlace(ctx context.Context, c *cluster) error {
	holder, epoch, err := c.holder(ctx, c.anyUp())
	if err != nil {
		return err
	}
	if _, err := holder.Exec(ctx, "sh", "-c", "kill -9 $(cat /run/keepone/services/one/record.json | grep -A3 '\"Init\"' | grep -i '\"pid\"' | tr -dc 0-9)"); err != nil {
		return err
	}
	if _, err := c.lastEvent(ctx, holder, "restart"); err != nil {
		return err
	}
	if err := c.awaitRunning(ctx, takeoverBound); err != nil {
		return err
	}
	now, after, err := c.holder(ctx, holder)
	if err == nil && (now != holder || after != epoch) {
		err = fmt.Errorf("the service went from %s epoch %d to %s epoch %d", holder.Name, epoch, now.Name, after)
	}
	return err
}

// quorumLost stops the daemons of all others for longer than a lease: the holder contains itself, and when they
// are back, the service runs again.
func quorumLost(ctx context.Context, c *cluster) error {
	holder, epoch, err := c.holder(ctx, c.anyUp())
	if err != nil {
		return err
	}
	for _, n := range c.Nodes() {
		if n != holder {
			if err := n.Stop(ctx, lab.Daemon); err != nil {
				return err
			}
		}
	}
	if err := c.awaitContained(ctx, holder); err != nil {
		return err
	}
	out, err := c.keepone(ctx, holder, "status")
	if err == nil {
		return fmt.Errorf("status without quorum ended with 0: %s", out)
	}
	if !strings.Contains(strings.ToLower(out), "quorum") {
		return fmt.Errorf("status without quorum does not say so: %s", out)
	}
	for _, n := range c.Nodes() {
		if n != holder {
			if err := n.Start(ctx, lab.Daemon); err != nil {
				return err
			}
		}
	}
	return await(ctx, takeoverBound, "service running again at a higher epoch", func() error {
		_, now, err := c.holder(ctx, c.anyUp())
		if err == nil && now <= epoch {
			err = fmt.Errorf("still at epoch %d", now)
		}
		return err
	})
}

// awaitContained waits until no process of the service is left on a node, within a lease and its bounds.
func (c *cluster) awaitContained(ctx context.Context, n *lab.Node) error {
	return await(ctx, 8*time.Second, "containment on "+n.Name, func() error {
		out, err := n.Exec(ctx, "cat", "/sys/fs/cgroup/keepone/one/run/cgroup.events")
		if err != nil {
			return nil //nolint:nilerr // no cgroup, no process
		}
		if !strings.Contains(out, "populated 0") {
			return errors.New("the cgroup is populated")
		}
		return nil
	})
}

// leaseEnd cuts the holder off with its daemon stopped: the guard alone contains it (I5).
func leaseEnd(ctx context.Context, c *cluster) error {
	holder, _, err := c.holder(ctx, c.anyUp())
	if err != nil {
		return err
	}
	if err := errors.Join(holder.Stop(ctx, lab.Daemon), holder.Isolate(ctx, 0, lab.BothWays), holder.Isolate(ctx, 1, lab.BothWays)); err != nil {
		return err
	}
	if err := c.awaitContained(ctx, holder); err != nil {
		return err
	}
	_, err = c.awaitHolder(ctx, takeoverBound, holder)
	return err
}

// guardKilled kills the guard again and again with the links cut: each new life knows the true deadline (I5).
func guardKilled(ctx context.Context, c *cluster) error {
	if err := c.undisturbed(ctx, 4*time.Second, func(ctx context.Context, n *lab.Node) error { return n.Kill(ctx, lab.Guard) }); err != nil {
		return err
	}
	holder, _, err := c.holder(ctx, c.anyUp())
	if err != nil {
		return err
	}
	if err := errors.Join(holder.Isolate(ctx, 0, lab.BothWays), holder.Isolate(ctx, 1, lab.BothWays), holder.Kill(ctx, lab.Guard)); err != nil {
		return err
	}
	return c.awaitContained(ctx, holder)
}

// stopWithoutDaemon stops the service on its holder with no daemon, no quorum and no Ceph (I7).
func stopWithoutDaemon(ctx context.Context, c *cluster) error {
	holder, _, err := c.holder(ctx, c.anyUp())
	if err != nil {
		return err
	}
	if err := errors.Join(holder.Stop(ctx, lab.Daemon), c.StopCeph()); err != nil {
		return err
	}
	out, err := c.keepone(ctx, holder, "service", "stop", service, "--local", "--yes")
	c.Logf("local stop: %s (%v)", out, err)
	if e := c.awaitContained(ctx, holder); e != nil {
		return e
	}
	return c.ContinueCeph()
}

// fenceAsked has a person fence a node that is well.
func fenceAsked(ctx context.Context, c *cluster) error {
	holder, _, err := c.holder(ctx, c.anyUp())
	if err != nil {
		return err
	}
	other := c.anyUp(holder)
	if _, err := c.keepone(ctx, other, "fence", holder.Name, "--yes"); err != nil {
		return err
	}
	if holder.IsUp() {
		return fmt.Errorf("%s is said to be fenced and is on", holder.Name)
	}
	_, err = c.awaitHolder(ctx, takeoverBound, holder)
	return err
}

// cutOff has somebody blocklist the client of a holder that is well, for good. Its front-end may go on answering; the
// service comes back with another client by itself, and nothing that was acknowledged is missing.
func cutOff(ctx context.Context, c *cluster) error {
	_, epoch, err := c.holder(ctx, c.anyUp())
	if err != nil {
		return err
	}
	before, err := c.locker(ctx)
	if err != nil {
		return err
	}
	client, end, err := c.writing(ctx)
	if err != nil {
		return err
	}
	defer client.Stop()
	began := time.Now()
	if _, err := c.Ceph(ctx, "osd", "blocklist", "add", before, "315360000"); err != nil {
		return err
	}
	if err := await(ctx, 30*time.Second, "the service with another storage client", func() error {
		_, after, err := c.holder(ctx, c.anyUp())
		if err != nil {
			return err
		}
		if now, err := c.locker(ctx); err != nil || now == before || after <= epoch {
			return fmt.Errorf("client %s, epoch %d, as before (%w)", now, after, err)
		}
		return nil
	}); err != nil {
		return err
	}
	c.Logf("anew after %s", time.Since(began))
	return end()
}

// coldStart cuts every node at once: when power is back the cluster comes back by itself, and nothing is lost.
func coldStart(ctx context.Context, c *cluster) error {
	_, epoch, err := c.holder(ctx, c.anyUp())
	if err != nil {
		return err
	}
	client := c.Client(ctx, c.address)
	defer client.Stop()
	if _, err := client.AwaitAck(ctx, time.Now(), 5*time.Second); err != nil {
		return err
	}
	for _, n := range c.Nodes() {
		if err := n.PowerCut(ctx); err != nil {
			return err
		}
	}
	for _, n := range c.Nodes() {
		if err := n.PowerOn(ctx); err != nil {
			return err
		}
	}
	if err := await(ctx, formLimit, "service running again at a higher epoch", func() error {
		_, now, err := c.holder(ctx, c.anyUp())
		if err == nil && now <= epoch {
			err = fmt.Errorf("still at epoch %d", now)
		}
		return err
	}); err != nil {
		return err
	}
	if _, err := client.AwaitAck(ctx, time.Now(), 10*time.Second); err != nil {
		return err
	}
	client.Stop()
	v, err := client.Verify(ctx)
	return errors.Join(err, nothingLost(v))
}
