package cases

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/keepone-ha/keepone/test/lab"
)

func init() {
	lab.Handle(lab.Command{Name: "chaos", Help: "chaos [-duration 15m] [-seed 1] [-manager keepone] [-json file]: faults, one after another, then a verdict", Outside: chaosVerb})
	lab.Handle(lab.Command{Name: "chaos-room", Help: "chaos-room ORDERS: chaos in its room (used by chaos)", Inside: chaosRoom})
	for _, fixed := range []chaosOrders{
		{Manager: "keepone", Seed: 1, Faults: 14, Duration: 2 * time.Minute},
		{Manager: "pacemaker", Seed: 2, Faults: 5, Duration: 3 * time.Minute},
	} {
		lab.Register(lab.Case{
			Name: "chaos/" + fixed.Manager, Limit: 6 * time.Minute, Needs: managedNeeds,
			Outside: func(ctx context.Context, host *lab.Host) error { return fixed.run(ctx, host, "") },
		})
	}
}

// chaosOrders say what a storm is to be.
type chaosOrders struct {
	Manager  string
	Seed     uint64
	Duration time.Duration // no fault strikes after it
	Faults   int           // or after so many; 0: any number
}

const (
	chaosFile = "chaos.json"
	// chaosGrace is what forming, the last fault's mending and the verdict may take beyond the duration.
	chaosGrace = 7 * time.Minute
)

// errViolation ends a storm whose verdict is not clean.
var errViolation = errors.New("the cluster did not keep its promises")

func chaosVerb(ctx context.Context, host *lab.Host, args []string) error {
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	flags.SetOutput(host.Stdio.Err)
	var o chaosOrders
	flags.DurationVar(&o.Duration, "duration", 15*time.Minute, "how long faults strike")
	flags.Uint64Var(&o.Seed, "seed", 1, "of the plan of faults; 0: a fresh one")
	flags.StringVar(&o.Manager, "manager", "keepone", "who orders the service: keepone, or pacemaker with corosync")
	file := flags.String("json", "", "write the figures to this file")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%w: %w", lab.ErrUsage, err)
	}
	if _, known := plays[o.Manager]; !known || o.Duration <= 0 {
		return fmt.Errorf("%w: -manager is keepone or pacemaker, -duration above 0", lab.ErrUsage)
	}
	if o.Seed == 0 {
		o.Seed = rand.Uint64N(1 << 31)
	}
	return o.run(ctx, host, *file)
}

// run makes a room for the storm, prints its figures once the room is gone, and keeps the logs unless all is well.
func (o chaosOrders) run(ctx context.Context, host *lab.Host, file string) error {
	work, err := os.MkdirTemp("", "keepone-lab-chaos-")
	if err != nil {
		return fmt.Errorf("make work folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(work) }()
	text, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("encode orders: %w", err)
	}
	err = host.Enter(ctx, lab.Entry{Command: "chaos-room", Args: []string{string(text)}, Work: work, Keep: true})
	if ctx.Err() != nil {
		return errors.Join(fmt.Errorf("chaos: stopped, and cleaned up: seed %d, manager %s", o.Seed, o.Manager), err)
	}
	var v verdict
	if text, readErr := os.ReadFile(filepath.Join(work, chaosFile)); readErr == nil {
		if readErr = json.Unmarshal(text, &v); readErr != nil {
			return errors.Join(err, fmt.Errorf("read figures: %w", readErr))
		}
		if left := lab.LeftBehind(); left > 0 {
			v.LeftBehind += left
			v.Violations = append(v.Violations, fmt.Sprintf("%d cgroups of the lab are left on the machine", left))
		}
		err = errors.Join(err, v.print(host.Stdio.Out))
	} else if err == nil {
		err = fmt.Errorf("read figures: %w", readErr) // no verdict is no good one
	}
	if file != "" && v.Schema > 0 {
		err = errors.Join(err, v.write(file))
	}
	if err != nil {
		return keepLogs(host, "chaos-"+o.Manager, work, err)
	}
	return nil
}

func chaosRoom(ctx context.Context, room *lab.Room, args []string) error {
	var o chaosOrders
	if len(args) != 1 || json.Unmarshal([]byte(args[0]), &o) != nil {
		return fmt.Errorf("%w: ORDERS", lab.ErrUsage)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.Duration+chaosGrace, errors.New("the storm did not end in its time"))
	defer cancel()
	log, err := os.Create(filepath.Join(room.Work, "lab.log"))
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer func() { _ = log.Close() }()
	tell := teller{out: room.Stdio.Out, began: time.Now()}
	tell.say("chaos with seed %d: making 3 nodes with two links and an IPMI BMC each, and a Ceph cluster; %s orders the service", o.Seed, o.Manager)
	l, err := lab.New(ctx, room, lab.Options{Nodes: 3, LogWriters: true, Log: log})
	if err != nil {
		return err
	}
	defer func() { _ = l.Down(context.WithoutCancel(ctx)) }()
	all, err := plays[o.Manager].form(ctx, l)
	if err != nil {
		return err
	}
	s := newStorm(o, all, tell, room.Work)
	v, err := s.rage(ctx)
	if err != nil {
		return errors.Join(fmt.Errorf("seed %d, fault %d: %w", o.Seed, s.faults, err), context.Cause(ctx))
	}
	return v.write(filepath.Join(room.Work, chaosFile))
}
