package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"

	"github.com/keepone-ha/keepone/pkg/activate"
	"github.com/keepone-ha/keepone/pkg/drive/lxc"
	"github.com/keepone-ha/keepone/pkg/drive/netif"
	"github.com/keepone-ha/keepone/pkg/release"
	"github.com/keepone-ha/keepone/pkg/worker"
)

// helperActivate carries one Plan out. Its failure has gone to the caller as a line; it is no error of the process.
func helperActivate(ctx context.Context, stdin io.Reader, stdout io.Writer) error {
	in := bufio.NewReader(stdin)
	var plan worker.Plan
	if err := readLine(in, &plan); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own binary: %w", err)
	}
	_ = activate.Run(ctx, plan, activate.Parts{
		Lease:     guardLease{plan.Run},
		Mapper:    activate.Spawner{Argv: []string{self, "helper", "map"}},
		Disk:      activate.KernelDisk{},
		Container: containers{},
		Caller:    activate.NewStream(in, stdout),
	})
	return nil
}

type containers struct{}

func (containers) Start(ctx context.Context, plan worker.Plan) (initPID, haltSignal int, err error) {
	// The last container's link may outlive it: the kernel takes a dead network namespace apart in its own time.
	if err := netif.Remove(plan.Container.Link); err != nil {
		return 0, 0, err
	}
	started, err := lxc.Start(ctx, lxc.Options{
		Dir: plan.Volume.Mount, RunDir: plan.Volume.RunDir,
		Network: plan.Container.Network, Link: plan.Container.Link, Cgroup: plan.Cgroup,
	})
	return started.InitPID, started.HaltSignal, err
}

func (containers) Kill(ctx context.Context, init release.Process) error {
	return activate.KillInit(ctx, init)
}
