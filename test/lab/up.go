package lab

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// keepUp makes a lab for a person and holds it until ctrl-C.
func keepUp(ctx context.Context, room *Room, args []string) error {
	flags := flag.NewFlagSet("up", flag.ContinueOnError)
	flags.SetOutput(room.Stdio.Err)
	nodes := flags.Int("n", 3, "number of nodes")
	spread := flags.Bool("spread", false, "a mon and an OSD in each of the first three nodes")
	virtual := flags.Bool("machines", false, "virtual machines for nodes (used by machines)")
	bare := flags.Bool("no-ceph", false, "no Ceph")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%w: %w", ErrUsage, err)
	}
	l, err := New(ctx, room, Options{Nodes: *nodes, CephSpread: *spread, NoCeph: *bare, Machines: *virtual, Log: room.Stdio.Out})
	if err != nil {
		return err
	}
	l.Describe()
	if err := l.writeShell(); err != nil {
		return errors.Join(err, l.Down(context.WithoutCancel(ctx)))
	}
	<-ctx.Done()
	fmt.Fprintln(room.Stdio.Out, "taking the lab down")
	return l.Down(context.WithoutCancel(ctx))
}

// Describe says how to reach what is up.
func (l *Lab) Describe() {
	out := l.room.Stdio.Out
	fmt.Fprintf(out, "Ceph: %s\nwork folder: %s\n", l.CephWords(), l.Work)
	for _, n := range l.nodes {
		b := n.BMC()
		fmt.Fprintf(out, "%s  %s %s  BMC %s (ipmitool -I lanplus -C %d -H %s -U %s -P %s power status)\n    shell: %s\n",
			n.Name, n.Address(0), n.Address(1), b.Address, CipherSuite, b.Address, b.User, b.Password, l.shellHint(n))
	}
	fmt.Fprintln(out, "the lab is up; ctrl-C takes it down")
}

// shellHint finds the node's init from outside. The room has no view of the machine's process ids, but the node's
// cgroup, whose first process is its init, is at the same path everywhere.
func (l *Lab) shellHint(n *Node) string {
	if n.body != nil {
		return fmt.Sprintf("sh %s %d", filepath.Join(l.Work, shellScript), n.Index)
	}
	return fmt.Sprintf("nsenter -t $(head -1 %s) -m -n -p -u -i -C -- /bin/bash", filepath.Join(n.group(), "cgroup.procs"))
}

// shellScript leads a person outside of the room to a node with a body: its argument is the node's number.
const shellScript = "shell"

func (l *Lab) writeShell() error {
	if !l.opts.Machines {
		return nil
	}
	var text strings.Builder
	fmt.Fprintf(&text, "case $1 in\n")
	for _, n := range l.nodes {
		argv := n.body.Command(context.Background(), nil).Args
		argv = slices.DeleteFunc(argv, func(word string) bool { return word == "" || word == "--" })
		fmt.Fprintf(&text, "%d) exec nsenter -t $(head -1 %s) -n -m %s ;;\n", n.Index,
			filepath.Join(l.room.cgroup, "room", "cgroup.procs"), strings.Join(argv, " "))
	}
	text.WriteString("*) echo 'usage: shell NUMBER' >&2; exit 2 ;;\nesac\n")
	return writeFile(filepath.Join(l.Work, shellScript), text.String(), 0o700)
}
