package cases

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keepone-ha/keepone/test/lab"
)

func init() {
	add("shutdown", kind{}, shutdown)
}

// shutdown takes the holder down as systemd does, in keepone-shutdown.service's order: the stop, the daemon, the
// guard, and after a while the power. It is a planned move: nobody is fenced, and another node answers before the
// daemon is gone.
func shutdown(ctx context.Context, c *cluster) error {
	holder, epoch, err := c.holder(ctx, c.anyUp())
	if err != nil {
		return err
	}
	client, written, err := c.writing(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	out, err := c.keepone(ctx, holder, "service", "stop", "--shutdown", "--yes")
	if err := errors.Join(err, contains("the stop", out, []string{"is stopped here and has let go of its volume"})); err != nil {
		return err
	}
	if s, err := c.status(ctx, holder); err != nil || s.Services[0].Holder == holder.Name {
		return errors.Join(fmt.Errorf("the stop ended before the cluster knew of it: %+v", s.Services), err)
	}
	now, err := c.awaitHolder(ctx, takeoverBound, holder)
	if err != nil {
		return err
	}
	if err := errors.Join(holder.Stop(ctx, lab.Daemon), holder.Stop(ctx, lab.Guard)); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-time.After(6 * time.Second): // the rest of a shutdown, for longer than a lost holder is let be
	}
	if !holder.IsUp() {
		return fmt.Errorf("%s was powered off while it shut down", holder.Name)
	}
	if err := c.neverFenced(ctx, now); err != nil { // once its power is off, that is read, and noted as a proof
		return err
	}
	if err := errors.Join(holder.Reset(ctx), written(), c.awaitOnline(ctx, formLimit), c.staysAt(ctx, now, epoch+1)); err != nil {
		return err
	}
	c.Logf("longest gap %s", client.GapAround(began).Length())
	return c.awaitCandidates(ctx, formLimit) // the next life of the node is one again
}

// neverFenced is an error if the history tells of a fence or a failover.
func (c *cluster) neverFenced(ctx context.Context, ask *lab.Node) error {
	events, err := c.history(ctx, ask)
	for _, e := range events {
		if e.Kind == "fence" || e.Kind == "failover" {
			err = errors.Join(err, fmt.Errorf("event %d: %s: %s", e.ID, e.Kind, e.Reason))
		}
	}
	return err
}
