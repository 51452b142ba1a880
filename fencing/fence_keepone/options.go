package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/pkg/config"
	"github.com/keepone-ha/keepone/pkg/core"
)

// Action is what the agent is asked to do.
type Action string

// The actions of the FenceAgentAPI, and those that cluster software asks for besides.
const (
	ActionOn          Action = "on"
	ActionOff         Action = "off"
	ActionReboot      Action = "reboot"
	ActionStatus      Action = "status"
	ActionMonitor     Action = "monitor"
	ActionList        Action = "list"
	ActionListStatus  Action = "list-status"
	ActionMetadata    Action = "metadata"
	ActionValidateAll Action = "validate-all"
	ActionStart       Action = "start"
	ActionStop        Action = "stop"
)

// actions are all of them in the order of the metadata.
var actions = []Action{
	ActionOn, ActionOff, ActionReboot, ActionStatus, ActionMonitor, ActionList, ActionListStatus, ActionMetadata,
	ActionValidateAll, ActionStart, ActionStop,
}

// options are what one call was told.
type options struct {
	Action       Action
	Plug         core.NodeName
	Port         core.NodeName // deprecated name of plug
	Nodename     core.NodeName // fallback for plug
	Delay        time.Duration
	AloneDelay   time.Duration
	PowerTimeout time.Duration
	ShellTimeout time.Duration
	LoginTimeout time.Duration
	NodeFile     string
	Verbose      bool
	Quiet        bool
	Version      bool
	Help         bool
}

// The kinds of content that the metadata's schema knows and that we use.
const (
	kindString  = "string"
	kindSecond  = "second"
	kindBoolean = "boolean"
	kindSelect  = "select"
)

// option is one row of the table that parsing, help and metadata are made from.
type option struct {
	name       string // on stdin; with hyphens in place of underscores on the command line
	short      string // letter on the command line, empty if none
	kind       string
	value      string // what the value is called, empty for a boolean
	fallback   string // default
	required   bool
	deprecated bool
	obsoletes  string
	choices    []string
	help       string
	set        func(o *options, value string) error
}

// table has every option. Defaults of the timeouts: a fence by a daemon takes one to twenty seconds (a hard power-off, a dead
// BMC tried three times), alone it takes two election bounds and alone_delay more; and power_timeout must end before
// Pacemaker's own stonith-timeout, 60 s by default, so that the reason is told.
var table = []option{
	{name: "action", short: "o", kind: kindString, value: "action", fallback: "reboot", required: true, help: "Fencing action", set: setAction},
	{name: "plug", short: "n", kind: kindString, value: "node", obsoletes: "port", help: "Name of the node, as the cluster document has it", set: node(func(o *options) *core.NodeName { return &o.Plug })},
	{name: "port", kind: kindString, value: "node", deprecated: true, help: "Name of the node", set: node(func(o *options) *core.NodeName { return &o.Port })},
	{name: "nodename", short: "N", kind: kindString, value: "node", help: "Name of the node, if plug is not given", set: node(func(o *options) *core.NodeName { return &o.Nodename })},
	{name: "method", short: "m", kind: kindSelect, value: "method", fallback: "onoff", choices: []string{"onoff"}, help: "Method to fence: off is proven before on, never a power cycle", set: setMethod},
	{name: "delay", short: "d", kind: kindSecond, value: "seconds", fallback: "0", help: "Wait so long before off and reboot", set: second(func(o *options) *time.Duration { return &o.Delay })},
	{name: "alone_delay", kind: kindSecond, value: "seconds", fallback: "5", help: "Wait so long besides before a node is powered off without a keepone leader", set: second(func(o *options) *time.Duration { return &o.AloneDelay })},
	{name: "power_timeout", kind: kindSecond, value: "seconds", fallback: "45", help: "Bound of on, off and reboot, without delay; keep it below Pacemaker's stonith-timeout", set: second(func(o *options) *time.Duration { return &o.PowerTimeout })},
	{name: "shell_timeout", kind: kindSecond, value: "seconds", fallback: "5", help: "Bound of an answer of the daemon or a BMC", set: second(func(o *options) *time.Duration { return &o.ShellTimeout })},
	{name: "login_timeout", kind: kindSecond, value: "seconds", fallback: "5", help: "Bound of reaching another node's daemon", set: second(func(o *options) *time.Duration { return &o.LoginTimeout })},
	{name: "node_file", kind: kindString, value: "file", fallback: config.NodePath, help: "This node's file", set: func(o *options, v string) error { o.NodeFile = v; return nil }},
	{name: "verbose", short: "v", kind: kindBoolean, help: "Show each step", set: boolean(func(o *options) *bool { return &o.Verbose })},
	{name: "quiet", short: "q", kind: kindBoolean, help: "Print no errors", set: boolean(func(o *options) *bool { return &o.Quiet })},
	{name: "version", short: "V", kind: kindBoolean, help: "Print the version and exit", set: boolean(func(o *options) *bool { return &o.Version })},
	{name: "help", short: "h", kind: kindBoolean, help: "Print the options and exit", set: boolean(func(o *options) *bool { return &o.Help })},
}

// errUsage is a call that can't be understood; its words say what to write.
var errUsage = errors.New("wrong use")

func usage(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errUsage, fmt.Sprintf(format, args...))
}

func setAction(o *options, value string) error {
	a := Action(strings.ToLower(value))
	switch a {
	case "meta-data": // as OCF has it
		a = ActionMetadata
	case "enable":
		a = ActionOn
	case "disable":
		a = ActionOff
	}
	if !slices.Contains(actions, a) {
		return usage("action %q is not one of %v", value, actions)
	}
	o.Action = a
	return nil
}

func setMethod(_ *options, value string) error {
	if value != "onoff" {
		return usage("method %q: only onoff can prove that a node was off; leave method away", value)
	}
	return nil
}

// maxSeconds bounds each time: a fence that takes longer than an hour is a typing error.
const maxSeconds = 3600

func second(field func(*options) *time.Duration) func(*options, string) error {
	return func(o *options, value string) error {
		n, err := strconv.ParseUint(strings.TrimSuffix(value, "s"), 10, 32)
		if err != nil || n > maxSeconds {
			return usage("%q is no number of seconds from 0 to %d", value, maxSeconds)
		}
		*field(o) = time.Duration(n) * time.Second
		return nil
	}
}

func boolean(field func(*options) *bool) func(*options, string) error {
	return func(o *options, value string) error {
		switch strings.ToLower(value) {
		case "", "1", "yes", "on", "true":
			*field(o) = true
		case "0", "no", "off", "false":
			*field(o) = false
		default:
			return usage("%q is neither 1 nor 0", value)
		}
		return nil
	}
}

// node takes any name: Pacemaker always gives nodename, which need not be keepone's when plug is given. See checkNode.
func node(field func(*options) *core.NodeName) func(*options, string) error {
	return func(o *options, value string) error {
		*field(o) = core.NodeName(value)
		return nil
	}
}

func checkNode(name core.NodeName) error {
	if len(name) > 63 || strings.ContainsFunc(string(name), func(c rune) bool {
		return c != '-' && (c < 'a' || c > 'z') && (c < '0' || c > '9')
	}) {
		return usage("%q is no node name of keepone's (lower case letters, digits, hyphens): give plug, or translate names with pcmk_host_map", name)
	}
	return nil
}

// defaults are the options of a call that says nothing.
func defaults() options {
	var o options
	for _, row := range table {
		if row.fallback != "" {
			if err := row.set(&o, row.fallback); err != nil {
				panic(err) // the table is wrong
			}
		}
	}
	return o
}

// assign sets one option by a row of the table, and names it in an error.
func (o *options) assign(row option, value string) error {
	if err := row.set(o, value); err != nil {
		return fmt.Errorf("option %s: %w", row.name, err)
	}
	return nil
}

// finish checks what belongs together: plug, port and nodename are the same, in this order.
func (o options) finish() (options, error) {
	for _, name := range []core.NodeName{o.Port, o.Nodename} {
		if o.Plug == "" {
			o.Plug = name
		}
	}
	if o.Help || o.Version {
		return o, nil
	}
	switch o.Action {
	case ActionOn, ActionOff, ActionReboot, ActionStatus:
		if o.Plug == "" {
			return o, usage("action %s needs a node: plug=NAME on stdin, --plug=NAME on the command line", o.Action)
		}
	case ActionMonitor, ActionList, ActionListStatus, ActionMetadata, ActionValidateAll, ActionStart, ActionStop:
	}
	if o.PowerTimeout == 0 || o.ShellTimeout == 0 || o.LoginTimeout == 0 {
		return o, usage("power_timeout, shell_timeout and login_timeout must be above 0: no answer is waited for without an end")
	}
	return o, checkNode(o.Plug)
}

// maxInput bounds what is read from stdin.
const maxInput = 64 << 10

// parseStdin reads lines of option=value (FenceAgentAPI). An option that is not known is ignored, as the API demands; a line
// that is none is too, and ignored tells it. Of an option that is given twice the last one counts.
func parseStdin(in io.Reader) (o options, ignored []string, err error) {
	o = defaults()
	text, err := io.ReadAll(io.LimitReader(in, maxInput+1))
	if err != nil {
		return o, nil, fmt.Errorf("read options from stdin: %w", err)
	}
	if len(text) > maxInput {
		return o, nil, usage("more than %d bytes on stdin", maxInput)
	}
	lines := bufio.NewScanner(strings.NewReader(string(text)))
	lines.Buffer(nil, maxInput+1)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			ignored = append(ignored, fmt.Sprintf("line %d is not option=value", n)) // not its text: it may be a secret
			continue
		}
		if name == "option" { // deprecated name of action
			name = "action"
		}
		for _, row := range table {
			if row.name != name {
				continue
			}
			if err := o.assign(row, value); err != nil {
				return o, ignored, err
			}
		}
	}
	o, err = o.finish()
	return o, ignored, err
}

// parseArgs reads the command line: -o off, -ooff, --action=off or --action off. What is not known is an error.
func parseArgs(args []string) (options, error) {
	o := defaults()
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		row, value, given, err := find(arg)
		if err != nil {
			return o, err
		}
		if !given && row.kind != kindBoolean {
			if len(args) == 0 {
				return o, usage("%s needs a value: its %s", arg, row.value)
			}
			value, args = args[0], args[1:]
		}
		if err := o.assign(row, value); err != nil {
			return o, err
		}
	}
	return o.finish()
}

// find splits an argument into its option and the value that came with it.
func find(arg string) (row option, value string, given bool, err error) {
	long, isLong := strings.CutPrefix(arg, "--")
	name, value, given := strings.Cut(long, "=")
	for _, row := range table {
		switch {
		case isLong && row.name == strings.ReplaceAll(name, "-", "_"):
			return row, value, given, nil
		case isLong || row.short == "" || !strings.HasPrefix(arg, "-"+row.short):
		case row.kind == kindBoolean && len(arg) > 2:
		default:
			rest := arg[2:]
			return row, strings.TrimPrefix(rest, "="), rest != "", nil
		}
	}
	return option{}, "", false, usage("%q is not known; --help lists the options", arg)
}
