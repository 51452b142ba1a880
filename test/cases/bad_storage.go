package cases

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keepone-ha/keepone/test/lab"
)

func init() {
	add("bad/ceph-away-at-start", kind{}, cephAwayAtStart)
	add("bad/ceph-away-while-running", kind{}, cephAwayWhileRunning)
	add("bad/volume-full", kind{}, volumeFull)
	add("bad/container-config-broken", kind{bare: true}, configBroken)
}

const noAnswer = "Ceph gave no answer"

// cephAwayAtStart starts daemons and service while Ceph does not answer.
func cephAwayAtStart(ctx context.Context, c *cluster) error {
	_, written, err := c.writing(ctx)
	if err != nil {
		return err
	}
	if _, err := c.keepone(ctx, c.Node(2), "service", "stop", service, "--yes"); err != nil {
		return err
	}
	if err := c.StopCeph(); err != nil {
		return err
	}
	for _, n := range c.Nodes() {
		if err := n.Kill(ctx, lab.Daemon); err != nil {
			return err
		}
	}
	if err := c.awaitOnline(ctx, formLimit); err != nil {
		return err
	}
	if err := await(ctx, formLimit, "service started", func() error {
		_, err := c.keepone(ctx, c.Node(2), "service", "start", service, "--no-wait")
		return err
	}); err != nil {
		return err
	}
	if err := c.awaitSaid(ctx, saidBound, c.Node(2), look, `"state": "blocked"`, noAnswer); err != nil {
		return err
	}
	if err := c.ContinueCeph(); err != nil {
		return err
	}
	return errors.Join(c.awaitRunning(ctx, formLimit), written())
}

// cephAwayWhileRunning takes Ceph away below a running service: it waits, and goes on where it was.
func cephAwayWhileRunning(ctx context.Context, c *cluster) error {
	holder, epoch, err := c.holder(ctx, c.anyUp())
	if err != nil {
		return err
	}
	_, written, err := c.writing(ctx)
	if err != nil {
		return err
	}
	if err := c.StopCeph(); err != nil {
		return err
	}
	said := c.awaitSaid(ctx, saidBound, c.anyUp(holder), look, noAnswer, `"state": "running"`)
	if err := errors.Join(c.ContinueCeph(), said); err != nil {
		return err
	}
	if err := errors.Join(written(), c.staysAt(ctx, holder, epoch)); err != nil {
		return err
	}
	return await(ctx, saidBound, "status without a word of Ceph", func() error {
		out, err := c.keepone(ctx, holder, look...)
		if err == nil && contains("it", out, []string{noAnswer}) == nil {
			err = errors.New("it still says that Ceph is away")
		}
		return err
	})
}

// inside runs a command in the service's container.
func (c *cluster) inside(ctx context.Context, n *lab.Node, argv ...string) error {
	full := append([]string{c.BinDir + "/keeponed", "helper", "exec", "--service", service, "--"}, argv...)
	_, err := n.Exec(ctx, full...)
	return err
}

// volumeFull fills the volume from inside: records are turned away, and taken again once there is room.
func volumeFull(ctx context.Context, c *cluster) error {
	holder, epoch, err := c.holder(ctx, c.anyUp())
	if err != nil {
		return err
	}
	client, written, err := c.writing(ctx)
	if err != nil {
		return err
	}
	if err := c.inside(ctx, holder, "/bin/dd", "if=/dev/zero", "of=/root/fill", "bs=1M"); err == nil {
		return errors.New("the volume took without end")
	}
	if _, err := client.AwaitAck(ctx, time.Now(), time.Second); err == nil {
		c.Logf("a record found room in its file's last block")
	}
	if err := c.awaitSaid(ctx, saidBound, c.Node(2), look, `"state": "running"`, "volume of one is full"); err != nil {
		return err
	}
	if err := c.staysAt(ctx, holder, epoch); err != nil {
		return err
	}
	if err := c.inside(ctx, holder, "/bin/rm", "/root/fill"); err != nil {
		return err
	}
	return errors.Join(written(), c.staysAt(ctx, holder, epoch))
}

// configBroken has a container that LXC can't read: each node says LXC's own words, later and later.
func configBroken(ctx context.Context, c *cluster) error {
	tar := c.Node(1).Path("/var/lib/keepone/one.tar")
	if err := c.Tarball(tar, lab.Payload{Credentials: session, ExtraConfig: "lxc.no.such.key = 1\n"}); err != nil {
		return err
	}
	if _, err := c.keepone(ctx, c.Node(1), "volume", "create", service, "--size", "64M", "--from", "/var/lib/keepone/one.tar"); err != nil {
		return err
	}
	words := []string{"lxc.no.such.key", "failed on"}
	if err := c.awaitSaid(ctx, saidBound, c.Node(2), look, words...); err != nil {
		return err
	}
	if err := c.noStorm(ctx); err != nil {
		return err
	}
	if err := c.awaitSaid(ctx, time.Second, c.Node(2), past, "lxc.no.such.key"); err != nil {
		return err
	}
	if _, err := c.keepone(ctx, c.Node(2), "service", "stop", service, "--yes"); err != nil {
		return err
	}
	if _, err := c.RBD(ctx, "rm", image); err != nil {
		return err
	}
	if err := c.createVolume(ctx); err != nil {
		return err
	}
	if _, err := c.keepone(ctx, c.Node(2), "service", "start", service); err != nil {
		return err
	}
	return c.awaitRunning(ctx, takeoverBound)
}

// noStorm watches the attempts of a service that can't start: they get fewer, and go round the nodes.
func (c *cluster) noStorm(ctx context.Context) error {
	const most = 7 // within 15 s of back-off 0, 1, 2, 4, 8 s
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(10 * time.Second):
	}
	events, err := c.history(ctx, c.Node(2))
	if err != nil {
		return err
	}
	failures, nodes := 0, map[string]bool{}
	for _, e := range events {
		if e.Kind == "failed" && e.Service == service {
			failures++
			nodes[e.Node] = true
		}
	}
	if failures > most || len(nodes) < 2 {
		return fmt.Errorf("%d failures on %d nodes: expected 2 to %d, on several", failures, len(nodes), most)
	}
	return nil
}
