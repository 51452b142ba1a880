// Package lxc starts a service's container, whose whole directory is on the volume, and runs commands in it. It is
// called from short-lived helper processes only: LXC forks, and its monitor must be nobody's child that matters.
// Stopping needs none of it: signals and the cgroup do (pkg/release).
package lxc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	golxc "github.com/lxc/go-lxc"
	"golang.org/x/sys/unix"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/worker"
)

// Options say which container and where. To LXC its name is the last part of Dir, its path the rest, so that LXC's
// own tools find it: lxc-attach -P VOLUMES -n SERVICE.
type Options struct {
	Dir     string // the mounted volume: config, rootfs
	RunDir  string // of the service, for LXC's log
	Network core.NetworkSpec
	Link    string // host's end of the veth pair
	Cgroup  string // absolute path of this process's cgroup, below which the container's are
}

// Started is a container whose init runs.
type Started struct {
	InitPID    int // in this process's PID namespace
	HaltSignal int // asks init to shut down
}

func fail(code worker.Code, format string, args ...any) error {
	return &worker.Failure{Code: code, Message: fmt.Sprintf(format, args...)}
}

func (o Options) name() string { return filepath.Base(o.Dir) }

func logFile(runDir string) string { return filepath.Join(runDir, "lxc.log") }

// Start starts the container and returns once its init runs. Its monitor outlives this process, in a session of
// its own. When ctx ends first, what LXC did is Unknown.
func Start(ctx context.Context, o Options) (Started, error) {
	for _, name := range []string{"config", "rootfs"} {
		if _, err := os.Stat(filepath.Join(o.Dir, name)); err != nil {
			return Started{}, fail(worker.CodeContainerConfig, "the volume has no %s at its top: %v", name, err)
		}
	}
	type result struct {
		started Started
		err     error
	}
	done := make(chan result, 1)
	go func() { // ends with LXC's call, at the latest with this process
		started, err := start(o)
		done <- result{started, err}
	}()
	select {
	case r := <-done:
		return r.started, r.err
	case <-ctx.Done():
		return Started{}, fail(worker.CodeUnknown, "container %s did not start within the bound: %s", o.name(), lastWords(logFile(o.RunDir)))
	}
}

func start(o Options) (Started, error) {
	c, err := load(o)
	if err != nil {
		return Started{}, err
	}
	defer func() { _ = c.Release() }()
	if err := configure(c, o); err != nil {
		return Started{}, err
	}
	sweep(o.Cgroup)
	if err := c.Start(); err != nil {
		return Started{}, fail(worker.CodeContainerStart, "container %s did not start: %s", o.name(), words(o.RunDir, err))
	}
	pid := c.InitPid()
	if pid <= 0 {
		return Started{}, fail(worker.CodeContainerStart, "container %s ended as soon as it started: %s", o.name(), lastWords(logFile(o.RunDir)))
	}
	if err := setIPv6(pid, o.Network); err != nil {
		return Started{}, fail(worker.CodeContainerStart, "container %s runs, and its IPv6 address can't be set: %v", o.name(), err)
	}
	signal := int(unix.SIGPWR)
	if items := c.ConfigItem("lxc.signal.halt"); len(items) > 0 {
		signal = parseSignal(items[0], signal)
	}
	return Started{InitPID: pid, HaltSignal: signal}, nil
}

func load(o Options) (*golxc.Container, error) {
	// The log holds this start's words alone.
	if err := os.WriteFile(logFile(o.RunDir), nil, 0o600); err != nil {
		return nil, fmt.Errorf("make lxc log: %w", err)
	}
	c, err := golxc.NewContainer(o.name(), filepath.Dir(o.Dir))
	if err != nil {
		return nil, fail(worker.CodeContainerConfig, "the container's config is broken: %s", whyBroken(o, err))
	}
	if err := errors.Join(c.SetLogFile(logFile(o.RunDir)), c.SetLogLevel(golxc.WARN)); err != nil {
		return nil, errors.Join(fmt.Errorf("set lxc log: %w", err), c.Release())
	}
	return c, nil
}

// whyBroken reads the config once more, as that of a container which does not exist, to have LXC log what is wrong.
func whyBroken(o Options, otherwise error) string {
	c, err := golxc.NewContainer(o.name(), filepath.Join(o.RunDir, "lxc"))
	if err != nil {
		return otherwise.Error()
	}
	defer func() { _ = c.Release() }()
	if err := errors.Join(c.SetLogFile(logFile(o.RunDir)), c.SetLogLevel(golxc.WARN)); err != nil {
		return otherwise.Error()
	}
	if err := c.LoadConfigFile(filepath.Join(o.Dir, "config")); err != nil {
		return words(o.RunDir, err)
	}
	return otherwise.Error()
}

// configure overrides what must not come from the volume: where it is, its link, its cgroup, its log.
func configure(c *golxc.Container, o Options) error {
	items := [][2]string{
		{"lxc.log.file", logFile(o.RunDir)},
		{"lxc.log.level", "WARN"},
		{"lxc.rootfs.path", "dir:" + filepath.Join(o.Dir, "rootfs")},
		// The container and LXC's monitor stay below this process's cgroup: containment kills all of it (I5).
		{"lxc.cgroup.relative", "1"},
	}
	if uts := c.ConfigItem("lxc.uts.name"); len(uts) == 0 || uts[0] == "" {
		items = append(items, [2]string{"lxc.uts.name", o.name()})
	}
	// The config's own links would be unknown to containment.
	if err := c.ClearConfigItem("lxc.net"); err != nil {
		return fmt.Errorf("clear container's links: %w", err)
	}
	items = append(items, network(o.Network, o.Link)...)
	for _, item := range items {
		if err := c.SetConfigItem(item[0], item[1]); err != nil {
			return fail(worker.CodeContainerConfig, "LXC refuses %s = %s: %s", item[0], item[1], words(o.RunDir, err))
		}
	}
	// Go's descriptors are closed on exec, but the monitor forks: it would keep the service's lock.
	return errors.Join(c.WantDaemonize(true), c.WantCloseAllFds(true))
}

// linkInside is the container's end of its link.
const linkInside = "eth0"

// network is the container's one link with its IPv4 addresses (for the others see setIPv6); without a bridge it has
// only a loopback.
func network(n core.NetworkSpec, link string) [][2]string {
	if n.Bridge == "" {
		return [][2]string{{"lxc.net.0.type", "empty"}}
	}
	items := [][2]string{
		{"lxc.net.0.type", "veth"},
		{"lxc.net.0.link", n.Bridge},
		{"lxc.net.0.name", linkInside},
		{"lxc.net.0.flags", "up"},
	}
	if link != "" {
		items = append(items, [2]string{"lxc.net.0.veth.pair", link})
	}
	if n.MAC != "" {
		items = append(items, [2]string{"lxc.net.0.hwaddr", n.MAC})
	}
	for _, a := range n.Addresses {
		if a.Addr().Is4() {
			items = append(items, [2]string{"lxc.net.0.ipv4.address", a.String()})
		}
	}
	if n.Gateway.Is4() {
		items = append(items, [2]string{"lxc.net.0.ipv4.gateway", n.Gateway.String()})
	}
	return items
}

// sweep removes empty cgroups that a killed monitor could not. One that is in use stays.
func sweep(cgroup string) {
	if cgroup == "" {
		return
	}
	entries, err := os.ReadDir(cgroup)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.IsDir() {
			dir := filepath.Join(cgroup, e.Name())
			sweep(dir)
			_ = os.Remove(dir)
		}
	}
}

// parseSignal reads what LXC gives back for lxc.signal.halt: a number, or what the config says.
func parseSignal(text string, otherwise int) int {
	if n, err := strconv.Atoi(text); err == nil && n > 0 {
		return n
	}
	if n := unix.SignalNum(text); n > 0 {
		return int(n)
	}
	return otherwise
}
