package main

import (
	"context"
	"errors"
	"time"

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
		answer, err := c.whatIf(cmd.Context(), whatif.Question{Lose: core.NodeName(lose), BMCDead: bmcDead, Service: core.ServiceName(service)})
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

// whatIf asks by what the leader sees; a new one is given the time to hear from everybody.
func (c *cli) whatIf(ctx context.Context, q whatif.Question) (report.WhatIf, error) {
	const every, tries = 500 * time.Millisecond, 8 // a leader has settled after 2 s
	for try := 1; ; try++ {
		var look op.Look
		if err := c.look(ctx, op.MethodLook, struct{}{}, &look); err != nil {
			return report.WhatIf{}, err
		}
		if !look.Facts.Quorum {
			return report.WhatIf{}, errNoQuorum // only a leader sees what it would decide by
		}
		answer, err := report.NewWhatIf(look, q)
		if !errors.Is(err, whatif.ErrEarly) || try == tries {
			return answer, err
		}
		select {
		case <-ctx.Done():
			return answer, ctx.Err()
		case <-time.After(every):
		}
	}
}
