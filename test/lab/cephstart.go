package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// start forms the cluster: mons, then in one session of the slow `ceph` tool everything that needs them, beside
// it the OSDs' stores, then the OSDs.
func (c *ceph) start(ctx context.Context) error {
	if err := c.makeMonmap(ctx); err != nil {
		return err
	}
	var mons, stores, osds []func(context.Context) error
	for i := range c.count() {
		mons = append(mons, func(ctx context.Context) error { return c.startMon(ctx, i) })
		stores = append(stores, func(ctx context.Context) error { return c.makeStore(ctx, i) })
		osds = append(osds, func(ctx context.Context) error { return c.startDaemon("osd", strconv.Itoa(i), c.nodeOf(i)) })
	}
	if err := together(ctx, mons...); err != nil {
		return err
	}
	if err := together(ctx, append(stores, c.register)...); err != nil {
		return err
	}
	if err := together(ctx, osds...); err != nil {
		return err
	}
	return c.makePool(ctx)
}

// makePool waits for the OSDs first: placement groups that are made before them take 5 s longer to become active.
func (c *ceph) makePool(ctx context.Context) error {
	for i := range c.count() {
		booted := func() bool {
			text, err := os.ReadFile(c.outside(i, fmt.Sprintf("osd.%d.log", i)))
			return err == nil && strings.Contains(string(text), "booting -> active")
		}
		if err := poll(ctx, cephBound, fmt.Sprintf("osd.%d", i), booted); err != nil {
			return err
		}
	}
	if _, err := c.admin(ctx, "", "ceph", "--connect-timeout", "20", "osd", "pool", "create", Pool, "8", "8"); err != nil {
		return fmt.Errorf("make pool: %w", err)
	}
	if _, err := c.admin(ctx, "", "rbd", "pool", "init", Pool); err != nil {
		return fmt.Errorf("make pool ready: %w", err)
	}
	c.lab.Logf("Ceph is ready: %s", c.lab.CephWords())
	return nil
}

func (c *ceph) nodeOf(i int) *Node {
	if !c.spread {
		return nil
	}
	return c.lab.nodes[i]
}

// dataDir is the daemons' folder as they see it; in a node it is one that survives a power cut.
func (c *ceph) dataDir() string {
	if c.spread {
		return "/var/lib/ceph"
	}
	return c.dir
}

// outside is where the lab finds a file of daemon i's data folder.
func (c *ceph) outside(i int, name string) string {
	path := filepath.Join(c.dataDir(), name)
	if n := c.nodeOf(i); n != nil {
		return n.Path(path)
	}
	return path
}

// in runs a Ceph tool where daemon i lives.
func (c *ceph) in(ctx context.Context, i int, argv ...string) error {
	argv = append([]string{argv[0], "-c", filepath.Join(c.dataDir(), "ceph.conf")}, argv[1:]...)
	var err error
	if n := c.nodeOf(i); n != nil {
		ctx, cancel := context.WithTimeout(ctx, cephBound)
		defer cancel()
		_, err = n.Exec(ctx, argv...)
	} else {
		_, err = run(ctx, cephBound, argv...)
	}
	return err
}

func (c *ceph) makeMonmap(ctx context.Context) error {
	path := filepath.Join(c.dir, "monmap")
	argv := []string{"monmaptool", "--create", "--clobber", "--fsid", cephFsid}
	for i := range c.count() {
		addr := c.monAddress(i)
		argv = append(argv, "--addv", monName(i), fmt.Sprintf("[v2:%s:3300,v1:%s:6789]", addr, addr))
	}
	if _, err := run(ctx, cephBound, append(argv, path)...); err != nil {
		return fmt.Errorf("make monmap: %w", err)
	}
	if !c.spread {
		return nil
	}
	return c.copyToNodes(path)
}

// copyToNodes gives the nodes what their daemons need.
func (c *ceph) copyToNodes(monmap string) error {
	text, err := os.ReadFile(monmap)
	if err != nil {
		return fmt.Errorf("read monmap: %w", err)
	}
	all := append([]string{"mon.", "client.admin", CephUser}, c.osds()...)
	for i := range c.count() {
		n := c.nodeOf(i)
		err := errors.Join(
			writeFile(n.Path("/var/lib/ceph/monmap"), string(text), 0o600),
			writeFile(n.Path("/var/lib/ceph/keyring"), c.keyring(all...), 0o600),
			writeFile(n.Path("/var/lib/ceph/ceph.conf"), c.conf("/var/lib/ceph", "/var/lib/ceph/keyring"), 0o600),
		)
		if err != nil {
			return fmt.Errorf("write Ceph files of %s: %w", n.Name, err)
		}
	}
	return nil
}

func (c *ceph) startMon(ctx context.Context, i int) error {
	dir := c.dataDir()
	err := c.in(ctx, i, "ceph-mon", "--mkfs", "-i", monName(i), "--monmap", dir+"/monmap", "--keyring", dir+"/keyring")
	if err != nil {
		return fmt.Errorf("make mon: %w", err)
	}
	return c.startDaemon("mon", monName(i), c.nodeOf(i))
}

func osdUUID(i int) string { return fmt.Sprintf("33333333-2222-3333-4444-55555555555%d", i) }

// makeStore makes an OSD's empty memstore. After a power cut it is made again under the same id: memory is gone,
// and Ceph fills it from the others.
func (c *ceph) makeStore(ctx context.Context, i int) error {
	outside := c.outside(i, fmt.Sprintf("osd-%d", i))
	if err := errors.Join(os.RemoveAll(outside), os.MkdirAll(outside, 0o700)); err != nil {
		return fmt.Errorf("make OSD folder: %w", err)
	}
	if err := c.in(ctx, i, "ceph-osd", "-i", strconv.Itoa(i), "--mkfs", "--osd-uuid", osdUUID(i)); err != nil {
		return fmt.Errorf("make OSD: %w", err)
	}
	return nil
}

// register makes the OSDs known.
func (c *ceph) register(ctx context.Context) error {
	var script strings.Builder
	for i := range c.count() {
		fmt.Fprintf(&script, "osd new %s\n", osdUUID(i))
	}
	if _, err := c.admin(ctx, script.String(), "ceph", "--connect-timeout", "20"); err != nil {
		return fmt.Errorf("register OSDs: %w", err)
	}
	return nil
}

// startDaemon runs a mon or OSD in the foreground, in the room or in a node's namespaces and cgroup.
func (c *ceph) startDaemon(kind, id string, n *Node) error {
	name, watched := kind+"."+id, kind == "osd" && c.lab.writers != nil
	log, err := c.logOf(name, watched)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	argv := []string{"ceph-" + kind, "-f", "-i", id, "-c", filepath.Join(c.dataDir(), "ceph.conf")}
	attr := &syscall.SysProcAttr{Setsid: true}
	if n != nil {
		group := filepath.Join(n.group(), "ceph-"+name)
		if err := os.MkdirAll(group, 0o755); err != nil {
			return errors.Join(fmt.Errorf("make cgroup: %w", err), log.Close())
		}
		argv = append([]string{c.lab.room.exe, "enter", group, strconv.Itoa(n.InitPID())}, argv...)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = log, log, attr
	if watched {
		cmd.Stderr = &lineReader{writers: c.lab.writers, rest: log}
	}
	if err := cmd.Start(); err != nil {
		return errors.Join(fmt.Errorf("start %s: %w", name, err), log.Close())
	}
	d := &cephDaemon{cmd: cmd, ended: make(chan struct{}), node: n}
	go func() {
		_ = cmd.Wait() // ended by a verb, a power cut or Down
		_ = log.Close()
		close(d.ended)
	}()
	c.mu.Lock()
	c.daemons[name] = d
	c.mu.Unlock()
	return nil
}

// nodeBooted starts the daemons of a node that came back; at the lab's first boot there are none yet.
func (c *ceph) nodeBooted(ctx context.Context, n *Node) error {
	i := n.Index - 1
	if !c.spread || i >= c.count() {
		return nil
	}
	c.mu.Lock()
	_, known := c.daemons["osd."+strconv.Itoa(i)]
	c.mu.Unlock()
	if !known {
		return nil
	}
	if err := c.startDaemon("mon", monName(i), n); err != nil {
		return err
	}
	if err := c.makeStore(ctx, i); err != nil {
		return err
	}
	return c.startDaemon("osd", strconv.Itoa(i), n)
}

// signal sends to one daemon, or to all if name is "". In a node it goes to every process of the daemon's cgroup.
func (c *ceph) signal(sig syscall.Signal, name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if name != "" && c.daemons[name] == nil {
		return fmt.Errorf("signal %s: no such daemon", name)
	}
	var errs []error
	for each, d := range c.daemons {
		if name != "" && name != each {
			continue
		}
		pids := []int{d.cmd.Process.Pid}
		if d.node != nil {
			pids = groupProcesses(filepath.Join(d.node.group(), "ceph-"+each))
		}
		for _, pid := range pids {
			if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
				errs = append(errs, fmt.Errorf("signal %s: %w", each, err))
			}
		}
	}
	return errors.Join(errs...)
}

// StopCeph makes every mon and OSD stand still (SIGSTOP).
func (l *Lab) StopCeph() error {
	l.Logf("Ceph stops")
	return l.ceph.signal(syscall.SIGSTOP, "")
}

// ContinueCeph takes StopCeph back.
func (l *Lab) ContinueCeph() error {
	l.Logf("Ceph goes on")
	return l.ceph.signal(syscall.SIGCONT, "")
}

// StopCephDaemon makes one mon or OSD ("mon.a", "osd.0") stand still; ContinueCeph takes it back.
func (l *Lab) StopCephDaemon(name string) error {
	l.Logf("%s stops", name)
	return l.ceph.signal(syscall.SIGSTOP, name)
}

// KillMon kills mon i, counted from 0, for good.
func (l *Lab) KillMon(i int) error {
	l.Logf("mon.%s dies", monName(i))
	return l.ceph.signal(syscall.SIGKILL, "mon."+monName(i))
}

// KillOSD kills OSD i, counted from 0, for good: its memory is lost.
func (l *Lab) KillOSD(i int) error {
	l.Logf("osd.%d dies", i)
	return l.ceph.signal(syscall.SIGKILL, "osd."+strconv.Itoa(i))
}
