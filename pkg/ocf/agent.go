package ocf

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/pkg/clock"
)

// Agent is a resource agent: what it is called, what it takes, what it can do.
type Agent struct {
	Name    string
	Version string
	Short   string
	Long    string
	Params  []Param
	Actions []Action
}

// Action is one row of what an agent can do. Several monitors may stand in the table, one for each depth and role;
// the first one's Do serves all of them.
type Action struct {
	Verb     Verb
	Timeout  time.Duration // advertised
	Interval time.Duration // advertised, of a monitor
	Depth    int           // of a monitor: OCF_CHECK_LEVEL
	Role     Role
	Do       func(ctx context.Context, c Call) (Code, error) // nil: parameters are checked, and that is all
}

// Call is one call of an agent, beside its parameters.
type Call struct {
	Verb     Verb
	Instance string        // the resource's name, without a clone instance's number
	Depth    int           // OCF_CHECK_LEVEL
	Interval time.Duration // 0: not recurring; of a monitor: a probe
	log      io.Writer
}

// Note writes one line for the log: Pacemaker keeps what an agent says on its standard error.
func (c Call) Note(format string, args ...any) {
	fmt.Fprintf(c.log, "keepone %s: %s\n", c.Verb, oneLine(fmt.Sprintf(format, args...)))
}

// Probe reports whether this is a monitor that asks what is here, before anything is known to be.
func (c Call) Probe() bool { return c.Verb == Monitor && c.Interval == 0 }

// Env is what the process was given.
type Env struct {
	Args     []string // without the program's name
	Getenv   func(string) string
	Out, Err io.Writer
}

// Process is the Env of this process.
func Process() Env {
	return Env{Args: os.Args[1:], Getenv: os.Getenv, Out: os.Stdout, Err: os.Stderr}
}

// ReasonPrefix starts the line on standard error that Pacemaker shows as the exit reason.
const ReasonPrefix = "ocf-exit-reason:"

// Run does what the one argument says and returns the exit code. The context that an action gets ends a little
// before Pacemaker's own timeout, so that the agent can still say why it failed.
func (a *Agent) Run(ctx context.Context, env Env) Code {
	if len(env.Args) != 1 {
		a.usage(env.Err)
		return ErrArgs
	}
	verb := Verb(env.Args[0])
	if verb == "usage" || verb == "help" {
		a.usage(env.Out)
		return Success
	}
	action, known := a.action(verb)
	if !known {
		a.usage(env.Err)
		return ErrUnimplemented
	}
	code, err := a.do(ctx, action, env)
	if err != nil {
		code = CodeOf(err)
		fmt.Fprintf(env.Err, "%s%s\n", ReasonPrefix, oneLine(err.Error()))
	}
	return code
}

func (a *Agent) do(ctx context.Context, action Action, env Env) (Code, error) {
	if action.Verb == MetaData {
		return Success, a.WriteMetadata(env.Out)
	}
	if err := a.read(env.Getenv); err != nil {
		return ErrConfigured, err
	}
	if action.Do == nil {
		return Success, nil
	}
	ctx, cancel := clock.WithTimeout(ctx, bound(action, env.Getenv))
	defer cancel()
	return action.Do(ctx, newCall(action.Verb, env))
}

func newCall(verb Verb, env Env) Call {
	depth, _ := strconv.Atoi(env.Getenv("OCF_CHECK_LEVEL")) // absent: 0
	instance, _, _ := strings.Cut(env.Getenv("OCF_RESOURCE_INSTANCE"), ":")
	return Call{
		Verb: verb, Instance: instance, Depth: depth,
		Interval: milliseconds(env.Getenv("OCF_RESKEY_CRM_meta_interval")), log: env.Err,
	}
}

// The slack is for ending and saying why: a tenth of the timeout, within bounds that suit a busy machine.
const (
	minSlack = 200 * time.Millisecond
	maxSlack = 3 * time.Second
)

// bound is the timeout that Pacemaker set for this action, less the slack. By hand there is none: the advertised one.
func bound(action Action, getenv func(string) string) time.Duration {
	timeout := action.Timeout
	if set := milliseconds(getenv("OCF_RESKEY_CRM_meta_timeout")); set > 0 {
		timeout = set
	}
	return timeout - min(max(timeout/10, minSlack), maxSlack, timeout/2)
}

// milliseconds reads one of Pacemaker's times: 0 if it is absent, or nothing that can be meant.
func milliseconds(text string) time.Duration {
	const most = 365 * 24 * time.Hour // far below where a Duration ends: an overflow would leave a stop no time at all
	ms, err := strconv.ParseInt(text, 10, 64)
	if err != nil || ms < 0 || ms > most.Milliseconds() {
		return 0
	}
	return time.Duration(ms) * time.Millisecond
}

func (a *Agent) action(verb Verb) (Action, bool) {
	for _, action := range a.Actions {
		if action.Verb == verb {
			return action, true
		}
	}
	return Action{}, false
}

func (a *Agent) usage(w io.Writer) {
	var verbs []string
	seen := map[Verb]bool{}
	for _, action := range a.Actions {
		if !seen[action.Verb] {
			verbs = append(verbs, string(action.Verb))
		}
		seen[action.Verb] = true
	}
	fmt.Fprintf(w, "usage: %s {%s}\nThe resource agent ocf:keepone:%s takes its parameters from OCF_RESKEY_* variables.\n",
		a.Name, strings.Join(verbs, "|"), a.Name)
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
