package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/op"
	"github.com/keepone-ha/keepone/pkg/report"
)

func (c *cli) fenceCommand() *cobra.Command {
	cmd := c.nodeVerb("fence NODE", "Fence a node: make sure that it can do no more harm", core.RequestFence,
		"%s will be fenced, which may mean powered off; what it runs is started elsewhere.")
	confirm := c.nodeVerb("confirm NODE", "Vouch that a silent node is off, when nothing else can prove it", core.RequestFenceConfirm,
		"You vouch that %s is powered off, as you have seen with your own eyes. If it still runs, data may be lost. Your name is kept for ever.")
	cmd.AddCommand(confirm, c.fenceCheckCommand())
	return cmd
}

func (c *cli) fenceCheckCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "check", Short: "Try now whether each node could be fenced",
		Long: "Every node tries every other node's BMC (login, privilege, power, identity) and its own right to cut storage clients off.\n" +
			"Nothing is powered off. It ends with 1 if some node can't be fenced.",
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkOutput(cmd, output); err != nil {
			return err
		}
		var found op.FenceCheck
		if err := c.tryAll(cmd.Context(), op.MethodFenceCheck, &found); err != nil {
			return err
		}
		check := report.NewFenceCheck(found)
		show := func() error { return report.FenceCheckText(c.out, check, c.style()) }
		if output == "json" {
			show = func() error { return c.printJSON(check) }
		}
		err := show()
		if err == nil && check.Bad > 0 {
			err = errUnhealthy
		}
		return err
	}
	outputFlag(cmd, &output)
	return cmd
}

// tryAll is for calls that have every node try its BMCs and storage: that takes a daemon up to 11 s where a BMC is dead.
func (c *cli) tryAll(ctx context.Context, method string, answer any) error {
	const bound = 15 * time.Second
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	return c.daemon.Call(ctx, method, struct{}{}, nil, answer)
}
