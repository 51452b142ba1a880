package cases

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/test/lab"
)

func init() {
	add("bad/bmc-unreachable", kind{}, bmcCase(func(_ context.Context, n *lab.Node) error {
		n.BMC().Dead()
		return nil
	}, "no answer in time"))
	add("bad/bmc-wrong-password", kind{}, bmcCase(func(ctx context.Context, n *lab.Node) error {
		return n.BMC().WrongPassword(ctx)
	}, "login refused: check the BMC's user and password"))
	addBad("bmc-swapped", false, 3, bmcSwapped)
	add("disk-full", kind{}, diskFull)
}

// bmcBound is for the watch's round, which is slow, not to wear the BMCs out.
const bmcBound = 60 * time.Second

// bmcCase breaks the BMC of a node that holds nothing: it is said, nothing moves, and no longer said once it is well.
func bmcCase(bad func(context.Context, *lab.Node) error, words string) func(context.Context, *cluster) error {
	return func(ctx context.Context, c *cluster) error {
		if err := c.awaitSettled(ctx); err != nil {
			return err
		}
		holder, epoch, err := c.holder(ctx, c.anyUp())
		if err != nil {
			return err
		}
		n := c.anyUp(holder)
		s, err := c.status(ctx, holder)
		if err != nil {
			return err
		}
		ask := holder // doctor at the leader looks for all
		for _, other := range c.Nodes() {
			if other.Name == s.Leader {
				ask = other
			}
		}
		about := `"about": "node ` + n.Name + `"`
		if err := bad(ctx, n); err != nil {
			return err
		}
		if err := c.awaitSaid(ctx, saidBound, ask, doctor, words); err != nil {
			return err
		}
		if err := c.awaitSaid(ctx, bmcBound, holder, look, about, "its BMC can't be used to fence it", words); err != nil {
			return err
		}
		if err := n.BMC().Heal(ctx); err != nil {
			return err
		}
		if err := await(ctx, saidBound, "doctor without a complaint about the BMC", func() error {
			out, _ := c.keepone(ctx, holder, doctor...)
			if contains("it", out, []string{words}) == nil {
				return errors.New("it still complains")
			}
			return nil
		}); err != nil {
			return err
		}
		return c.staysAt(ctx, holder, epoch)
	}
}

// bmcSwapped exchanges two BMCs' addresses: the reading of the other machine's power proves nothing, and the
// failover goes by storage. All BMCs have one user and password, as many do: else the login alone would fail.
func bmcSwapped(ctx context.Context, l *lab.Lab) error {
	for _, n := range l.Nodes() {
		n.BMC().User, n.BMC().Password = "oper", "operpw"
	}
	c, err := form(ctx, l)
	if err != nil {
		return err
	}
	holder, _, err := c.holder(ctx, c.anyUp())
	if err != nil {
		return err
	}
	other := c.anyUp(holder)
	holder.BMC().Swap(other.BMC())
	if err := c.awaitSaid(ctx, saidBound, other, doctor, "not this node's: check for swapped BMC addresses"); err != nil {
		return err
	}
	if err := c.expectTakeover(ctx, "storage", powerCut); err != nil {
		return err
	}
	if !other.IsUp() {
		return fmt.Errorf("%s was powered off in place of %s", other.Name, holder.Name)
	}
	return nil
}

const raftDir = "/var/lib/keepone/raft"

// diskFull fills the disk under the log, of the holder and then of the leader: the daemon ends with one clear line
// and its own code, the container goes on, and once there is room the daemon is a member as before.
func diskFull(ctx context.Context, c *cluster) error {
	holder, _, err := c.holder(ctx, c.anyUp())
	if err != nil {
		return err
	}
	if err := c.awaitSettled(ctx); err != nil {
		return err
	}
	s, err := c.status(ctx, holder)
	if err != nil {
		return err
	}
	for _, n := range c.Nodes() {
		if n != holder && n.Name != s.Leader {
			continue
		}
		if err := c.undisturbed(ctx, time.Second, func(ctx context.Context, _ *lab.Node) error { return c.fillDisk(ctx, n) }); err != nil {
			return fmt.Errorf("disk of %s: %w", n.Name, err)
		}
	}
	return nil
}

// fillDisk puts a node's log on a small disk, fills that, looks, and makes room again.
func (c *cluster) fillDisk(ctx context.Context, n *lab.Node) error {
	if err := n.Stop(ctx, lab.Daemon); err != nil {
		return err
	}
	const move = "set -e; cp -a " + raftDir + " /tmp/raft; mount -t tmpfs -o size=2m tmpfs " + raftDir + "; cp -a /tmp/raft/. " + raftDir
	if _, err := n.Exec(ctx, "sh", "-c", move); err != nil {
		return err
	}
	if err := n.Start(ctx, lab.Daemon); err != nil {
		return err
	}
	if err := c.awaitOnline(ctx, formLimit); err != nil {
		return err
	}
	if _, err := n.Exec(ctx, "dd", "if=/dev/zero", "of="+raftDir+"/fill", "bs=4k"); err == nil {
		return errors.New("the disk took without end")
	}
	if err := c.diskNoticed(ctx, n); err != nil {
		return err
	}
	if _, err := n.Exec(ctx, "rm", raftDir+"/fill"); err != nil {
		return err
	}
	return await(ctx, formLimit, "daemon of "+n.Name+" well again", func() error {
		out, err := c.keepone(ctx, n, look...)
		return errors.Join(err, contains("it", out, []string{`"quorum": true`}))
	})
}

// diskNoticed has something committed until the full disk must show, and looks at what the daemon says of it.
func (c *cluster) diskNoticed(ctx context.Context, n *lab.Node) error {
	if err := await(ctx, 30*time.Second, "keeponed of "+n.Name+" ended for its disk", func() error {
		_, _ = c.keepone(ctx, c.anyUp(n), "service", "start", service, "--no-wait") // a commit that changes nothing
		console, err := os.ReadFile(filepath.Join(n.State, "console.log"))
		if err == nil && !strings.Contains(string(console), "keeponed ended: exit 6,") {
			err = errors.New("it has not")
		}
		return err
	}); err != nil {
		return err
	}
	return awaitLogged(ctx, time.Second, n, lab.Daemon, "keeponed: write log: the disk failed", "no space left on device")
}
