package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/op"
	"github.com/keepone-ha/keepone/pkg/report"
)

func (c *cli) nodeCommand() *cobra.Command {
	return group("node", "Look at nodes, add and remove them", c.nodeListCommand(), c.nodeAddCommand(), c.nodeRemoveCommand())
}

func (c *cli) nodeListCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{Use: "list", Short: "List the nodes"}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkOutput(cmd, output); err != nil {
			return err
		}
		var look op.Look
		if err := c.look(cmd.Context(), op.MethodLook, struct{}{}, &look); err != nil {
			return err
		}
		status := report.Build(look)
		if output == "json" {
			return c.printJSON(struct {
				Schema int           `json:"schema"`
				Nodes  []report.Node `json:"nodes"`
			}{report.Schema, status.Nodes})
		}
		return report.NodesText(c.out, status, c.style())
	}
	outputFlag(cmd, &output)
	return cmd
}

func (c *cli) nodeAddCommand() *cobra.Command {
	var lasts time.Duration
	var quiet bool
	cmd := &cobra.Command{
		Use: "add NODE", Short: "Make the token with which a node joins, once", Args: cobra.ExactArgs(1),
		Long: "The cluster document must name the node first (keepone config apply). The token is shown once, is good for one\n" +
			"join, and ends by itself.",
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var made op.TokenMade
		if err := c.change(cmd.Context(), op.MethodToken, op.Token{Node: core.NodeName(args[0]), For: lasts}, &made); err != nil {
			return err
		}
		c.printf("%s\n", made.Token)
		if !quiet {
			fmt.Fprintf(c.err, "Good once, for %s. On %s: keepone join --server ADDRESS-OF-A-MEMBER, then type it in.\n", lasts, args[0])
		}
		return nil
	}
	cmd.Flags().DurationVar(&lasts, "for", 24*time.Hour, "how `long` the token is good")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "the token alone")
	return cmd
}

func (c *cli) nodeRemoveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "remove NODE", Short: "Remove a member for good", Args: cobra.ExactArgs(1),
		Long: "Refused while the node holds a service or a fence of it is open: drain it, or fence it, first.",
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := c.confirm(fmt.Sprintf("%s will be no member any more: its certificate is void and it must join anew to come back.", args[0])); err != nil {
			return err
		}
		if err := c.change(cmd.Context(), op.MethodLeave, op.Leave{Node: core.NodeName(args[0])}, nil); err != nil {
			return err
		}
		c.printf("Done: %s is no member any more. Take it out of the cluster document too.\n", args[0])
		return nil
	}
	return cmd
}

func (c *cli) drainCommand() *cobra.Command {
	return c.nodeVerb("drain NODE", "Move everything off a node and let it host nothing", core.RequestDrain, "")
}

func (c *cli) undrainCommand() *cobra.Command {
	return c.nodeVerb("undrain NODE", "Let a drained node host services again", core.RequestUndrain, "")
}

// nodeVerb is a request about one node. danger, if any, is what is confirmed first; %s is the node.
func (c *cli) nodeVerb(use, short string, kind core.RequestKind, danger string) *cobra.Command {
	var noWait bool
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.ExactArgs(1)}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if danger != "" {
			if err := c.confirm(fmt.Sprintf(danger, args[0])); err != nil {
				return err
			}
		}
		return c.ask(cmd.Context(), op.Ask{What: kind, Node: core.NodeName(args[0]), NoWait: noWait})
	}
	noWaitFlag(cmd, &noWait)
	return cmd
}

func (c *cli) maintenanceCommand() *cobra.Command {
	var lasts time.Duration
	on := &cobra.Command{
		Use: "on", Short: "Hands off the cluster until an end",
		Long: "While it lasts nothing is started, moved or fenced, and containers go on without leases.",
	}
	on.RunE = func(cmd *cobra.Command, _ []string) error {
		if lasts <= 0 {
			return usage(cmd, errors.New("maintenance needs an end: --for 2h"))
		}
		return c.ask(cmd.Context(), op.Ask{What: core.RequestMaintenance, For: lasts})
	}
	on.Flags().DurationVar(&lasts, "for", 0, "how `long` it lasts, such as 2h")
	off := &cobra.Command{Use: "off", Short: "End maintenance now"}
	off.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.ask(cmd.Context(), op.Ask{What: core.RequestMaintainOff})
	}
	return group("maintenance", "Hands off the cluster for a while", on, off)
}
