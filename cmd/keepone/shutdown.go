package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/keepone-ha/keepone/pkg/config"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/op"
	"github.com/keepone-ha/keepone/pkg/release"
)

// knownLimit bounds the wait until the cluster knows what was stopped here: a report of the daemon and one commit,
// with an election in between if the leader goes down too.
const knownLimit = 10 * time.Second

// stopForShutdown stops all that runs here, for a node that goes down in an orderly way, and waits until the cluster
// knows: else a holder that falls silent is taken for lost, and fenced. As every local stop it needs neither daemon
// nor quorum, and ends in a bound (I7).
func (c *cli) stopForShutdown(ctx context.Context) error {
	node, err := c.places()
	if err != nil {
		return err
	}
	if err := c.confirm("Everything that runs on this node is stopped, and nothing is started here before its next boot."); err != nil {
		return err
	}
	if err := release.Leave(node.RunDir); err != nil {
		fmt.Fprintf(c.err, "keepone: %v; going on\n", err)
	}
	records, err := release.List(node.RunDir)
	if err != nil {
		fmt.Fprintf(c.err, "keepone: %v; going on with the rest\n", err)
	}
	if len(records) == 0 {
		c.printf("Done: nothing was started on this node in this life.\n")
		return err
	}
	results := make([]release.Result, len(records))
	var wait sync.WaitGroup
	for i, r := range records {
		wait.Go(func() {
			results[i] = release.Stop(ctx, node.RunDir, r, release.Options{Reason: "this node goes down", Graceful: r.StopLimit})
		})
	}
	wait.Wait()
	errs := []error{err}
	for i, r := range records {
		errs = append(errs, c.tellStop(r.Service, results[i]))
	}
	c.awaitKnown(ctx, node, records)
	return errors.Join(errs...)
}

// awaitKnown waits until no grant names what was stopped here. It says why if that can't be: the cluster finds out by
// itself then, and may fence this node.
func (c *cli) awaitKnown(ctx context.Context, node config.NodeFile, records []release.Record) {
	ctx, cancel := context.WithTimeout(ctx, knownLimit)
	defer cancel()
	for {
		var look op.Look
		err := c.daemon.Call(ctx, op.MethodLook, struct{}{}, nil, &look)
		if err == nil && !granted(look.State, node.Name, records) {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
		if err == nil {
			err = errors.New("its grant stands")
		}
		if ctx.Err() != nil {
			c.printf("The cluster may not know of it: %v. It may take this node for lost, and fence it.\n", err)
			return
		}
	}
}

// granted reports whether one of the records is what a grant names.
func granted(s core.State, node core.NodeName, records []release.Record) bool {
	for _, r := range records {
		if g := s.Services[r.Service].Grant; g != nil && g.Node == node && g.Instance == r.Instance {
			return true
		}
	}
	return false
}
