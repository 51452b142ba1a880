package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/keepone-ha/keepone/pkg/config"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/drive/corosync"
	"github.com/keepone-ha/keepone/pkg/drive/pacemaker"
	"github.com/keepone-ha/keepone/pkg/op"
	"github.com/keepone-ha/keepone/pkg/setup"
)

const corosyncConf = "/etc/corosync/corosync.conf"

func (c *cli) pacemakerCommand() *cobra.Command {
	return group("pacemaker", "Have Pacemaker run keepone's services", c.pacemakerSetupCommand())
}

// pacemakerFlags are what setup is called with.
type pacemakerFlags struct {
	style, format, document string
	check                   bool
	cib, corosync           string
	options                 setup.Options
}

func (c *cli) pacemakerSetupCommand() *cobra.Command {
	var f pacemakerFlags
	cmd := &cobra.Command{
		Use: "setup", Short: "Print a whole configuration for Pacemaker and corosync, or check theirs",
		Long: "It is made from the cluster document. With --check it changes nothing either: it names every difference of the live\n" +
			"CIB and of " + corosyncConf + ", and ends with 1 if there are any. Call it with the options that the setup was made with.",
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return c.pacemakerSetup(cmd, f) }
	flags := cmd.Flags()
	flags.StringVar(&f.style, "style", string(setup.StylePromotable), "`how` a service is cut: promotable (volume, file system, container), or one resource")
	flags.StringVar(&f.format, "format", "pcs", "pcs, xml (a CIB) or corosync (corosync.conf)")
	flags.StringVar(&f.document, "document", "", "a cluster document in a `file`, - for standard input (default: the cluster's own)")
	flags.BoolVar(&f.options.PerNode, "fence-per-node", false, "one fence device for each node instead of one for all")
	flags.StringVar(&f.options.PasswordScript, "bmc-password-script", "",
		"a `file` that prints the BMCs' password: lets Pacemaker fence past keepone if that fails, as a second level")
	flags.BoolVar(&f.check, "check", false, "compare with what Pacemaker and corosync have")
	flags.StringVar(&f.cib, "cib", "", "check this `file` instead of the live CIB")
	flags.StringVar(&f.corosync, "corosync", "", "check this `file` instead of the node's corosync.conf")
	return cmd
}

func (c *cli) pacemakerSetup(cmd *cobra.Command, f pacemakerFlags) error {
	f.options.Style = setup.Style(f.style)
	switch {
	case f.options.Style != setup.StylePromotable && f.options.Style != setup.StyleOne:
		return usage(cmd, fmt.Errorf("unknown style %q: promotable or one", f.style))
	case f.format != "pcs" && f.format != "xml" && f.format != "corosync":
		return usage(cmd, fmt.Errorf("unknown format %q: pcs, xml or corosync", f.format))
	case !f.check && (f.cib != "" || f.corosync != ""):
		return usage(cmd, fmt.Errorf("--cib and --corosync are for --check"))
	}
	spec, err := c.pacemakerSpec(cmd.Context(), f.document)
	if err != nil {
		return err
	}
	node, err := c.places()
	if err != nil {
		return err
	}
	f.options.Run, f.options.Volumes = node.RunDir, node.VolumesDir
	if f.options.Volumes == "" { // no node file
		f.options.Volumes = filepath.Join(node.DataDir, "volumes")
	}
	made := setup.New(spec, f.options)
	switch {
	case f.check:
		return c.pacemakerCheck(cmd.Context(), made, f)
	case f.format == "corosync":
		c.printf("%s", made.Corosync.Text())
	case f.format == "xml":
		c.printf("%s", made.XML())
	default:
		c.printf("%s", made.PCS())
	}
	return nil
}

// pacemakerSpec is the document's of a file, or the cluster's own.
func (c *cli) pacemakerSpec(ctx context.Context, file string) (core.Spec, error) {
	if file != "" {
		_, spec, err := c.checked(file)
		return spec, err
	}
	var have core.Document
	if err := c.look(ctx, op.MethodConfig, struct{}{}, &have); err != nil {
		return core.Spec{}, err
	}
	return config.Parse(have.Text, config.Options{File: "cluster document", Sealed: true})
}

// pacemakerCheck names every difference. Files are checked for what they are, the live ones both.
func (c *cli) pacemakerCheck(ctx context.Context, made setup.Setup, f pacemakerFlags) error {
	live := f.cib == "" && f.corosync == ""
	var found []string
	if live || f.cib != "" {
		cib, err := readCIB(ctx, f.cib)
		if err != nil {
			return err
		}
		found = append(found, made.Differs(cib)...)
	}
	if live || f.corosync != "" {
		differences, err := corosyncDiffers(ctx, made.Corosync, f.corosync)
		if err != nil {
			return err
		}
		found = append(found, differences...)
	}
	if len(found) == 0 {
		c.printf("Nothing differs.\n")
		return nil
	}
	for _, line := range found {
		c.printf("%s\n", line)
	}
	c.printf("\nDifferences: %d. `keepone pacemaker setup` prints what is right; pcs changes it.\n", len(found))
	return errUnhealthy
}

// readCIB reads a file, or asks Pacemaker.
func readCIB(ctx context.Context, file string) (setup.CIB, error) {
	var text []byte
	var err error
	if file != "" {
		text, err = os.ReadFile(file)
	} else {
		text, err = pacemaker.ReadCIB(ctx)
	}
	if err != nil {
		return setup.CIB{}, err
	}
	return setup.ParseCIB(text)
}

// corosyncDiffers looks at a file, or at the node's own and at what runs.
func corosyncDiffers(ctx context.Context, want setup.Corosync, file string) ([]string, error) {
	path := file
	if path == "" {
		path = corosyncConf
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read corosync.conf: %w", err)
	}
	conf, err := setup.ParseConf(text)
	if err != nil {
		return nil, err
	}
	found := want.Differs(conf)
	if file != "" {
		return found, nil
	}
	runs, err := corosync.ReadTotem(ctx)
	if err != nil {
		return append(found, err.Error()), nil
	}
	return append(found, want.Runs(runs.Token, runs.Consensus)...), nil
}
