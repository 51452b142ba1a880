package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// bootBound is for making a handful of namespaces and mounts (about 50 ms) on a busy machine.
	bootBound = 10 * time.Second
	// cutBound is for the kernel to kill every process of a node, FUSE connections aborted.
	cutBound = 10 * time.Second
)

// Node is one machine of the lab: namespaces of its own under an init of its own, a cgroup that holds all of its
// processes, two links, and a state folder that survives a power cut.
type Node struct {
	Name  string // n1, n2, ...
	Index int    // from 1
	State string // the folder behind the node's persistent folders

	lab    *Lab
	body   Body       // nil: namespaces
	mu     sync.Mutex // one power change at a time
	life   *nodeLife
	on     atomic.Bool // what the BMC reads; set before a boot has ended
	bootMu sync.Mutex
	execs  atomic.Int64

	offOrders atomic.Int64
}

// nodeLife is one power-on of a node.
type nodeLife struct {
	cmd   *exec.Cmd
	ended chan struct{}
}

func newNode(l *Lab, index int) *Node {
	name := fmt.Sprintf("n%d", index)
	return &Node{Name: name, Index: index, State: filepath.Join(l.Work, "nodes", name), lab: l}
}

// nodeConfig is what a node's init reads from its standard input.
type nodeConfig struct {
	Name   string            `json:"name"`
	Index  int               `json:"index"`
	State  string            `json:"state"`
	Root   string            `json:"root"`
	BinDir string            `json:"bin_dir"`
	Hosts  map[string]string `json:"hosts"`
}

// persistent lists the folders of a node that survive a power cut.
var persistent = []string{
	"/etc/keepone", "/var/lib/keepone", "/var/log", "/var/lib/lxc", "/etc/ceph", "/var/lib/ceph",
	"/etc/corosync", "/var/lib/corosync", "/var/lib/pacemaker",
}

// Path is where the lab finds a file of one of the node's persistent folders, also while the node is off.
func (n *Node) Path(inside string) string {
	return filepath.Join(n.State, "state", inside)
}

// LivePath is where the lab finds any file of a node that is up, such as /run/keepone/instance.
func (n *Node) LivePath(inside string) (string, error) {
	pid := n.InitPID()
	if pid == 0 {
		return "", fmt.Errorf("find %s: %s is off", inside, n.Name)
	}
	if n.body != nil {
		return "", fmt.Errorf("find %s: the files of %s are in a virtual machine", inside, n.Name)
	}
	return fmt.Sprintf("/proc/%d/root%s", pid, inside), nil
}

// Address is the node's address on a link.
func (n *Node) Address(link int) string { return LinkAddress(n.Index, link) }

// IsUp is true while the node is powered, as its BMC would say it.
func (n *Node) IsUp() bool { return n.on.Load() }

// InitPID is the node's init as the room sees it; 0 if the node is off.
func (n *Node) InitPID() int {
	n.bootMu.Lock()
	defer n.bootMu.Unlock()
	if n.life == nil {
		return 0
	}
	return n.life.cmd.Process.Pid
}

func (n *Node) setLife(life *nodeLife) {
	n.bootMu.Lock()
	defer n.bootMu.Unlock()
	n.life = life
}

func (n *Node) group() string { return filepath.Join(n.lab.room.cgroup, n.Name) }

// PowerOn boots the node and returns when its init is ready. A node that is on stays as it is.
func (n *Node) PowerOn(ctx context.Context) error {
	if n.body != nil {
		return n.powerOnBody(ctx)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.InitPID() != 0 {
		return nil
	}
	n.on.Store(true)
	began := time.Now()
	if err := n.boot(ctx); err != nil {
		return errors.Join(fmt.Errorf("power on %s: %w", n.Name, err), n.cut())
	}
	n.lab.Logf("%s: on, ready after %v", n.Name, time.Since(began).Round(time.Millisecond))
	if n.lab.ceph != nil {
		return n.lab.ceph.nodeBooted(ctx, n)
	}
	return nil
}

func (n *Node) boot(ctx context.Context) error {
	for _, dir := range persistent {
		if err := os.MkdirAll(n.Path(dir), 0o755); err != nil {
			return fmt.Errorf("make state folder: %w", err)
		}
	}
	root := filepath.Join(n.State, "root")
	if err := errors.Join(os.MkdirAll(root, 0o755), os.MkdirAll(n.installed(""), 0o755)); err != nil {
		return fmt.Errorf("make root folder: %w", err)
	}
	stdin, ready, err := n.startInit()
	if err != nil {
		return err
	}
	defer ready.Close()
	// Until the init has run itself again its process id may lead nowhere for a moment.
	if err := n.await(ctx, ready, "b"); err != nil {
		stdin.Close()
		return err
	}
	if err := n.lab.net.attach(n.Index, n.InitPID()); err != nil {
		stdin.Close()
		return err
	}
	hosts := map[string]string{}
	for _, other := range n.lab.nodes {
		hosts[other.Name] = other.Address(0)
	}
	c := nodeConfig{Name: n.Name, Index: n.Index, State: n.State, Root: root, BinDir: n.lab.BinDir, Hosts: hosts}
	if err := errors.Join(json.NewEncoder(stdin).Encode(c), stdin.Close()); err != nil {
		return fmt.Errorf("hand over node config: %w", err)
	}
	return n.await(ctx, ready, "ready")
}

// startInit gives birth to the node's init inside its cgroup. The init waits for its config.
func (n *Node) startInit() (io.WriteCloser, *os.File, error) {
	group, err := openChildGroup(n.lab.room.cgroup, n.Name)
	if err != nil {
		return nil, nil, err
	}
	defer group.Close()
	console, err := os.OpenFile(filepath.Join(n.State, "console.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, nil, fmt.Errorf("open console: %w", err)
	}
	defer console.Close()
	ready, readyWrite, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("make pipe: %w", err)
	}
	defer readyWrite.Close()
	cmd := exec.Command(n.lab.room.exe, "node-init")
	cmd.Stdout, cmd.Stderr = console, console
	cmd.ExtraFiles = []*os.File{readyWrite}
	cmd.Env = nodeEnv(n.lab.BinDir)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Setsid:      true,
		UseCgroupFD: true, CgroupFD: int(group.Fd()),
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		ready.Close()
		return nil, nil, fmt.Errorf("make pipe: %w", err)
	}
	if err := cmd.Start(); err != nil {
		ready.Close()
		return nil, nil, fmt.Errorf("start node init: %w", err)
	}
	life := &nodeLife{cmd: cmd, ended: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // a node's init always ends by a kill
		close(life.ended)
	}()
	n.setLife(life)
	return stdin, ready, nil
}

// await reads what the init says next.
func (n *Node) await(ctx context.Context, ready *os.File, want string) error {
	deadline := time.Now().Add(bootBound)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := ready.SetReadDeadline(deadline); err != nil {
		return fmt.Errorf("set boot deadline: %w", err)
	}
	text := make([]byte, len(want))
	if _, err := io.ReadFull(ready, text); err != nil || string(text) != want {
		console, _ := os.ReadFile(filepath.Join(n.State, "console.log"))
		tail := console[max(0, len(console)-500):]
		return fmt.Errorf("boot: init is not ready: %w: %s", errors.Join(err, ctx.Err()), tail)
	}
	return nil
}

// nodeEnv is the environment of everything in a node.
func nodeEnv(binDir string) []string {
	return []string{"PATH=" + binDir + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"}
}

// PowerCut takes the node's power: its links go first, so that nothing answers any more, then every process dies
// at once, and /run with them. The state folder stays, as a disk does. A node that is off stays off.
func (n *Node) PowerCut(context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.InitPID() == 0 {
		n.on.Store(false)
		return nil
	}
	began := time.Now()
	err := n.cut()
	n.lab.Logf("%s: power cut, all gone after %v", n.Name, time.Since(began).Round(time.Millisecond))
	if err != nil {
		return fmt.Errorf("cut power of %s: %w", n.Name, err)
	}
	return nil
}

// cut needs n.mu. It freezes first, so that no process sees the errors of aborted FUSE connections: a machine
// without power does not see them either. Aborting before killing keeps a server's end from waiting for itself.
func (n *Node) cut() error {
	if n.body != nil {
		return n.cutBody()
	}
	err := n.lab.net.unplug(n.Index)
	if n.InitPID() == 0 {
		n.on.Store(false)
		return err
	}
	group := n.group()
	_ = os.WriteFile(filepath.Join(group, "cgroup.freeze"), []byte("1"), 0)
	connections := fuseConnections(groupProcesses(group))
	for minor := range connections {
		_ = os.WriteFile(filepath.Join(fuseControl, fmt.Sprint(minor), "abort"), []byte("1"), 0)
	}
	err = errors.Join(err, removeGroup(group, cutBound))
	select {
	case <-n.life.ended:
		n.setLife(nil)
		n.on.Store(false)
	case <-time.After(cutBound):
		return errors.Join(err, errors.New("the init is not gone"))
	}
	return errors.Join(err, n.lab.net.remove(n.Index), releaseLoops(connections))
}

// Reset is a power cut and a power-on at once.
func (n *Node) Reset(ctx context.Context) error {
	return errors.Join(n.PowerCut(ctx), n.PowerOn(ctx))
}

// Pause stops every process of the node, those of its containers and of namespaces below included, by freezing
// its cgroup: nothing of it runs, its links and its power stay. It returns when the last one stands still.
// A process in an uninterruptible wait (its FUSE server is frozen too) is still as well.
func (n *Node) Pause(ctx context.Context) error {
	n.lab.Logf("%s: pause", n.Name)
	return n.freeze(ctx, "1", "frozen 1")
}

// Continue lets a paused node go on.
func (n *Node) Continue(ctx context.Context) error {
	n.lab.Logf("%s: continue", n.Name)
	return n.freeze(ctx, "0", "frozen 0")
}

func (n *Node) isPaused() bool {
	text, err := os.ReadFile(filepath.Join(n.group(), "cgroup.freeze"))
	return err == nil && strings.TrimSpace(string(text)) == "1"
}

func (n *Node) freeze(ctx context.Context, value, want string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.body != nil {
		return n.body.Freeze(ctx, value == "1")
	}
	group := n.group()
	if err := os.WriteFile(filepath.Join(group, "cgroup.freeze"), []byte(value), 0); err != nil {
		return fmt.Errorf("freeze %s: %w", n.Name, err)
	}
	return poll(ctx, 5*time.Second, n.Name+" "+want, func() bool {
		text, err := os.ReadFile(filepath.Join(group, "cgroup.events"))
		return err == nil && (strings.Contains(string(text), want) || (value == "1" && allStill(groupProcesses(group))))
	})
}
