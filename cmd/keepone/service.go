package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/op"
	"github.com/keepone-ha/keepone/pkg/report"
)

func (c *cli) serviceCommand() *cobra.Command {
	return group("service", "Look at services, start and stop them",
		c.serviceListCommand(),
		c.serviceVerb("start", "Start a service, or let a blocked one try again at once", core.RequestStart),
		c.serviceStopCommand(),
		c.serviceVerb("restart", "Restart a service on its node", core.RequestRestart),
	)
}

// noWaitFlag adds --no-wait.
func noWaitFlag(cmd *cobra.Command, noWait *bool) {
	cmd.Flags().BoolVar(noWait, "no-wait", false, "end as soon as the request is committed")
}

func (c *cli) serviceVerb(verb, short string, kind core.RequestKind) *cobra.Command {
	var noWait bool
	cmd := &cobra.Command{Use: verb + " SERVICE", Short: short, Args: cobra.ExactArgs(1)}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.ask(cmd.Context(), op.Ask{What: kind, Service: core.ServiceName(args[0]), NoWait: noWait})
	}
	noWaitFlag(cmd, &noWait)
	return cmd
}

func (c *cli) serviceListCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{Use: "list", Short: "List the services"}
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
				Schema   int              `json:"schema"`
				Services []report.Service `json:"services"`
			}{report.Schema, status.Services})
		}
		return report.ServicesText(c.out, status, c.style())
	}
	outputFlag(cmd, &output)
	return cmd
}

func (c *cli) switchoverCommand() *cobra.Command {
	var to string
	var noWait bool
	cmd := &cobra.Command{
		Use: "switchover SERVICE", Short: "Move a service whose holder is healthy", Args: cobra.ExactArgs(1),
		Long: "Switchover stops the service on its holder, waits until that has let go of the volume, and starts it on another\n" +
			"node. If the holder is lost, say failover instead.",
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.ask(cmd.Context(), op.Ask{
			What: core.RequestSwitchover, Service: core.ServiceName(args[0]), Node: core.NodeName(to), NoWait: noWait,
		})
	}
	cmd.Flags().StringVar(&to, "to", "", "the `node` to move it to (default: the best one)")
	noWaitFlag(cmd, &noWait)
	return cmd
}

func (c *cli) failoverCommand() *cobra.Command {
	var to string
	var noWait bool
	cmd := &cobra.Command{
		Use: "failover SERVICE", Short: "Take a service from a holder that is lost or hangs", Args: cobra.ExactArgs(1),
		Long: "Failover asks the holder for nothing: it is fenced, then the service starts on another node. A cluster with quorum\n" +
			"does this by itself; say it for a holder that lives but is of no use.",
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := c.confirm(fmt.Sprintf("The holder of %s will be fenced, which may mean powered off, and %s starts on another node.", args[0], args[0])); err != nil {
			return err
		}
		return c.ask(cmd.Context(), op.Ask{
			What: core.RequestFailover, Service: core.ServiceName(args[0]), Node: core.NodeName(to), NoWait: noWait,
		})
	}
	cmd.Flags().StringVar(&to, "to", "", "the `node` to start it on (default: the best one)")
	noWaitFlag(cmd, &noWait)
	return cmd
}
