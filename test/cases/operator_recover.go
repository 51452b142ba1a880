package cases

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/test/lab"
)

func init() {
	add("operator/recover", kind{edit: bmcAlone}, majorityGone)
}

// bmcAlone leaves the BMC as the one proof that a program can bring: with it dead, a person must vouch.
func bmcAlone(c *cluster) { c.document += "[service.fencing]\nproofs = [\"bmc-off\"]\n" }

// majorityGone destroys two of three nodes, the holder among them, with their BMCs. The last one says that it can do
// nothing, and what to do; it goes on alone by `keepone recover`, and starts the service once a person has vouched
// for the old holder.
func majorityGone(ctx context.Context, c *cluster) error {
	holder, epoch, err := c.holder(ctx, c.anyUp())
	if err != nil {
		return err
	}
	client := c.Client(ctx, c.address)
	defer client.Stop()
	if _, err := client.AwaitAck(ctx, time.Now(), 5*time.Second); err != nil {
		return err
	}
	last := c.anyUp(holder)
	for _, n := range c.Nodes() {
		if n != last {
			n.BMC().Dead()
			if err := n.PowerCut(ctx); err != nil {
				return err
			}
		}
	}
	if err := c.helpless(ctx, last, holder); err != nil {
		return err
	}
	if err := c.goOnAlone(ctx, last); err != nil {
		return err
	}
	if err := c.awaitVoucher(ctx, last, holder); err != nil {
		return err
	}
	if _, err := client.AwaitAck(ctx, time.Now(), takeoverBound); err != nil {
		return err
	}
	client.Stop()
	now, after, err := c.holder(ctx, last)
	if err == nil && (now != last || after <= epoch) {
		err = fmt.Errorf("on %s at epoch %d, expected %s above %d", now.Name, after, last.Name, epoch)
	}
	v, err2 := client.Verify(ctx)
	return errors.Join(err, err2, nothingLost(v), c.explains(ctx, last, "failover", holder.Name, last.Name, "human"))
}

// helpless is an error unless the last node says that there is no quorum and what to do, by the right exit code.
func (c *cluster) helpless(ctx context.Context, last, holder *lab.Node) error {
	return await(ctx, takeoverBound, "status of the last node", func() error {
		out, err := c.keepone(ctx, last, "status")
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != exitNoQuorum {
			return fmt.Errorf("status did not end with %d: %v", exitNoQuorum, err) //nolint:errorlint // it may be nil
		}
		return contains("status", out, []string{"NO QUORUM", "→ bring back", holder.Name, "keepone recover"})
	})
}

// goOnAlone makes the last node the only voter: refused while its daemon runs, done while it does not.
func (c *cluster) goOnAlone(ctx context.Context, last *lab.Node) error {
	if err := c.refused(ctx, last, []string{"keeponed runs on this node"}, "recover", "--yes"); err != nil {
		return err
	}
	if err := last.Stop(ctx, lab.Daemon); err != nil {
		return err
	}
	if err := c.refused(ctx, last, []string{"two clusters would be one too many"}, "recover"); err != nil {
		return err
	}
	out, err := c.keepone(ctx, last, "recover", "--yes")
	if err != nil {
		return err
	}
	if err := contains("keepone recover", out, []string{"goes on alone", "keepone fence confirm"}); err != nil {
		return err
	}
	return boot(ctx, last)
}

// awaitVoucher expects that the old holder counts as lost and unproven for longer than any lease, and vouches for it
// then. The image's epoch must be below the one that comes.
func (c *cluster) awaitVoucher(ctx context.Context, last, holder *lab.Node) error {
	confirm := "keepone fence confirm " + holder.Name
	if err := c.awaitSaid(ctx, takeoverBound, last, []string{"status"}, confirm); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-time.After(6 * time.Second): // a lease and the down bound, and as much again as both leave
	}
	out, err := c.keepone(ctx, last, "status")
	if err := errors.Join(err, contains("status", out, []string{confirm, "fencing", "led by " + last.Name})); err != nil {
		return err
	}
	text, err := c.RBD(ctx, "image-meta", "get", lab.Pool+"/one", "keepone.epoch")
	if err != nil {
		return err
	}
	image, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return fmt.Errorf("read epoch of the image: %w", err)
	}
	if _, err := c.keepone(ctx, last, "fence", "confirm", holder.Name, "--yes"); err != nil {
		return err
	}
	if err := c.awaitRunning(ctx, takeoverBound); err != nil {
		return err
	}
	_, now, err := c.holder(ctx, last)
	if err == nil && now <= image {
		err = fmt.Errorf("runs at epoch %d, the image had %d", now, image)
	}
	return err
}
