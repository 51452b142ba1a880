package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/guard"
	"github.com/keepone-ha/keepone/pkg/release"
	"github.com/keepone-ha/keepone/pkg/report"
)

// localStatus shows what this node knows without its daemon: the records of its run directory, what the kernel
// shows of them, and what its guard says.
func (c *cli) localStatus(ctx context.Context, output string, cause error) error {
	node, err := c.places()
	if err != nil {
		return err
	}
	local := report.Local{Schema: report.Schema, Node: string(node.Name), Services: []report.LocalService{}}
	local.Daemon = cause.Error()
	guardStatus, err := askGuard(ctx, node.RunDir)
	if err != nil {
		local.Guard = err.Error()
	} else {
		local.Guard, local.Leader = "answers", string(guardStatus.Leader)
		local.AckAge = guardStatus.AckAge.Seconds()
		local.Maintenance = guardStatus.Maintenance.Seconds()
		if local.Watchdog = guardStatus.Watchdog.Reason; guardStatus.Watchdog.Armed {
			local.Watchdog = "armed"
		}
	}
	records, err := release.List(node.RunDir)
	if err != nil {
		local.Problem = err.Error()
	}
	for _, r := range records {
		local.Services = append(local.Services, localService(node.RunDir, r, guardStatus))
	}
	if output == "json" {
		err = c.printJSON(local)
	} else {
		err = report.LocalText(c.out, local, c.style())
	}
	return errors.Join(err, errNoQuorum)
}

func askGuard(ctx context.Context, runDir string) (guard.Status, error) {
	client, err := guard.Dial(runDir)
	if err != nil {
		return guard.Status{}, err
	}
	defer client.Close()
	return client.Status(ctx)
}

func localService(runDir string, r release.Record, g guard.Status) report.LocalService {
	s := report.LocalService{Name: string(r.Service), Epoch: uint64(r.Epoch), State: "unknown"}
	if info, err := os.Stat(filepath.Join(release.Dir(runDir, r.Service), "record.json")); err == nil {
		s.Since = info.ModTime().UTC().Format(time.RFC3339)
	}
	if facts, err := release.Running(runDir, r); err != nil {
		s.Reason = err.Error()
	} else {
		s.State = factWords(facts)
	}
	for _, known := range g.Services {
		if known.Service == r.Service {
			s.Lease = known.Lease.Seconds()
			s.Guard = known.State
		}
	}
	return s
}

// stopLocal stops a service here with the kernel's facts and the run directory's records alone: no daemon, no
// quorum and no Ceph is asked (I7).
func (c *cli) stopLocal(ctx context.Context, service core.ServiceName) error {
	node, err := c.places()
	if err != nil {
		return err
	}
	record, err := release.Load(node.RunDir, service)
	if errors.Is(err, fs.ErrNotExist) {
		c.printf("Done: %s was never started on this node in this life.\n", service)
		return nil
	}
	if err != nil {
		return err
	}
	if err := c.confirm(fmt.Sprintf("%s is stopped on this node alone. A cluster with quorum will start it again, here or elsewhere.", service)); err != nil {
		return err
	}
	result := release.Stop(ctx, node.RunDir, record, release.Options{Reason: "stopped by an operator on this node", Graceful: record.StopLimit})
	return c.tellStop(service, result)
}

// tellStop says what a stop on this node came to.
func (c *cli) tellStop(service core.ServiceName, result release.Result) error {
	for _, reason := range result.Reasons {
		c.printf("  %s\n", reason)
	}
	switch {
	case result.Vacated:
		c.printf("Done: %s is stopped here and has let go of its volume.\n", service)
	case result.Contained:
		c.printf("Done: nothing of %s runs here any more, but its volume is not free: the next holder cuts it off.\n", service)
	default:
		return fmt.Errorf("%w: something of %s may still run here", errFailed, service)
	}
	return nil
}

func (c *cli) serviceStopCommand() *cobra.Command {
	var local, shutdown bool
	cmd := c.serviceVerb("stop", "Stop a service and keep it stopped", core.RequestStop)
	ask := cmd.RunE
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if shutdown {
			return cobra.NoArgs(cmd, args)
		}
		return cobra.ExactArgs(1)(cmd, args)
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case shutdown:
			return c.stopForShutdown(cmd.Context())
		case local:
			return c.stopLocal(cmd.Context(), core.ServiceName(args[0]))
		}
		return ask(cmd, args)
	}
	cmd.Flags().BoolVar(&local, "local", false, "stop what runs on this node, without daemon and quorum")
	cmd.Flags().BoolVar(&shutdown, "shutdown", false, "stop all that runs on this node, which goes down; another one takes over (keepone-shutdown.service says it)")
	return cmd
}

// factWords says in a word or two what the kernel shows of a service.
func factWords(f release.Facts) string {
	switch {
	case f.Init:
		return "running"
	case f.Populated:
		return "starting or stopping"
	case f.Mounted || f.Mapper || f.MapGroup:
		return "not running, volume still here"
	}
	return "not running"
}
