package lab

import (
	"context"
	"flag"
	"fmt"
	"path/filepath"
)

// keepUp makes a lab for a person and holds it until ctrl-C.
func keepUp(ctx context.Context, room *Room, args []string) error {
	flags := flag.NewFlagSet("up", flag.ContinueOnError)
	flags.SetOutput(room.Stdio.Err)
	nodes := flags.Int("n", 3, "number of nodes")
	spread := flags.Bool("spread", false, "a mon and an OSD in each of the first three nodes")
	bare := flags.Bool("no-ceph", false, "no Ceph")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%w: %w", ErrUsage, err)
	}
	l, err := New(ctx, room, Options{Nodes: *nodes, CephSpread: *spread, NoCeph: *bare, Log: room.Stdio.Out})
	if err != nil {
		return err
	}
	l.Describe()
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
	return fmt.Sprintf("nsenter -t $(head -1 %s) -m -n -p -u -i -C -- /bin/bash", filepath.Join(n.group(), "cgroup.procs"))
}
