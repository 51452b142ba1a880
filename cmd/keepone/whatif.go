package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/op"
	"github.com/keepone-ha/keepone/pkg/report"
	"github.com/keepone-ha/keepone/pkg/whatif"
)

func (c *cli) whatIfCommand() *cobra.Command {
	var output, lose, service string
	var bmcDead bool
	cmd := &cobra.Command{
		Use: "what-if --lose NODE", Short: "What would be done if a node were lost now, changing nothing",
		Long: "The rules that decide in earnest are asked about a copy of what the leader knows and sees now: what would be done, with\n" +
			"which proof, about how long it would take, and what would stand in the way. It ends with 1 if a service would stay down.",
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkOutput(cmd, output); err != nil {
			return err
		}
		if lose == "" {
			return usage(cmd, errors.New("which node? --lose NODE"))
		}
		var look op.Look
		if err := c.look(cmd.Context(), op.MethodLook, struct{}{}, &look); err != nil {
			return err
		}
		if !look.Facts.Quorum {
			return errNoQuorum // only a leader sees what it would decide by
		}
		answer, err := report.NewWhatIf(look, whatif.Question{Lose: core.NodeName(lose), BMCDead: bmcDead, Service: core.ServiceName(service)})
		if err != nil {
			return err
		}
		show := func() error { return report.WhatIfText(c.out, answer, c.style()) }
		if output == "json" {
			show = func() error { return c.printJSON(answer) }
		}
		err = show()
		for _, s := range answer.Services {
			if err == nil && s.Missing != "" {
				err = errUnhealthy
			}
		}
		return err
	}
	outputFlag(cmd, &output)
	cmd.Flags().StringVar(&lose, "lose", "", "the `node` that loses its power")
	cmd.Flags().BoolVar(&bmcDead, "bmc-dead", false, "its BMC does not answer either")
	cmd.Flags().StringVar(&service, "service", "", "of this `service` alone")
	return cmd
}
