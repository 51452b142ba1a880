package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// nodeInit is PID 1 of a node. First it runs itself again in a cgroup namespace: that namespace is rooted where
// the process is, and at birth it was still where its parent is.
func nodeInit(args []string) error {
	if os.Getpid() != 1 {
		return ErrNotInRoom
	}
	if len(args) == 0 {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
			return fmt.Errorf("make cgroup namespace: %w", err)
		}
		return syscall.Exec("/proc/self/exe", []string{os.Args[0], "node-init", "boot"}, os.Environ())
	}
	ready := os.NewFile(3, "ready")
	if _, err := ready.WriteString("b"); err != nil {
		return fmt.Errorf("say born: %w", err)
	}
	var c nodeConfig
	if err := json.NewDecoder(os.Stdin).Decode(&c); err != nil {
		return fmt.Errorf("read node config: %w", err)
	}
	if err := c.boot(); err != nil {
		return fmt.Errorf("boot: %w", err)
	}
	ctx := context.Background() // a node's init ends by a power cut only
	s, err := newSupervisor(c)
	if err != nil {
		return err
	}
	if _, err := ready.WriteString("ready"); err != nil {
		return fmt.Errorf("say ready: %w", err)
	}
	ready.Close()
	return s.run(ctx)
}

func (c nodeConfig) boot() error {
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	merged, err := c.overlay()
	if err != nil {
		return err
	}
	if err := c.populate(merged); err != nil {
		return err
	}
	if err := pivot(merged); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(c.Name)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if err := errors.Join(c.identify(), runFolders()); err != nil {
		return err
	}
	limits()
	return c.network()
}

// overlay makes the node's root: the machine's files below, what the node writes in memory, gone with its power. What
// was installed on the node is written there again.
func (c nodeConfig) overlay() (string, error) {
	if err := unix.Mount("tmpfs", c.Root, "tmpfs", 0, "mode=755"); err != nil {
		return "", fmt.Errorf("mount root memory: %w", err)
	}
	paths := map[string]string{}
	for _, name := range []string{"upper", "work", "merged"} {
		paths[name] = filepath.Join(c.Root, name)
		if err := os.Mkdir(paths[name], 0o755); err != nil {
			return "", fmt.Errorf("make root: %w", err)
		}
	}
	if err := os.CopyFS(paths["upper"], os.DirFS(installedIn(c.State))); err != nil {
		return "", fmt.Errorf("install programs: %w", err)
	}
	data := fmt.Sprintf("lowerdir=/,upperdir=%s,workdir=%s", paths["upper"], paths["work"])
	if err := unix.Mount("overlay", paths["merged"], "overlay", 0, data); err != nil {
		return "", fmt.Errorf("mount root: %w", err)
	}
	return paths["merged"], nil
}

// mounting is one mount of a node's root. A bind mount has a source and no type.
type mounting struct {
	source, target, fs, data string
	flags                    uintptr
}

// populate mounts what a node has, and with it nothing foreign: an overlay shows one file system alone.
func (c nodeConfig) populate(root string) error {
	list := []mounting{
		{"proc", "/proc", "proc", "", 0},
		{"sysfs", "/sys", "sysfs", "", 0}, // shows this node's net devices
		{"cgroup2", "/sys/fs/cgroup", "cgroup2", "", 0},
		{"fusectl", fuseControl, "fusectl", "", 0},
		{"/dev", "/dev", "", "", unix.MS_BIND}, // loop devices and fuse are the machine's
		{"devpts", "/dev/pts", "devpts", "newinstance,ptmxmode=0666,mode=0620", 0},
		{"tmpfs", "/dev/shm", "tmpfs", "mode=1777", 0},
		{"tmpfs", "/run", "tmpfs", "mode=755", 0},
		{"tmpfs", "/tmp", "tmpfs", "mode=1777", 0},
		{c.BinDir, c.BinDir, "", "", unix.MS_BIND},
	}
	for _, dir := range persistent {
		list = append(list, mounting{filepath.Join(c.State, "state", dir), dir, "", "", unix.MS_BIND})
	}
	for _, m := range list {
		target := filepath.Join(root, m.target)
		if err := os.MkdirAll(target, 0o755); err != nil {
			return fmt.Errorf("make %s: %w", m.target, err)
		}
		if err := unix.Mount(m.source, target, m.fs, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	return nil
}

// pivot leaves the machine's mounts behind for good.
func pivot(root string) error {
	old := filepath.Join(root, ".old")
	if err := os.Mkdir(old, 0o700); err != nil {
		return fmt.Errorf("make old root: %w", err)
	}
	if err := unix.PivotRoot(root, old); err != nil {
		return fmt.Errorf("change root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return fmt.Errorf("change root: %w", err)
	}
	if err := unix.Unmount("/.old", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave old root: %w", err)
	}
	return os.Remove("/.old")
}

// identify writes the node's names; every node resolves every name alike.
func (c nodeConfig) identify() error {
	names := make([]string, 0, len(c.Hosts))
	for name := range c.Hosts {
		names = append(names, name)
	}
	sort.Strings(names)
	var hosts strings.Builder
	hosts.WriteString("127.0.0.1 localhost\n::1 localhost\n")
	for _, name := range names {
		fmt.Fprintf(&hosts, "%s %s\n", c.Hosts[name], name)
	}
	if err := os.Remove("/etc/hosts"); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("replace hosts: %w", err)
	}
	if err := os.WriteFile("/etc/hosts", []byte(hosts.String()), 0o644); err != nil {
		return fmt.Errorf("write hosts: %w", err)
	}
	if err := os.WriteFile("/etc/hostname", []byte(c.Name+"\n"), 0o644); err != nil {
		return fmt.Errorf("write host name: %w", err)
	}
	return os.MkdirAll("/run/lock", 0o1777)
}

// limits are those of a system service; what can't be raised stays.
func limits() {
	infinite := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	_ = unix.Setrlimit(unix.RLIMIT_MEMLOCK, &infinite)
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
}

// network puts each link under a bridge: containers attach to svc0.
func (c nodeConfig) network() error {
	if err := linkUp("lo"); err != nil {
		return err
	}
	for link := range links {
		mac := net.HardwareAddr{2, 0, 0, byte(link), 0, byte(c.Index)}
		name := fmt.Sprintf("svc%d", link)
		addrs := []string{LinkAddress(c.Index, link) + "/24"}
		if link == 0 {
			addrs = append(addrs, LinkAddress6(c.Index)+"/64")
		}
		if err := makeBridge(name, mac, addrs); err != nil {
			return err
		}
		bridge, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find bridge: %w", err)
		}
		port, err := netlink.LinkByName(fmt.Sprintf("net%d", link))
		if err != nil {
			return fmt.Errorf("find link: %w", err)
		}
		if err := netlink.LinkSetMaster(port, bridge); err != nil {
			return fmt.Errorf("attach link: %w", err)
		}
		if err := netlink.LinkSetUp(port); err != nil {
			return fmt.Errorf("set link up: %w", err)
		}
	}
	return nil
}
