package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Body is what a node consists of where it is no set of namespaces: a virtual machine. The lab has the node's power, its
// ports and its BMC; a body has what runs behind them.
type Body interface {
	// Start powers the body on and returns its process, whose end is the end of the power.
	Start(ctx context.Context) (*exec.Cmd, error)
	// Ready waits until programs can be run in it.
	Ready(ctx context.Context) error
	// Freeze stops its processor, or lets it go on.
	Freeze(ctx context.Context, still bool) error
	// Command is a program in it, not yet started.
	Command(ctx context.Context, argv []string) *exec.Cmd
	// Gone is called once the power is off.
	Gone()
}

// Machines gives the nodes of a lab their bodies.
type Machines struct {
	// Prepare runs on the machine itself, before any room is made, and returns what every room is to know in its
	// environment as MachinesEnv. An error that wraps ErrUnfit says why there can be no such nodes here.
	Prepare func(ctx context.Context, host *Host) (string, error)
	// New makes a node's body, powered off.
	New func(n *Node) (Body, error)
	// Words says what they are, in a few words.
	Words func(prepared string) string
}

// MachinesEnv is the name of what Prepare left for the rooms.
const MachinesEnv = "KEEPONE_LAB_MACHINES"

var machines Machines

// HandleMachines says where bodies come from; call it from an init function of a package that the program imports.
func HandleMachines(m Machines) { machines = m }

// PortName is the room's end of a node's link, a tap where the node has a body.
func PortName(node, link int) string { return portName(node, link) }

// tap makes the node's ports for a body to plug itself into.
func (w *network) tap(node int) error {
	for link := range links {
		bridge, err := netlink.LinkByName(fmt.Sprintf("br%d", link))
		if err != nil {
			return fmt.Errorf("find bridge: %w", err)
		}
		name := portName(node, link)
		tap := &netlink.Tuntap{
			LinkAttrs: netlink.LinkAttrs{Name: name, MasterIndex: bridge.Attrs().Index},
			Mode:      netlink.TUNTAP_MODE_TAP, Flags: unix.IFF_NO_PI | unix.IFF_TAP,
		}
		if err := netlink.LinkAdd(tap); err != nil {
			return fmt.Errorf("make tap %s: %w", name, err)
		}
		// A tap that a program left is persistent, and the bridge's number is not taken as it is made.
		if err := netlink.LinkSetMaster(tap, bridge); err != nil {
			return fmt.Errorf("plug tap %s in: %w", name, err)
		}
		if err := linkUp(name); err != nil {
			return err
		}
	}
	return nil
}

// bootBody needs n.mu. It returns once the body's process runs; Ready is another matter.
func (n *Node) bootBody(ctx context.Context) error {
	if err := n.lab.net.tap(n.Index); err != nil {
		return err
	}
	cmd, err := n.body.Start(ctx)
	if err != nil {
		return err
	}
	life := &nodeLife{cmd: cmd, ended: make(chan struct{})}
	n.setLife(life)
	go func() {
		_ = cmd.Wait() // a guest that powers itself off ends it, and so does a kill
		n.bootMu.Lock()
		if n.life == life {
			n.on.Store(false)
		}
		n.bootMu.Unlock()
		close(life.ended)
	}()
	return nil
}

// cutBody needs n.mu.
func (n *Node) cutBody() error {
	err := n.lab.net.unplug(n.Index)
	n.bootMu.Lock()
	life := n.life
	n.bootMu.Unlock()
	if life != nil {
		_ = life.cmd.Process.Kill()
		select {
		case <-life.ended:
		case <-time.After(cutBound):
			return errors.Join(err, errors.New("its process is not gone"))
		}
	}
	n.setLife(nil)
	n.on.Store(false)
	n.body.Gone()
	return errors.Join(err, n.lab.net.remove(n.Index))
}

// powerOnBody is PowerOn of a node with a body: the power can be cut again while it boots.
func (n *Node) powerOnBody(ctx context.Context) error {
	n.mu.Lock()
	if n.on.Load() && n.InitPID() != 0 {
		n.mu.Unlock()
		return nil
	}
	began := time.Now()
	err := n.cutBody() // what is left of one that powered itself off
	if err == nil {
		n.on.Store(true)
		if err = n.bootBody(ctx); err != nil {
			err = errors.Join(err, n.cutBody())
		}
	}
	n.mu.Unlock()
	if err == nil {
		err = n.body.Ready(ctx)
	}
	if err != nil {
		return fmt.Errorf("power on %s: %w", n.Name, err)
	}
	n.lab.Logf("%s: on, ready after %v", n.Name, time.Since(began).Round(time.Millisecond))
	return nil
}

// AwaitReady waits until programs run in a node that boots by itself, as after its BMC switched it on.
func (n *Node) AwaitReady(ctx context.Context) error {
	if n.body == nil {
		return nil
	}
	return n.body.Ready(ctx)
}

// embody gives the nodes their bodies, where the lab is to have such.
func (l *Lab) embody() error {
	if !l.opts.Machines {
		return nil
	}
	for _, n := range l.nodes {
		var err error
		if n.body, err = machines.New(n); err != nil {
			return fmt.Errorf("make %s: %w", n.Name, err)
		}
	}
	return nil
}

// execBody runs a program in the body; the end of ctx ends the connection to it.
func (n *Node) execBody(ctx context.Context, input io.Reader, argv []string) (string, error) {
	if n.InitPID() == 0 {
		return "", fmt.Errorf("run %s on %s: the node is off", argv[0], n.Name)
	}
	cmd := n.body.Command(ctx, argv)
	cmd.Stdin = input
	out, err := output(ctx, cmd)
	if err != nil {
		err = fmt.Errorf("%s: %s: %w", n.Name, argv[0], err)
	}
	return out, err
}

// prepareMachines makes what the virtual machines start from. Where there can be none, it prints the reason, and all are
// skipped.
func (h *Host) prepareMachines(ctx context.Context, scenarios int) error {
	if machines.Prepare == nil {
		return fmt.Errorf("%w: this program has no virtual machines", ErrUsage)
	}
	prepared, err := machines.Prepare(ctx, h)
	if errors.Is(err, ErrUnfit) {
		fmt.Fprintf(h.Stdio.Out, "%v\nvm: scenarios=%d passed=0 failed=0 skipped=%d accel=none\n", err, scenarios, scenarios)
		return exitCode(0)
	}
	if err != nil {
		return err
	}
	return os.Setenv(MachinesEnv, prepared)
}

// closingMachines prints the last line of a run with virtual machines.
func closingMachines(w io.Writer, results []Result) error {
	passed, failed, skipped := count(results)
	fmt.Fprintf(w, "vm: scenarios=%d passed=%d failed=%d skipped=%d accel=%s\n",
		len(results), passed, failed, skipped, machines.Words(os.Getenv(MachinesEnv)))
	if failed > 0 {
		return errFailed
	}
	return nil
}

func init() {
	Handle(Command{Name: "machines", Help: "machines [-n 3]: keep a lab of virtual machines up until ctrl-C", Outside: keepMachines})
}

// keepMachines is keepUp with virtual machines.
func keepMachines(ctx context.Context, host *Host, args []string) error {
	if err := host.prepareMachines(ctx, 0); err != nil {
		return err
	}
	return host.Enter(ctx, Entry{Command: "up", Args: append([]string{"-machines"}, args...), Work: host.Work, Keep: host.Keep})
}
