// Package lab makes whole keepone clusters out of namespaces on one machine: nodes with two links each, a real
// Ceph on memstore, one real IPMI BMC (ipmi_sim) per node whose power control really cuts the node, the payload that
// a service carries, and corosync and Pacemaker for whoever wants them. Everything lives in a "room": a pid, mount,
// network, uts and ipc namespace of its own, so that the death of the program that made it is the death of all that
// it made.
package lab

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
)

// Stdio is what a program of the lab reads and writes.
type Stdio struct {
	Out, Err io.Writer
}

// Command is one verb of the lab program. Exactly one of Inside and Outside is set.
type Command struct {
	Name, Help string
	// Inside runs as a process of a fresh room; its context ends with SIGINT or SIGTERM to the outer program.
	Inside func(ctx context.Context, room *Room, args []string) error
	// Outside runs on the machine itself and opens rooms with Enter.
	Outside func(ctx context.Context, host *Host, args []string) error
}

var commands = map[string]Command{}

// Handle adds a verb (demo, bench); call it from an init function of a package that the program imports.
func Handle(c Command) {
	if _, twice := commands[c.Name]; twice || (c.Inside == nil) == (c.Outside == nil) {
		panic("lab command " + c.Name + ": registered twice or without exactly one of Inside and Outside")
	}
	commands[c.Name] = c
}

func init() {
	Handle(Command{Name: "up", Help: "up [-n 3] [-spread]: keep a lab up until ctrl-C", Inside: keepUp})
	Handle(Command{Name: "test", Help: "test [-case glob] [-json file]: run the cases", Outside: runTests})
	Handle(Command{Name: "sweep", Help: "sweep: remove what dead labs left behind", Outside: func(context.Context, *Host, []string) error { return nil }})
	Handle(Command{Name: "case", Help: "case NAME RESULT: run one case (used by test)", Inside: runCaseInside})
}

// ErrUsage marks an error of the command line.
var ErrUsage = errors.New("usage")

// Main runs the lab program and returns its exit code: 0 done, 1 failed, 2 usage. args[0] is the program's name.
func Main(ctx context.Context, args []string, stdio Stdio) int {
	err := dispatch(ctx, args[1:], stdio)
	var code exitCode
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	case errors.Is(err, ErrUsage):
		fmt.Fprintf(stdio.Err, "keepone-lab: %v\n", err)
		return 2
	default:
		fmt.Fprintf(stdio.Err, "keepone-lab: %v\n", err)
		return 1
	}
}

// exitCode is the end of a room that already said what was wrong.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("the room ended with code %d", int(c)) }

// dispatch tells apart the hidden verbs, which the lab starts itself, and those of a person.
func dispatch(ctx context.Context, args []string, stdio Stdio) error {
	if len(args) > 0 {
		switch args[0] {
		case "room-init":
			return roomInit(args[1])
		case "room-run":
			return roomRun(ctx, args[1], stdio)
		case "node-init":
			return nodeInit(args[1:])
		case "enter":
			return enter(args[1:])
		case "chassis":
			return chassis(args[1:], stdio)
		}
	}
	return public(ctx, args, stdio)
}

func public(ctx context.Context, args []string, stdio Stdio) error {
	host := &Host{Stdio: stdio}
	flags := flag.NewFlagSet("keepone-lab", flag.ContinueOnError)
	flags.SetOutput(stdio.Err)
	flags.StringVar(&host.BinDir, "bin", "", "folder with keeponed, keepone, keepone-guard (default: the lab program's own)")
	flags.StringVar(&host.Work, "work", "", "work folder (default: a fresh one below the temporary folder)")
	flags.BoolVar(&host.Keep, "keep", false, "keep the work folder")
	flags.Usage = func() { usage(stdio.Err, flags) }
	common, rest := splitFlags(flags, args)
	if err := flags.Parse(append(common, rest...)); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return fmt.Errorf("%w: %w", ErrUsage, err)
	}
	command, known := commands[flags.Arg(0)]
	if !known {
		usage(stdio.Err, flags)
		return fmt.Errorf("%w: no verb %q", ErrUsage, flags.Arg(0))
	}
	if err := host.prepare(); err != nil {
		return err
	}
	if command.Outside != nil {
		return command.Outside(ctx, host, flags.Args()[1:])
	}
	return host.Enter(ctx, Entry{Command: command.Name, Args: flags.Args()[1:], Work: host.Work, Keep: host.Keep})
}

// splitFlags takes the lab's own flags out of args, wherever they stand: before the verb or among its own.
func splitFlags(own *flag.FlagSet, args []string) (common, rest []string) {
	for i := 0; i < len(args); i++ {
		name, _, valued := strings.Cut(strings.TrimLeft(args[i], "-"), "=")
		if !strings.HasPrefix(args[i], "-") || own.Lookup(name) == nil {
			rest = append(rest, args[i])
			continue
		}
		common = append(common, args[i])
		if name != "keep" && !valued && i+1 < len(args) {
			i++
			common = append(common, args[i])
		}
	}
	return common, rest
}

func usage(w io.Writer, flags *flag.FlagSet) {
	names := make([]string, 0, len(commands))
	for name := range commands {
		names = append(names, name)
	}
	sort.Strings(names)
	fmt.Fprintln(w, "usage: keepone-lab VERB [-bin dir] [-work dir] [-keep] [flags of the verb]")
	for _, name := range names {
		fmt.Fprintf(w, "  %s\n", commands[name].Help)
	}
	flags.PrintDefaults()
}

// orders is what an outer process hands to the room that it makes, and the room to its program.
type orders struct {
	Command  string   `json:"command"`
	Args     []string `json:"args"`
	Work     string   `json:"work"`
	BinDir   string   `json:"bin_dir"`
	Exe      string   `json:"exe"`
	Cgroup   string   `json:"cgroup"`
	OuterNet uint64   `json:"outer_net"` // inode of the network namespace that the room must not be in
}

func (o orders) encode() string {
	text, err := json.Marshal(o)
	if err != nil {
		panic("encode orders: " + err.Error()) // strings and numbers always encode
	}
	return string(text)
}

func decodeOrders(text string) (orders, error) {
	var o orders
	if err := json.NewDecoder(strings.NewReader(text)).Decode(&o); err != nil {
		return orders{}, fmt.Errorf("decode orders: %w", err)
	}
	return o, nil
}

// self is the path of the running program, also after its file was replaced by a newer build.
func self() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find own program: %w", err)
	}
	return path, nil
}
