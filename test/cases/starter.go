package cases

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/test/lab"
)

func init() {
	add("i6/paused-before-map", kind{}, func(ctx context.Context, c *cluster) error { return c.pausedStarter(ctx, "record.json") })
	add("i6/lost-between-map-and-commit", kind{}, func(ctx context.Context, c *cluster) error { return c.pausedStarter(ctx, "mapper.json") })
	add("i7/stop-paused-starter", kind{}, stopPausedStarter)
}

// pausedStarter stops every process of a node while it starts the service, as soon as a file of the new activation
// is there: before it maps, or when it has mapped and its client's address is not yet committed. Another node must
// take over, and what wakes must do nothing.
func (c *cluster) pausedStarter(ctx context.Context, file string) error {
	starter, epoch, err := c.startAndCatch(ctx, file)
	if err != nil {
		return err
	}
	if err := starter.Pause(ctx); err != nil {
		return err
	}
	to, err := c.awaitHolder(ctx, takeoverBound, starter)
	if err != nil {
		return err
	}
	if _, now, err := c.holder(ctx, to); err != nil || now <= epoch+1 {
		return fmt.Errorf("taken over at epoch %d, expected above %d: %w", now, epoch+1, err)
	}
	client := c.Client(ctx, c.address)
	defer client.Stop()
	if _, err := client.AwaitAck(ctx, time.Now(), 10*time.Second); err != nil {
		return err
	}
	if err := starter.Continue(ctx); err != nil {
		return err
	}
	if err := c.awaitContained(ctx, starter); err != nil {
		return err
	}
	if _, err := client.AwaitAck(ctx, time.Now(), 5*time.Second); err != nil {
		return fmt.Errorf("what woke disturbed the new holder: %w", err)
	}
	client.Stop()
	v, err := client.Verify(ctx)
	if err != nil {
		return err
	}
	now, _, err := c.holder(ctx, to)
	if err == nil && now != to {
		err = fmt.Errorf("the service went on to %s", now.Name)
	}
	return errors.Join(err, nothingLost(v))
}

// startAndCatch stops the service, starts it again, and returns the node that starts it as soon as a file of the new
// activation is there, with the epoch before.
func (c *cluster) startAndCatch(ctx context.Context, file string) (*lab.Node, uint64, error) {
	_, epoch, err := c.holder(ctx, c.anyUp())
	if err != nil {
		return nil, 0, err
	}
	if _, err := c.keepone(ctx, c.anyUp(), "service", "stop", service, "--yes"); err != nil {
		return nil, 0, err
	}
	caught := make(chan *lab.Node, len(c.Nodes()))
	ctx2, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	for _, n := range c.Nodes() {
		seen := c.watchStart(ctx2, n, file)
		go func() {
			if <-seen == nil {
				caught <- n
			}
		}()
	}
	if _, err := c.keepone(ctx, c.anyUp(), "service", "start", service, "--no-wait"); err != nil {
		return nil, 0, err
	}
	select {
	case n := <-caught:
		return n, epoch, nil
	case <-ctx2.Done():
		return nil, 0, fmt.Errorf("no new %s on any node", file)
	}
}

// watchStart reports when a file of a new activation is there.
func (c *cluster) watchStart(ctx context.Context, n *lab.Node, file string) <-chan error {
	done := make(chan error, 1)
	live, err := n.LivePath(filepath.Join("/run/keepone/services", service))
	if err != nil {
		done <- err
		return done
	}
	old, _ := os.ReadFile(filepath.Join(live, file))
	go func() {
		deadline := time.Now().Add(15 * time.Second)
		for time.Now().Before(deadline) && ctx.Err() == nil {
			text, err := os.ReadFile(filepath.Join(live, file))
			if err == nil && string(text) != string(old) && complete(text) {
				done <- nil
				return
			}
			time.Sleep(time.Millisecond)
		}
		done <- fmt.Errorf("no new %s on %s", file, n.Name)
	}()
	return done
}

// complete reports whether a record is there, or a mapper that knows its client's address.
func complete(text []byte) bool {
	var m struct {
		Epoch   uint64
		Address string
	}
	return json.Unmarshal(text, &m) == nil && (m.Epoch > 0 || m.Address != "")
}

// stopPausedStarter stops the starter alone, then the service on that node: the stop must not wait for it, and it
// must never go on (I7).
func stopPausedStarter(ctx context.Context, c *cluster) error {
	starter, _, err := c.startAndCatch(ctx, "record.json")
	if err != nil {
		return err
	}
	if _, err := starter.Exec(ctx, "sh", "-c", "for p in $(cat /sys/fs/cgroup/keepone/one/run/cgroup.procs); do kill -STOP $p; done"); err != nil {
		return err
	}
	if err := starter.Stop(ctx, lab.Daemon); err != nil {
		return err
	}
	began := time.Now()
	out, err := c.keepone(ctx, starter, "service", "stop", service, "--local", "--yes")
	c.Logf("local stop took %s: %s (%v)", time.Since(began), strings.TrimSpace(out), err)
	if err := c.awaitContained(ctx, starter); err != nil {
		return err
	}
	out, err = starter.Exec(ctx, "sh", "-c", "grep -c ' /var/lib/keepone/volumes/one ' /proc/mounts || true")
	if err == nil && strings.TrimSpace(out) != "0" {
		return fmt.Errorf("mounts left on %s: %s", starter.Name, out)
	}
	return nil
}
