package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keepone-ha/keepone/pkg/config"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/op"
)

func (c *cli) configCommand() *cobra.Command {
	return group("config", "Look at the cluster document, check and change it",
		c.configCheckCommand(), c.configDiffCommand(), c.configApplyCommand(), c.configShowCommand())
}

// readDocument reads a document from a file, or from standard input for "-".
func (c *cli) readDocument(path string) (string, error) {
	const most = 1 << 20
	in := c.in
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return "", fmt.Errorf("read cluster document: %w", err)
		}
		defer file.Close()
		in = file
	}
	text, err := io.ReadAll(io.LimitReader(in, most))
	if err != nil {
		return "", fmt.Errorf("read cluster document: %w", err)
	}
	return string(text), nil
}

// checked reads a document and refuses one that can't be used.
func (c *cli) checked(path string) (string, core.Spec, error) {
	text, err := c.readDocument(path)
	if err != nil {
		return "", core.Spec{}, err
	}
	spec, err := config.Parse(text, config.Options{File: path})
	if err != nil {
		return "", core.Spec{}, fmt.Errorf("%w: the document can't be used:\n%w", errRefused, err)
	}
	return text, spec, nil
}

func (c *cli) configCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use: "check FILE", Short: "Check a document without a cluster", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			_, spec, err := c.checked(args[0])
			if err != nil {
				return err
			}
			c.printf("%s is good: cluster %s, %d nodes, %d services.\n", args[0], spec.Cluster, len(spec.Nodes), len(spec.Services))
			return nil
		},
	}
}

func (c *cli) configDiffCommand() *cobra.Command {
	return &cobra.Command{
		Use: "diff FILE", Short: "Say what a document would change, and when", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, _, err := c.differences(cmd.Context(), args[0])
			return err
		},
	}
}

// differences checks a document, and shows what the daemon says that it would change.
func (c *cli) differences(ctx context.Context, path string) (string, op.Changes, error) {
	text, _, err := c.checked(path)
	if err != nil {
		return "", op.Changes{}, err
	}
	var changes op.Changes
	if err := c.look(ctx, op.MethodConfigCheck, op.Config{Text: text, File: path}, &changes); err != nil {
		return "", op.Changes{}, err
	}
	if len(changes.Lines) == 0 {
		c.printf("Nothing changes.\n")
	}
	for _, line := range changes.Lines {
		c.printf("%s\n", line)
	}
	return text, changes, nil
}

func (c *cli) configApplyCommand() *cobra.Command {
	var expect uint64
	cmd := &cobra.Command{
		Use: "apply FILE", Short: "Make a document the cluster's", Args: cobra.ExactArgs(1),
		Long: "Passwords may stand in clear in the file: they are sealed before they leave this node.",
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		text, changes, err := c.differences(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if len(changes.Lines) > 0 && c.terminal() {
			if err := c.confirm("These changes are made for the whole cluster."); err != nil {
				return err
			}
		}
		var applied op.Changes
		request := op.Config{Text: text, File: args[0], Expect: expect}
		if err := c.change(cmd.Context(), op.MethodConfigApply, request, &applied); err != nil {
			return err
		}
		c.printf("Done: the cluster document is version %d.\n", applied.Version)
		return nil
	}
	cmd.Flags().Uint64Var(&expect, "expect", 0, "refuse if the cluster has another `version` by now")
	return cmd
}

func (c *cli) configShowCommand() *cobra.Command {
	var document bool
	cmd := &cobra.Command{
		Use: "show", Short: "Show every setting, defaults included",
		Long: "With --document it is the document as it was applied, passwords sealed: edit that and apply it.",
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var have core.Document
		if err := c.look(cmd.Context(), op.MethodConfig, struct{}{}, &have); err != nil {
			return err
		}
		if document {
			c.printf("%s\n", strings.TrimRight(have.Text, "\n"))
			return nil
		}
		spec, err := config.Parse(have.Text, config.Options{File: "cluster document", Sealed: true})
		if err != nil {
			return err
		}
		c.printf("# Version %d, digest %s.\n%s", have.Version, have.Digest, config.Effective(spec))
		return nil
	}
	cmd.Flags().BoolVar(&document, "document", false, "the document itself, passwords sealed")
	return cmd
}
