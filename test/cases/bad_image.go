package cases

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/keepone-ha/keepone/test/lab"
)

func init() {
	add("bad/image-missing", kind{bare: true}, imageMissing)
	add("bad/image-size-0", kind{bare: true}, imageEmpty)
	add("bad/image-locked-by-stranger", kind{}, imageLocked)
	addBad("keyring-without-cap", false, 3, keyringWithoutCap)
}

// saidBound is how soon a status must tell what is wrong with storage: two looks and one time-out of Ceph.
const saidBound = 20 * time.Second

const image = lab.Pool + "/one"

// imageMissing begins before the volume is made.
func imageMissing(ctx context.Context, c *cluster) error {
	if err := c.awaitSaid(ctx, saidBound, c.Node(2), look, `"state": "blocked"`, "has no image", "keepone volume create"); err != nil {
		return err
	}
	if err := c.awaitSaid(ctx, 5*time.Second, c.Node(2), doctor, "has no image"); err != nil {
		return err
	}
	if err := c.createVolume(ctx); err != nil {
		return err
	}
	return c.awaitRunning(ctx, takeoverBound)
}

// imageEmpty finds an image that was cut to nothing.
func imageEmpty(ctx context.Context, c *cluster) error {
	if _, err := c.RBD(ctx, "create", image, "--size", "0", "--image-feature", "layering,exclusive-lock"); err != nil {
		return err
	}
	if err := c.awaitSaid(ctx, saidBound, c.Node(2), look, `"state": "blocked"`, "image "+image+" has size 0"); err != nil {
		return err
	}
	if _, err := c.RBD(ctx, "rm", image); err != nil {
		return err
	}
	if err := c.createVolume(ctx); err != nil {
		return err
	}
	return c.awaitRunning(ctx, takeoverBound)
}

// imageLocked has a client of no node's own the image, and hang: nobody starts until an operator claims the image,
// and then the stranger can't write any more.
func imageLocked(ctx context.Context, c *cluster) error {
	_, written, err := c.writing(ctx)
	if err != nil {
		return err
	}
	if _, err := c.keepone(ctx, c.Node(2), "service", "stop", service, "--yes"); err != nil {
		return err
	}
	stranger, err := c.lockByStranger(ctx)
	if err != nil {
		return err
	}
	words := []string{"locked by a stranger at " + lab.RoomAddress, "keepone volume claim " + service}
	if err := c.awaitSaid(ctx, saidBound, c.Node(2), look, words...); err != nil {
		return err
	}
	if _, err := c.keepone(ctx, c.Node(2), "service", "start", service, "--no-wait"); err != nil {
		return err
	}
	if err := c.awaitSaid(ctx, saidBound, c.Node(2), look, append(words, `"state": "blocked"`)...); err != nil {
		return err
	}
	if _, err := c.keepone(ctx, c.Node(2), "volume", "claim", service, "--yes"); err != nil {
		return err
	}
	if err := c.awaitRunning(ctx, takeoverBound); err != nil {
		return err
	}
	if err := stranger.Process.Signal(syscall.SIGCONT); err != nil {
		return fmt.Errorf("wake stranger: %w", err)
	}
	if err := stranger.Wait(); err == nil {
		return errors.New("the stranger could go on writing after it was cut off")
	}
	return written()
}

// lockByStranger makes a client at the room's own address take the image's lock, and stops it there. What it writes
// is in the file system's boot block, a byte at a time, which nobody reads.
func (c *cluster) lockByStranger(ctx context.Context) (*exec.Cmd, error) {
	conf := filepath.Join(c.Work, "ceph", "ceph.conf")
	cmd := exec.CommandContext(ctx, "rbd", "-c", conf, "bench", image, "--io-type", "write", "--io-pattern", "seq",
		"--io-threads", "1", "--io-size", "1", "--io-total", "1000", "--rbd-cache=false", "--rbd-qos-iops-limit=20") // not done before it is stopped
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start stranger: %w", err)
	}
	err := await(ctx, 10*time.Second, "the stranger's lock", func() error {
		out, err := c.RBD(ctx, "lock", "ls", image)
		if err == nil && !strings.Contains(out, lab.RoomAddress) {
			err = errors.New("it has none")
		}
		return err
	})
	if err != nil {
		_ = cmd.Process.Kill()
		return nil, errors.Join(err, cmd.Wait())
	}
	return cmd, cmd.Process.Signal(syscall.SIGSTOP)
}

// keyringWithoutCap may open the image, but not cut anybody off: what could not be taken over is not begun.
func keyringWithoutCap(ctx context.Context, l *lab.Lab) error {
	if err := l.SetCaps(ctx, lab.CephUser, "mon", "allow r", "osd", "profile rbd"); err != nil {
		return err
	}
	c, err := prepare(ctx, l)
	if err != nil {
		return err
	}
	if err := c.createVolume(ctx); err != nil {
		return err
	}
	words := []string{"mon 'profile rbd'", `"state": "blocked"`}
	if err := c.awaitSaid(ctx, saidBound, c.Node(2), look, words...); err != nil {
		return err
	}
	if err := c.awaitSaid(ctx, 5*time.Second, c.Node(2), doctor, "mon 'profile rbd'"); err != nil {
		return err
	}
	if err := l.SetCaps(ctx, lab.CephUser, "mon", "profile rbd", "osd", "profile rbd"); err != nil {
		return err
	}
	return c.awaitRunning(ctx, formLimit)
}
