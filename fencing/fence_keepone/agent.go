package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/keepone-ha/keepone/pkg/api"
	"github.com/keepone-ha/keepone/pkg/config"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/drive/ipmi"
	"github.com/keepone-ha/keepone/pkg/fence"
	"github.com/keepone-ha/keepone/pkg/fence/relay"
	"github.com/keepone-ha/keepone/pkg/op"
	"github.com/keepone-ha/keepone/pkg/pki"
	"github.com/keepone-ha/keepone/pkg/version"
)

// Exit codes of the FenceAgentAPI.
const (
	exitOK    = 0 // of status: the node is on
	exitError = 1
	exitOff   = 2 // of status alone: the node is off
)

var (
	errOff    = errors.New("the node is off") // status alone
	errNoNode = errors.New("the cluster document has no node of this name with a BMC; see keepone node list")
)

// agent carries out one call.
type agent struct {
	options
	file     config.NodeFile
	out, err io.Writer

	// What tests put in another's place.
	dial    func(ctx context.Context, addr netip.AddrPort) (net.Conn, error) // to peers; nil: TCP
	openBMC func(core.BMCSpec) (bmc, error)
	quorate func(context.Context) error
}

// bmc is what the agent does to a BMC by itself. *ipmi.BMC is one.
type bmc interface {
	fence.BMC
	fence.Starter
	Close() error
}

// run parses, acts, and maps what came of it to the exit code.
func run(ctx context.Context, args []string, in io.Reader, out, stderr io.Writer) int {
	a := &agent{out: out, err: stderr, quorate: corosyncQuorate}
	a.openBMC = a.openSealed
	var ignored []string
	var err error
	if len(args) > 0 {
		a.options, err = parseArgs(args)
	} else {
		a.options, ignored, err = parseStdin(in)
	}
	for _, line := range ignored {
		a.say("ignored: %s", line)
	}
	if err == nil {
		err = a.act(ctx)
	}
	return a.exit(err)
}

func (a *agent) exit(err error) int {
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errOff):
		return exitOff
	case !a.Quiet:
		fmt.Fprintf(a.err, "fence_keepone: %v\n", err)
	}
	return exitError
}

// say tells a step, if they are wanted.
func (a *agent) say(format string, args ...any) {
	if a.Verbose && !a.Quiet {
		fmt.Fprintf(a.err, "fence_keepone: "+format+"\n", args...)
	}
}

func (a *agent) act(ctx context.Context) error {
	switch {
	case a.Help:
		printHelp(a.out)
		return nil
	case a.Version:
		fmt.Fprintln(a.out, "fence_keepone", version.Version)
		return nil
	case a.Action == ActionMetadata:
		printMetadata(a.out)
		return nil
	case a.Action == ActionStart, a.Action == ActionStop:
		return nil
	}
	if a.file.Name == "" {
		file, err := config.LoadNode(a.NodeFile)
		if err != nil {
			return err
		}
		a.file = file
	}
	switch a.Action {
	case ActionOff, ActionReboot:
		return a.fence(ctx)
	case ActionOn:
		return a.switchOn(ctx)
	case ActionStatus:
		return a.status(ctx)
	case ActionList, ActionListStatus:
		return a.list(ctx)
	case ActionMonitor:
		_, err := a.nodes(ctx)
		return err
	case ActionValidateAll:
		return a.validate()
	case ActionMetadata, ActionStart, ActionStop:
	}
	return nil
}

// validate checks what can be checked without asking anybody.
func (a *agent) validate() error {
	_, err := pki.Load(a.file.DataDir)
	return err
}

// fence is off and reboot. A reboot's second half is nobody's concern but the node's (FenceAgentAPI): its failure is told and
// does not count.
func (a *agent) fence(ctx context.Context) error {
	if err := sleep(ctx, a.Delay); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, a.PowerTimeout)
	defer cancel()
	fenced, err := a.off(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "%s is fenced, proof %s of %s scope: %s\n", a.Plug, fenced.Proof, fenced.Scope, fenced.Words)
	if a.Action != ActionReboot || fenced.Proof != core.ProofBMCOff {
		return nil // what came back is on; and what a person took off is for a person to switch on
	}
	if err := a.powerOn(ctx, true); err != nil && !a.Quiet {
		fmt.Fprintf(a.err, "fence_keepone: %s is off, and was not switched on: %v\n", a.Plug, err)
	}
	return nil
}

func (a *agent) switchOn(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, a.PowerTimeout)
	defer cancel()
	return a.powerOn(ctx, false)
}

// powerOn asks the daemon, and without one the BMC itself: no harm comes of a node that is on. Later: the daemon may answer
// before it is.
func (a *agent) powerOn(ctx context.Context, later bool) error {
	err := a.callDaemon(ctx, op.MethodPower, op.Power{Node: a.Plug, On: true, Later: later}, nil)
	if !relay.NoAnswer(err) {
		return err
	}
	a.say("%v; asking the BMC", err)
	return a.withBMC(a.Plug, func(b bmc, guid string) error { return fence.PowerOn(ctx, b, guid) })
}

func (a *agent) status(ctx context.Context) error {
	on, err := a.power(ctx, a.Plug)
	switch {
	case err != nil:
		return err
	case !on:
		fmt.Fprintln(a.out, "Status: OFF")
		return errOff
	}
	fmt.Fprintln(a.out, "Status: ON")
	return nil
}

// power reads a node's power through the daemon, or from the BMC itself.
func (a *agent) power(ctx context.Context, name core.NodeName) (on bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*a.ShellTimeout) // half of it for each
	defer cancel()
	daemon, stop := context.WithTimeout(ctx, a.ShellTimeout)
	defer stop()
	var powered op.Powered
	err = a.callDaemon(daemon, op.MethodPower, op.Power{Node: name}, &powered)
	if !relay.NoAnswer(err) {
		return powered.On, err
	}
	a.say("%v; asking the BMC", err)
	err = a.withBMC(name, func(b bmc, guid string) error {
		state, err := fence.ReadPower(ctx, b, guid)
		on = state == ipmi.On
		return err
	})
	return on, err
}

// list prints a line for each node that can be fenced: name and alias, of which there is none; with list-status, power too.
func (a *agent) list(ctx context.Context) error {
	names, err := a.nodes(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		line := string(name) + ","
		if a.Action == ActionListStatus {
			line += "," + a.powerWord(ctx, name)
		}
		fmt.Fprintln(a.out, line)
	}
	return nil
}

func (a *agent) powerWord(ctx context.Context, name core.NodeName) string {
	on, err := a.power(ctx, name)
	switch {
	case err != nil:
		return "UNKNOWN"
	case on:
		return "ON"
	}
	return "OFF"
}

// nodes are those with a BMC, from the daemon or from the settings that it left.
func (a *agent) nodes(ctx context.Context) ([]core.NodeName, error) {
	ctx, cancel := context.WithTimeout(ctx, a.ShellTimeout)
	defer cancel()
	var look struct {
		State struct {
			Spec struct{ Nodes []core.NodeSpec }
		}
	} // of op.Look: the rest is of no use here
	err := a.callDaemon(ctx, op.MethodLook, nil, &look)
	specs := look.State.Spec.Nodes
	if relay.NoAnswer(err) {
		settings, cached := fence.LoadSettings(a.file.DataDir)
		if cached != nil {
			return nil, fmt.Errorf("%w; and %w", err, cached)
		}
		a.say("%v; taking the settings that it left", err)
		specs, err = settings.Nodes, nil
	}
	var names []core.NodeName
	for _, n := range specs {
		if n.BMC != nil {
			names = append(names, n.Name)
		}
	}
	return names, err
}

func (a *agent) socket() string { return filepath.Join(a.file.RunDir, "keeponed.sock") }

func (a *agent) callDaemon(ctx context.Context, method string, req, resp any) error {
	return api.CallLocal(ctx, a.socket(), method, req, func(line json.RawMessage) {
		var p op.Progress
		if json.Unmarshal(line, &p) == nil {
			a.say("%s", p.Text)
		}
	}, resp)
}

// withBMC opens a node's BMC by the settings that the daemon left.
func (a *agent) withBMC(name core.NodeName, do func(b bmc, guid string) error) error {
	settings, err := fence.LoadSettings(a.file.DataDir)
	if err != nil {
		return err
	}
	spec := settings.Node(name)
	if spec == nil || spec.BMC == nil {
		return fmt.Errorf("find %s: %w", name, errNoNode)
	}
	b, err := a.openBMC(*spec.BMC)
	if err != nil {
		return err
	}
	defer b.Close() // its session ends either way
	return do(b, spec.BMC.GUID)
}

// openSealed opens a BMC whose password only this node's key opens.
func (a *agent) openSealed(spec core.BMCSpec) (bmc, error) {
	id, err := pki.Load(a.file.DataDir)
	if err != nil {
		return nil, err
	}
	return ipmi.New(ipmi.Config{
		Address: spec.Address, User: spec.User, CipherSuite: spec.CipherSuite,
		Password: func() (string, error) { return id.Unseal(spec.Password) },
	})
}

// sleep waits, or returns why ctx ended.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
