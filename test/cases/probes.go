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
	for kindOf, p := range map[string]struct{ keys, says string }{
		"http": {"port = 2633\npath = \"/well\"", "HTTP status 503"},
		"exec": {"command = [\"/bin/ls\", \"" + wellFile + "\"]", "/bin/ls: exit code 1"},
	} {
		add("probe/"+kindOf, kind{bare: true, edit: otherProbe(kindOf, p.keys)}, func(ctx context.Context, c *cluster) error {
			return c.sickAndWell(ctx, kindOf+" probe: ", p.says)
		})
	}
}

// wellFile is what the stand-in front-end asks for before it says that it is well; each start begins without it.
const wellFile = "/tmp/well"

// otherProbe puts another kind of probe in the place of OpenNebula's.
func otherProbe(kindOf, keys string) edit {
	return func(c *cluster) {
		before, after, _ := strings.Cut(c.document, "kind = \"opennebula\"\n")
		_, after, _ = strings.Cut(after, "interval = ")
		c.document = fmt.Sprintf("%skind = %q\n%s\ninterval = %s", before, kindOf, keys, after)
	}
}

// sickAndWell starts a service that answers all the world but its probe: it counts as running only once that passes,
// and is restarted in place when it no longer does, which status and history tell in the probe's words.
func (c *cluster) sickAndWell(ctx context.Context, says ...string) error {
	if err := c.createVolume(ctx); err != nil {
		return err
	}
	if _, err := lab.AwaitAnswer(ctx, c.address, session, takeoverBound); err != nil {
		return err
	}
	if err := c.staysStarting(ctx, 3*time.Second); err != nil {
		return err
	}
	if err := c.makeWell(ctx); err != nil {
		return err
	}
	holder, epoch, err := c.holder(ctx, c.anyUp())
	if err != nil {
		return err
	}
	if err := c.inside(ctx, holder, "/bin/rm", wellFile); err != nil {
		return err
	}
	failed := append([]string{"4 probes failed in a row"}, says...)
	if err := c.awaitSaid(ctx, takeoverBound, holder, []string{"status"}, "starting", "failed on "+holder.Name); err != nil {
		return err
	}
	e, err := c.lastEvent(ctx, holder, "failed")
	if err := errors.Join(err, contains("the history", e.Reason, failed)); err != nil {
		return err
	}
	if _, err := c.lastEvent(ctx, holder, "restart"); err != nil {
		return err
	}
	if err := c.makeWell(ctx); err != nil {
		return err
	}
	return c.staysAt(ctx, holder, epoch)
}

// staysStarting is an error if the service counts as anything but starting in the time.
func (c *cluster) staysStarting(ctx context.Context, long time.Duration) error {
	for end := time.Now().Add(long); time.Now().Before(end); {
		s, err := c.status(ctx, c.anyUp())
		if err != nil {
			return err
		}
		if state := s.Services[0].State; state != "starting" {
			return fmt.Errorf("it is %s while its probe fails", state)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
	return nil
}

// makeWell has somebody in the container say that all is well, again until the service counts as running: a restart
// that is under way forgets it.
func (c *cluster) makeWell(ctx context.Context) error {
	return await(ctx, takeoverBound, "service running", func() error {
		s, err := c.status(ctx, c.anyUp())
		if err != nil {
			return err
		}
		svc := s.Services[0]
		for _, n := range c.Nodes() {
			if n.Name == svc.Holder {
				err = c.inside(ctx, n, "/bin/touch", wellFile)
			}
		}
		if svc.State != "running" {
			err = errors.Join(err, fmt.Errorf("it is %s", svc.State))
		}
		return err
	})
}
