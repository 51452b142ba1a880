package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/keepone-ha/keepone/pkg/core"
)

// methodRecover makes a cluster of this node and those that it names, without a quorum.
const methodRecover = "recover"

func (c *cli) recoverCommand() *cobra.Command {
	var keep []string
	cmd := &cobra.Command{
		Use: "recover", Short: "Go on with what is left, once a majority is gone for ever",
		Long: "Epochs are lifted above those of the images, and every holder counts as unfenced: each must be fenced, or\n" +
			"confirmed off, before its service goes on.",
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		with := ""
		if len(keep) > 0 {
			with = " and " + strings.Join(keep, ", ")
		}
		if err := c.confirm("The cluster goes on with this node" + with + " alone. Any other member that still lives must never " +
			"start keepone again: two clusters would be one too many."); err != nil {
			return err
		}
		request := struct{ Keep []core.NodeName }{}
		for _, name := range keep {
			request.Keep = append(request.Keep, core.NodeName(name))
		}
		if err := c.change(cmd.Context(), methodRecover, request, nil); err != nil {
			return err
		}
		c.printf("Done: see keepone status for what must be fenced or confirmed.\n")
		return nil
	}
	cmd.Flags().StringArrayVar(&keep, "keep", nil, "another `node` that is left, once for each")
	return cmd
}
