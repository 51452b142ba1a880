package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// fuseControl is where fusectl shows each FUSE connection by the minor number of its mount.
const fuseControl = "/sys/fs/fuse/connections"

// groupProcesses lists the processes of a cgroup and those below it, by the ids of the caller's pid namespace.
func groupProcesses(group string) []int {
	var pids []int
	_ = filepath.WalkDir(group, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || entry.Name() != "cgroup.procs" {
			return nil //nolint:nilerr // a group that went away has no processes
		}
		text, _ := os.ReadFile(path)
		for _, field := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids
}

// fuseConnections finds the FUSE mounts in every mount namespace of the processes.
func fuseConnections(pids []int) map[uint32]bool {
	minors := map[uint32]bool{}
	for _, m := range mountsOf(pids) {
		if m.isFUSE() && m.major == 0 {
			minors[m.minor] = true
		}
	}
	return minors
}

// allStill is true if no task of the processes can run: each is frozen, stopped, dead, or waits uninterruptibly.
// A frozen task shows as sleeping, so only tasks that are on a processor are told apart.
func allStill(pids []int) bool {
	waits := false
	for _, pid := range pids {
		states, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		for _, path := range states {
			text, err := os.ReadFile(path)
			if err != nil {
				continue
			}
			_, rest, _ := strings.Cut(string(text), ") ")
			switch {
			case strings.HasPrefix(rest, "R"):
				return false
			case strings.HasPrefix(rest, "D"):
				waits = true
			}
		}
	}
	return waits
}

// Exec runs a program in all namespaces and in the cgroup of the node, and returns what it printed (4 MB at most).
// When ctx ends, the program and all that it started are killed. On a paused node it waits for that end.
func (n *Node) Exec(ctx context.Context, argv ...string) (string, error) {
	return n.ExecInput(ctx, "", argv...)
}

// ExecInput is Exec with text on the program's standard input.
func (n *Node) ExecInput(ctx context.Context, input string, argv ...string) (string, error) {
	if n.body != nil {
		return n.execBody(ctx, strings.NewReader(input), argv)
	}
	cmd, group, err := n.entering(ctx, argv)
	if err != nil {
		return "", err
	}
	cmd.Stdin = strings.NewReader(input)
	out, err := output(ctx, cmd)
	if err != nil {
		err = fmt.Errorf("%s: %s: %w", n.Name, argv[0], err)
	}
	_ = syscall.Rmdir(group) // stays if the program left a daemon behind, until the power goes
	return out, err
}

// entering is a command that becomes a program in the node once it is started, in a cgroup of its own, so that the
// end of the program can take its children with it.
func (n *Node) entering(ctx context.Context, argv []string) (cmd *exec.Cmd, group string, err error) {
	pid := n.InitPID()
	if pid == 0 {
		return nil, "", fmt.Errorf("run %s on %s: the node is off", argv[0], n.Name)
	}
	group = filepath.Join(n.group(), fmt.Sprintf("exec-%d", n.execs.Add(1)))
	if err := os.Mkdir(group, 0o755); err != nil {
		return nil, "", fmt.Errorf("make cgroup: %w", err)
	}
	cmd = exec.CommandContext(ctx, n.lab.room.exe, append([]string{"enter", group, strconv.Itoa(pid)}, argv...)...)
	cmd.Env = nodeEnv(n.lab.BinDir)
	cmd.Cancel = func() error { return errors.Join(killGroup(group), cmd.Process.Kill()) }
	return cmd, group, nil
}

// enter moves itself into a node's cgroup and becomes a program in all of the node's namespaces. Being born in the
// cgroup is no way: on a paused node the birth would not end, and block every other of the lab's.
func enter(args []string) error {
	if len(args) < 3 {
		return fmt.Errorf("%w: enter CGROUP PID PROGRAM", ErrUsage)
	}
	if err := os.WriteFile(filepath.Join(args[0], "cgroup.procs"), []byte("0"), 0); err != nil {
		return fmt.Errorf("enter cgroup: %w", err)
	}
	path, err := exec.LookPath("nsenter")
	if err != nil {
		return fmt.Errorf("find nsenter: %w", err)
	}
	argv := append([]string{"nsenter", "-t", args[1], "-m", "-n", "-p", "-u", "-i", "-C", "--"}, args[2:]...)
	return fmt.Errorf("run nsenter: %w", syscall.Exec(path, argv, os.Environ()))
}

// BinDir is the product's program folder, at the same path in the node as outside.
func (n *Node) BinDir() string { return n.lab.BinDir }
