package main

import (
	"context"
	"fmt"
	"strconv"
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
	cmd.AddCommand(confirm, c.fenceListCommand(), c.fenceShowCommand(), c.fenceCheckCommand())
	return cmd
}

// fences fetches those that are kept.
func (c *cli) fences(ctx context.Context) (report.Fences, error) {
	var look op.Look
	if err := c.look(ctx, op.MethodLook, struct{}{}, &look); err != nil {
		return report.Fences{}, err
	}
	return report.NewFences(look), nil
}

func (c *cli) fenceListCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{Use: "list", Short: "List what was fenced, the newest last"}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkOutput(cmd, output); err != nil {
			return err
		}
		list, err := c.fences(cmd.Context())
		if err != nil {
			return err
		}
		if output == "json" {
			return c.printJSON(list)
		}
		return report.FencesText(c.out, list, c.style())
	}
	outputFlag(cmd, &output)
	return cmd
}

func (c *cli) fenceShowCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "show ID", Short: "One fence: its order, its attempts, each proof, and why that is enough or what is missing", Args: cobra.ExactArgs(1),
		Long: "The ids are those of keepone fence list. What is enough is judged by the cluster document of now.",
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkOutput(cmd, output); err != nil {
			return err
		}
		id, err := strconv.ParseUint(args[0], 10, 64)
		if err != nil {
			return usage(cmd, fmt.Errorf("%q is no id: keepone fence list shows them", args[0]))
		}
		list, err := c.fences(cmd.Context())
		if err != nil {
			return err
		}
		one, err := list.One(id)
		if err != nil {
			return err
		}
		if output == "json" {
			return c.printJSON(one)
		}
		return report.FenceText(c.out, one.Fences[0], c.style())
	}
	outputFlag(cmd, &output)
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
