package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/keepone-ha/keepone/pkg/api"
	"github.com/keepone-ha/keepone/pkg/config"
	"github.com/keepone-ha/keepone/pkg/report"
	"github.com/keepone-ha/keepone/pkg/version"
)

// The exit codes, the same for every command.
const (
	exitDone     = 0
	exitFailed   = 1 // tried, and certainly not brought to its end
	exitUsage    = 2
	exitRefused  = 3 // certainly not done
	exitUnknown  = 4 // may have been done
	exitNoQuorum = 5 // no quorum, or no daemon: certainly not done
)

// Errors that carry an exit code of their own.
var (
	errUsage     = errors.New("usage")
	errFailed    = errors.New("failed")
	errRefused   = errors.New("refused")
	errGoesOn    = errors.New("goes on")
	errNoQuorum  = errors.New("no quorum")
	errDeclined  = errors.New("not confirmed")
	errUnhealthy = errors.New("something is wrong")
)

// Daemon is the daemon of this node.
type Daemon interface {
	// Call asks it. Lines before the last go to onLine, the last is decoded into answer.
	Call(ctx context.Context, method string, request any, onLine func(json.RawMessage), answer any) error
}

type stdio struct {
	in  io.Reader
	out io.Writer
	err io.Writer
}

// cli is what every command has.
type cli struct {
	stdio
	daemon   Daemon
	nodeFile string
	runDir   string // of the flag, else of the node file
	yes      bool
}

// run runs one command and returns the exit code.
func run(ctx context.Context, args []string, io stdio) int {
	c := &cli{stdio: io}
	c.daemon = socket{c}
	return c.run(ctx, args)
}

func (c *cli) run(ctx context.Context, args []string) int {
	root := c.command()
	root.SetArgs(args)
	root.SetIn(c.in)
	root.SetOut(c.out)
	root.SetErr(c.err)
	err := root.ExecuteContext(ctx)
	if err != nil && !errors.Is(err, errUnhealthy) {
		fmt.Fprintf(c.err, "keepone: %v\n", err)
	}
	return exitCode(err)
}

// exitCode maps what went wrong, once for all commands.
func exitCode(err error) int {
	var remote *api.Error
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errGoesOn):
		return exitUnknown
	case errors.Is(err, errNoQuorum), errors.Is(err, api.ErrNoDaemon):
		return exitNoQuorum
	case errors.Is(err, errRefused), errors.Is(err, errDeclined), errors.Is(err, api.ErrNoAccess):
		return exitRefused
	case errors.Is(err, errFailed), errors.Is(err, errUnhealthy), errors.Is(err, report.ErrNoEvent), errors.Is(err, report.ErrNoFence):
		return exitFailed
	case errors.As(err, &remote):
		return remoteCode(remote.Code)
	case errors.Is(err, errUsage):
		return exitUsage
	}
	return exitFailed
}

func remoteCode(code api.Code) int {
	switch code {
	case api.CodeRefused:
		return exitRefused
	case api.CodeNotLeader, api.CodeNoQuorum:
		return exitNoQuorum
	case api.CodeUnknown:
		return exitUnknown
	case api.CodeInternal:
	}
	return exitFailed
}

func (c *cli) command() *cobra.Command {
	root := &cobra.Command{
		Use: "keepone", Short: "Keep exactly one OpenNebula front-end running on a cluster",
		Version:      fmt.Sprintf("%s (%s)", version.Version, version.Commit),
		SilenceUsage: true, SilenceErrors: true,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usage(cmd, err) })
	root.PersistentFlags().StringVar(&c.nodeFile, "node-file", config.NodePath, "this node's `file`")
	root.PersistentFlags().StringVar(&c.runDir, "run-dir", "", "the daemon's run `directory` (default: as the node file says)")
	root.PersistentFlags().BoolVarP(&c.yes, "yes", "y", false, "do not ask, also without a terminal")
	root.AddCommand(c.statusCommand(), c.historyCommand(), c.explainCommand(), c.doctorCommand(), c.whatIfCommand())
	root.AddCommand(c.serviceCommand(), c.switchoverCommand(), c.failoverCommand())
	root.AddCommand(c.nodeCommand(), c.drainCommand(), c.undrainCommand(), c.fenceCommand(), c.maintenanceCommand())
	root.AddCommand(c.configCommand(), c.volumeCommand(), c.initCommand(), c.joinCommand(), c.recoverCommand(), c.pacemakerCommand())
	strictArgs(root)
	return root
}

// strictArgs makes every argument error a usage error, and an unknown subcommand one too.
func strictArgs(cmd *cobra.Command) {
	check := cmd.Args
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if check == nil {
			check = cobra.NoArgs
		}
		if err := check(cmd, args); err != nil {
			return usage(cmd, err)
		}
		return nil
	}
	for _, sub := range cmd.Commands() {
		strictArgs(sub)
	}
}

func usage(cmd *cobra.Command, err error) error {
	return fmt.Errorf("%w; %w: %s", err, errUsage, cmd.UseLine())
}

// group is a command that has subcommands only.
func group(use, short string, subs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(subs...)
	return cmd
}

// places returns the node file, with the default places where there is none: a node whose file is lost can
// still be asked.
func (c *cli) places() (config.NodeFile, error) {
	node, err := config.LoadNode(c.nodeFile)
	if errors.Is(err, fs.ErrNotExist) {
		node, err = config.NodeFile{RunDir: "/run/keepone", DataDir: "/var/lib/keepone"}, nil
	}
	if c.runDir != "" {
		node.RunDir = c.runDir
		return node, nil
	}
	return node, err
}

// socket is the daemon behind its unix socket.
type socket struct{ c *cli }

func (s socket) Call(ctx context.Context, method string, request any, onLine func(json.RawMessage), answer any) error {
	node, err := s.c.places()
	if err != nil {
		return err
	}
	return api.CallLocal(ctx, filepath.Join(node.RunDir, "keeponed.sock"), method, request, onLine, answer)
}

// look is for reading calls, which are bounded.
func (c *cli) look(ctx context.Context, method string, request, answer any) error {
	const bound = 10 * time.Second // a daemon asks its leader within 1.5 s
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	return c.daemon.Call(ctx, method, request, nil, answer)
}

func (c *cli) printf(format string, args ...any) { fmt.Fprintf(c.out, format, args...) }

// printJSON writes a kept interface.
func (c *cli) printJSON(v any) error {
	e := json.NewEncoder(c.out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("write answer: %w", err)
	}
	return nil
}

// style is how text is to look on the output.
func (c *cli) style() report.Style {
	style := report.Style{Now: time.Now()}
	file, ok := c.out.(*os.File)
	if !ok {
		return style
	}
	size, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return style
	}
	style.Color = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	style.Width = int(size.Col)
	return style
}

// outputFlag adds -o to a command that knows text and JSON.
func outputFlag(cmd *cobra.Command, output *string) {
	cmd.Flags().StringVarP(output, "output", "o", "text", "`format`: text or json")
}

func checkOutput(cmd *cobra.Command, output string) error {
	if output != "text" && output != "json" {
		return usage(cmd, fmt.Errorf("unknown output %q: text or json", output))
	}
	return nil
}
