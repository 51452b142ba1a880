package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/keepone-ha/keepone/pkg/api"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/op"
	"github.com/keepone-ha/keepone/pkg/report"
)

func (c *cli) statusCommand() *cobra.Command {
	var output string
	var watch bool
	cmd := &cobra.Command{
		Use: "status", Short: "What runs where, what is wrong, and what to do next",
		Long: "Without a daemon it shows what this node knows by itself. It ends with 5 where there is no quorum or no daemon.",
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkOutput(cmd, output); err != nil {
			return err
		}
		if watch {
			return c.watch(cmd.Context(), output)
		}
		return c.status(cmd.Context(), output)
	}
	outputFlag(cmd, &output)
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show it again every second until ctrl-C")
	return cmd
}

func (c *cli) status(ctx context.Context, output string) error {
	var look op.Look
	err := c.look(ctx, op.MethodLook, struct{}{}, &look)
	switch {
	case errors.Is(err, api.ErrNoDaemon) || api.CodeOf(err) == api.CodeUnknown:
		return c.localStatus(ctx, output, err)
	case err != nil:
		return err
	}
	status := report.Build(look)
	if output == "json" {
		err = c.printJSON(status)
	} else {
		err = report.Text(c.out, status, c.style())
	}
	if err == nil && !status.Quorum {
		err = errNoQuorum
	}
	return err
}

// watch shows the status again and again. It ends with ctx, which is no error.
func (c *cli) watch(ctx context.Context, output string) error {
	const every = time.Second
	screen, style := c.out, c.style()
	for {
		var page bytes.Buffer
		one := &cli{stdio: stdio{in: c.in, out: &page, err: c.err}, daemon: c.daemon, nodeFile: c.nodeFile, runDir: c.runDir}
		if err := one.status(ctx, output); err != nil && ctx.Err() == nil {
			fmt.Fprintf(&page, "keepone: %v\n", err)
		}
		if ctx.Err() != nil {
			return nil
		}
		if style.Color {
			fmt.Fprint(screen, "\x1b[H\x1b[2J")
		}
		fmt.Fprint(screen, page.String())
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(every):
		}
	}
}

// history fetches the events.
func (c *cli) history(ctx context.Context, service string, limit int) (report.History, error) {
	var look op.Look
	if err := c.look(ctx, op.MethodLook, struct{}{}, &look); err != nil {
		return report.History{}, err
	}
	return report.NewHistory(look.State.History, core.ServiceName(service), limit), nil
}

func (c *cli) historyCommand() *cobra.Command {
	var output, service string
	var limit int
	var all bool
	cmd := &cobra.Command{Use: "history", Short: "What was decided and why, the newest last"}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkOutput(cmd, output); err != nil {
			return err
		}
		if all {
			limit = 0
		}
		h, err := c.history(cmd.Context(), service, limit)
		if err != nil {
			return err
		}
		if output == "json" {
			return c.printJSON(h)
		}
		return report.HistoryText(c.out, h, c.style())
	}
	outputFlag(cmd, &output)
	cmd.Flags().StringVar(&service, "service", "", "of this `service` alone")
	cmd.Flags().IntVarP(&limit, "lines", "n", 40, "the newest so `many`")
	cmd.Flags().BoolVar(&all, "all", false, "everything that is kept")
	return cmd
}

func (c *cli) explainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "explain ID", Short: "One failover, or any other event, step by step with times", Args: cobra.ExactArgs(1),
		Long: "The ids are those of keepone history.",
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		id, err := strconv.ParseUint(args[0], 10, 64)
		if err != nil {
			return usage(cmd, fmt.Errorf("%q is no id: keepone history shows them", args[0]))
		}
		h, err := c.history(cmd.Context(), "", 0)
		if err != nil {
			return err
		}
		return report.Explain(c.out, h, id, c.style())
	}
	return cmd
}

func (c *cli) doctorCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{Use: "doctor", Short: "Check everything that a failover will need"}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkOutput(cmd, output); err != nil {
			return err
		}
		var doctor op.Doctor
		if err := c.tryAll(cmd.Context(), op.MethodDoctor, &doctor); err != nil {
			return err
		}
		checkup := report.NewCheckup(doctor)
		show := func() error { return report.CheckupText(c.out, checkup, c.style()) }
		if output == "json" {
			show = func() error { return c.printJSON(checkup) }
		}
		err := show()
		if err == nil && checkup.Bad > 0 {
			err = errUnhealthy
		}
		return err
	}
	outputFlag(cmd, &output)
	return cmd
}
