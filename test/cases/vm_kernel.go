package cases

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/test/lab"
)

// One node is enough to see what the kernel and systemd do with the service on it.
func init() {
	addVM("kernel/form", 1, formed)
	addVM("kernel/noshare", 1, noShare)
	addVM("kernel/daemon-restart", 1, kernelDaemonRestart)
	addVM("kernel/stop", 1, kernelStop)
}

// life is what must not change while the service lives on: the container's processes and the kernel's mapping.
func life(ctx context.Context, n *lab.Node) (string, error) {
	pids, err := sh(ctx, n, "cat $(find /sys/fs/cgroup/keepone/one -name cgroup.procs | sort) | sort -n | tr '\\n' ' '")
	if err != nil {
		return "", err
	}
	if pids == "" {
		return "", errors.New("nothing is in the service's cgroup")
	}
	maps, err := mapping(ctx, n)
	return pids + maps, err
}

// kernelDaemonRestart restarts daemon and guard, one after the other, and the daemon once by a kill: the service notices nothing.
func kernelDaemonRestart(ctx context.Context, c *cluster) error {
	holder, epoch, err := c.holder(ctx, c.Node(1))
	if err != nil {
		return err
	}
	before, err := life(ctx, holder)
	if err != nil {
		return err
	}
	for _, line := range []string{
		"systemctl restart keeponed", "systemctl restart keepone-guard", "systemctl kill -s KILL keeponed",
	} {
		if _, err := sh(ctx, holder, line); err != nil {
			return err
		}
		if err := c.awaitRunning(ctx, vmFormLimit); err != nil {
			return fmt.Errorf("after %s: %w", line, err)
		}
		after, err := life(ctx, holder)
		if err != nil || after != before {
			return fmt.Errorf("after %s: was %q, is %q: %w", line, before, after, err)
		}
	}
	if _, now, err := c.holder(ctx, holder); err != nil || now != epoch {
		return fmt.Errorf("epoch was %d, is %d: %w", epoch, now, err)
	}
	return nil
}

// noShare cuts the service's client off while another image of the same kernel is written to: that one must not notice.
func noShare(ctx context.Context, c *cluster) error {
	holder, _, err := c.holder(ctx, c.Node(1))
	if err != nil {
		return err
	}
	if err := c.CreateImage(ctx, "guest", 64); err != nil {
		return err
	}
	if _, err := sh(ctx, holder, "rbd --id keepone map rbd/guest"); err != nil {
		return err
	}
	text, err := mapping(ctx, holder)
	if err != nil {
		return err
	}
	clients := map[string]string{}
	devices := map[string]string{}
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) >= 4 {
			devices[f[2]], clients[f[2]] = "/dev/rbd"+f[0], f[3]
		}
	}
	if clients["one"] == "" || clients["guest"] == "" || clients["one"] == clients["guest"] {
		return fmt.Errorf("the two images have the clients %v: each must have its own", clients)
	}
	if _, err := c.Ceph(ctx, "osd", "blocklist", "add", clients["one"], "3600"); err != nil {
		return err
	}
	write := "dd if=/dev/urandom of=%s bs=4k count=16 oflag=direct conv=fsync 2>&1"
	if _, err := sh(ctx, holder, fmt.Sprintf(write, devices["guest"])); err != nil {
		return fmt.Errorf("the other image can't be written to: %w", err)
	}
	// The service itself is cut off: with the first write it fails, and comes back by a mapping of a new client.
	client := c.Client(ctx, c.address)
	defer client.Stop()
	return await(ctx, vmTakeover, "service on a client that is not cut off", func() error {
		text, err := mapping(ctx, holder)
		if err != nil {
			return err
		}
		if strings.Contains(text, clients["one"]) || !strings.Contains(text, " one ") {
			return fmt.Errorf("mappings: %s", text)
		}
		_, _, err = c.holder(ctx, holder)
		return err
	})
}

// kernelStop stops the service: its kernel mapping, mount and cgroup are gone, and a start brings all of it back.
func kernelStop(ctx context.Context, c *cluster) error {
	n := c.Node(1)
	client := c.Client(ctx, c.address)
	defer client.Stop()
	if _, err := client.AwaitAck(ctx, time.Now(), vmStep); err != nil {
		return err
	}
	if _, err := c.keepone(ctx, n, "service", "stop", service, "--yes"); err != nil {
		return err
	}
	left, err := sh(ctx, n, "ls /sys/bus/rbd/devices; grep "+kernelVolume+" /proc/mounts; cat $(find /sys/fs/cgroup/keepone/one -name cgroup.procs) </dev/null")
	if err == nil && left != "" {
		err = fmt.Errorf("left after the stop: %s", left)
	}
	if err != nil && !strings.Contains(err.Error(), "exit status 1") {
		return err
	}
	events, err := c.history(ctx, n)
	if err != nil {
		return err
	}
	for _, e := range events {
		if e.Kind == "contained" {
			return fmt.Errorf("it did not vacate: %+v", e)
		}
	}
	if _, err := c.keepone(ctx, n, "service", "start", service, "--yes"); err != nil {
		return err
	}
	if err := c.awaitRunning(ctx, vmFormLimit); err != nil {
		return err
	}
	client.Stop()
	verdict, err := client.Verify(ctx)
	return errors.Join(err, nothingLost(verdict))
}
