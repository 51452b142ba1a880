package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Running is a program that goes on in a node, as one that a person started at a terminal.
type Running struct {
	name  string
	group string
	out   *boundedBuffer
	ended chan struct{}
	err   error // once ended
}

// Launch starts a program as Exec does, and returns while it runs. When ctx ends, it and all that it started are
// killed; whoever launches it calls Wait.
func (n *Node) Launch(ctx context.Context, argv ...string) (*Running, error) {
	cmd, group, err := n.entering(ctx, argv)
	if err != nil {
		return nil, err
	}
	cmd.WaitDelay = time.Second
	r := &Running{name: n.Name + ": " + argv[0], group: group, out: &boundedBuffer{limit: 4 << 20}, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = r.out, r.out
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", r.name, err)
	}
	go func() {
		defer close(r.ended)
		r.err = cmd.Wait()
		_ = syscall.Rmdir(group)
	}()
	return r, nil
}

// Said is what it printed so far.
func (r *Running) Said() string { return r.out.String() }

// Interrupt sends SIGINT to the program, as ctrl-C does, and not to the one that brought it into the node.
func (r *Running) Interrupt() error {
	for _, pid := range groupProcesses(r.group) {
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err == nil && strings.TrimSpace(string(comm)) != "nsenter" {
			return syscall.Kill(pid, syscall.SIGINT)
		}
	}
	return fmt.Errorf("%s: interrupt: it does not run", r.name)
}

// Wait returns the program's exit code. One that does not end in its bound is killed.
func (r *Running) Wait(bound time.Duration) (int, error) {
	select {
	case <-r.ended:
	case <-time.After(bound):
		_ = killGroup(r.group)
		<-r.ended
		return -1, fmt.Errorf("%s: not ended within %v", r.name, bound)
	}
	var exit *exec.ExitError
	if errors.As(r.err, &exit) && exit.Exited() {
		return exit.ExitCode(), nil
	}
	return 0, r.err
}
