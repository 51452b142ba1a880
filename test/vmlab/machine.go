package vmlab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/keepone-ha/keepone/test/lab"
)

const (
	memory = "640" // MB of a guest: systemd, keeponed, the container, and Ceph's client
	// readyBound is for a boot under software emulation on a machine that is busy with two others.
	readyBound = 3 * time.Minute
	// sshBound is how long a connection may take to be set up; a program in the guest has its caller's bound.
	sshBound = "20"
)

// machine is one guest: qemu's process behind the node's ports.
type machine struct {
	node  *lab.Node
	image image
	accel string
	dir   string
}

// New makes the guest of a node; it is a lab.Machines' New.
func newMachine(n *lab.Node) (lab.Body, error) {
	p, err := readPrepared(os.Getenv(lab.MachinesEnv))
	if err != nil {
		return nil, err
	}
	m := &machine{node: n, image: p.Image, accel: p.Accel, dir: filepath.Join(n.State, "vm")}
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	cmd := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", m.image.Disk, m.path("disk"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("make disk: %w: %s", err, out)
	}
	return m, nil
}

func (m *machine) path(name string) string { return filepath.Join(m.dir, name) }

// argv is qemu's. The disk takes no cache of the machine's into account: a power cut of a guest is not one of the machine.
func (m *machine) argv() []string {
	n := m.node
	line := "console=ttyS0 root=/dev/vda rw quiet net.ifnames=0 mitigations=off random.trust_cpu=on systemd.show_status=0 " +
		"audit=0 apparmor=0 selinux=0 nowatchdog panic=0 systemd.unified_cgroup_hierarchy=1 " +
		fmt.Sprintf("lab.name=%s lab.link0=%s/24 lab.link1=%s/24", n.Name, n.Address(0), n.Address(1))
	argv := []string{
		"qemu-system-x86_64", "-name", n.Name, "-nodefaults", "-no-user-config", "-machine", "pc", "-m", memory, "-smp", "1", "-display", "none",
		"-serial", "file:" + m.path("console"), "-qmp", "unix:" + m.path("qmp") + ",server=on,wait=off",
		"-kernel", m.image.Kernel, "-initrd", m.image.Initrd, "-append", line,
		"-drive", "if=none,id=disk,format=qcow2,cache=unsafe,discard=unmap,file=" + m.path("disk"),
		"-device", "virtio-blk-pci,drive=disk", "-device", "virtio-rng-pci",
	}
	for link := range 2 {
		argv = append(argv,
			"-netdev", fmt.Sprintf("tap,id=l%d,ifname=%s,script=no,downscript=no", link, lab.PortName(n.Index, link)),
			"-device", fmt.Sprintf("virtio-net-pci,netdev=l%d,mac=52:54:00:77:%02x:%02x,romfile=", link, link, n.Index))
	}
	return append(argv, accelArgs(m.accel)...)
}

// Start is a lab.Body's.
func (m *machine) Start(context.Context) (*exec.Cmd, error) {
	m.Gone()
	if err := os.WriteFile(m.path("console"), nil, 0o600); err != nil {
		return nil, fmt.Errorf("empty console: %w", err)
	}
	log, err := os.Create(m.path("qemu.log"))
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	defer log.Close()
	argv := m.argv()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start qemu: %w", err)
	}
	return cmd, nil
}

// Ready is a lab.Body's: systemd has said so on the console.
func (m *machine) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyBound)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		text, _ := os.ReadFile(m.path("console"))
		if bytes.Contains(text, []byte("LAB-READY")) {
			return nil
		}
		if bytes.Contains(text, []byte("LAB-FAILED")) {
			return fmt.Errorf("boot guest: %s", text[max(0, len(text)-500):])
		}
		select {
		case <-ctx.Done():
			log, _ := os.ReadFile(m.path("qemu.log"))
			return fmt.Errorf("boot guest: %w; console: %s; qemu: %s", ctx.Err(), text[max(0, len(text)-500):], log)
		case <-tick.C:
		}
	}
}

// Freeze is a lab.Body's.
func (m *machine) Freeze(ctx context.Context, still bool) error {
	order := "cont"
	if still {
		order = "stop"
	}
	return monitor(ctx, m.path("qmp"), order)
}

// Gone is a lab.Body's.
func (m *machine) Gone() { _ = os.Remove(m.path("ssh")) }

// sshArgs reach the guest over its second link. One connection serves all programs: setting one up costs a second under
// software emulation.
func (m *machine) sshArgs() []string {
	return []string{
		"ssh", "-i", m.image.Key, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
		"-o", "ConnectTimeout=" + sshBound, "-o", "BatchMode=yes", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3",
		"-o", "ControlMaster=auto", "-o", "ControlPath=" + m.path("ssh"), "-o", "ControlPersist=600", "root@" + m.node.Address(1),
	}
}

// Command is a lab.Body's.
func (m *machine) Command(ctx context.Context, argv []string) *exec.Cmd {
	words := make([]string, 0, len(argv))
	for _, word := range argv {
		words = append(words, "'"+strings.ReplaceAll(word, "'", `'\''`)+"'")
	}
	line := append(m.sshArgs(), "--", strings.Join(words, " "))
	return exec.CommandContext(ctx, line[0], line[1:]...)
}
