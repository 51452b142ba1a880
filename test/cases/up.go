package cases

import (
	"context"
	"flag"
	"fmt"

	"github.com/keepone-ha/keepone/test/lab"
)

func init() {
	lab.Handle(lab.Command{Name: "cluster", Help: "cluster [-n 3] [-spread] [-manager keepone|pacemaker]: form a cluster and keep it up until ctrl-C", Inside: keepCluster})
}

// formUnder makes the cluster under a manager.
func formUnder(ctx context.Context, l *lab.Lab, manager string) (*cluster, error) {
	switch manager {
	case "keepone":
		return form(ctx, l)
	case "pacemaker":
		m, err := formManaged(ctx, l, managedKind{style: stylePromotable})
		if err != nil {
			return nil, err
		}
		return m.cluster, nil
	}
	return nil, fmt.Errorf("%w: no manager %q: keepone or pacemaker", lab.ErrUsage, manager)
}

// keepCluster is `make lab`: a formed cluster for a person.
func keepCluster(ctx context.Context, room *lab.Room, args []string) error {
	flags := flag.NewFlagSet("cluster", flag.ContinueOnError)
	flags.SetOutput(room.Stdio.Err)
	nodes := flags.Int("n", 3, "number of nodes")
	spread := flags.Bool("spread", false, "a mon and an OSD in each of the first three nodes")
	manager := flags.String("manager", "keepone", "keepone or pacemaker")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%w: %w", lab.ErrUsage, err)
	}
	l, err := lab.New(ctx, room, lab.Options{Nodes: *nodes, CephSpread: *spread})
	if err != nil {
		return err
	}
	defer func() { _ = l.Down(context.WithoutCancel(ctx)) }()
	c, err := formUnder(ctx, l, *manager)
	if err != nil {
		return err
	}
	out, err := c.keepone(ctx, c.Node(1), "status")
	if err != nil {
		return err
	}
	fmt.Fprintln(room.Stdio.Out, out)
	fmt.Fprintf(room.Stdio.Out, "On a node: PATH=%s:$PATH keepone status, keepone switchover %s, …\n", c.BinDir, service)
	l.Describe()
	<-ctx.Done()
	fmt.Fprintln(room.Stdio.Out, "taking the cluster down")
	return nil
}
