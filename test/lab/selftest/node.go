// Package selftest holds the lab's own cases: they prove that its verbs do to a node what they say, and that
// nothing of a lab stays behind.
package selftest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/test/lab"
)

func init() {
	lab.Register(lab.Case{Name: "lab/power", Nodes: 2, NoCeph: true, Run: power})
	lab.Register(lab.Case{Name: "lab/isolate", Nodes: 3, NoCeph: true, Run: isolate})
	lab.Register(lab.Case{Name: "lab/pause", Nodes: 2, NoCeph: true, Run: pause})
	lab.Register(lab.Case{Name: "lab/daemons", Nodes: 1, NoCeph: true, Run: daemons})
	lab.Register(lab.Case{Name: "lab/node-is-shut-off", Nodes: 1, NoCeph: true, Run: shutOff})
}

// reach is true if TCP from one node gets to an address of another: a refused connection was answered too.
func reach(ctx context.Context, from *lab.Node, addr string) bool {
	out, err := from.Exec(ctx, "busybox", "nc", "-w", "1", addr, "9", "-e", "true")
	return err == nil || strings.Contains(out, "refused")
}

// power cuts a node and boots it again: it answers no more, then again; its memory is lost, its disk is not.
func power(ctx context.Context, t *lab.T) error {
	a, b := t.Node(1), t.Node(2)
	if _, err := b.Exec(ctx, "sh", "-c", "echo life > /run/mark; echo disk > /var/lib/keepone/mark; echo gone > /root/mark"); err != nil {
		return err
	}
	if err := t.Expect(reach(ctx, a, b.Address(0)) && reach(ctx, a, "n2"), "n1 to reach n2 by address and name"); err != nil {
		return err
	}
	if err := b.PowerCut(ctx); err != nil {
		return err
	}
	if err := t.Expect(!b.IsUp() && !reach(ctx, a, b.Address(0)), "n2 to be off and silent"); err != nil {
		return err
	}
	if _, err := b.Exec(ctx, "true"); err == nil {
		return errors.New("expected no program to run on a node that is off")
	}
	if err := errors.Join(b.PowerOn(ctx), b.PowerOn(ctx)); err != nil {
		return err
	}
	out, err := b.Exec(ctx, "sh", "-c", "cat /var/lib/keepone/mark; ls /run/mark /root/mark 2>/dev/null; hostname; true")
	if err != nil {
		return err
	}
	return errors.Join(
		t.Expect(out == "disk\nn2\n", "the disk to survive and the memory to be lost, got %q", out),
		t.Expect(reach(ctx, a, b.Address(0)), "n1 to reach n2 again"),
	)
}

// isolate cuts links in every way, one way by what arrives.
func isolate(ctx context.Context, t *lab.T) error {
	a, b, c := t.Node(1), t.Node(2), t.Node(3)
	type expectation struct {
		link   int
		way    lab.Way
		l0, l1 bool
	}
	for _, e := range []expectation{
		{lab.AllLinks, lab.BothWays, false, false},
		{0, lab.BothWays, false, true},
		{1, lab.BothWays, true, false},
		{0, lab.Inbound, false, true},
		{1, lab.Outbound, true, false},
	} {
		if err := b.Isolate(ctx, e.link, e.way); err != nil {
			return err
		}
		l0, l1 := reach(ctx, a, b.Address(0)), reach(ctx, a, b.Address(1))
		// The kernel asks for a neighbour that was away once a second.
		healed := func() bool { return reach(ctx, a, b.Address(0)) && reach(ctx, a, b.Address(1)) }
		err := errors.Join(
			t.Expect(l0 == e.l0 && l1 == e.l1, "link %d cut %v: reach %v %v, got %v %v", e.link, e.way, e.l0, e.l1, l0, l1),
			t.Expect(reach(ctx, a, c.Address(0)), "n3 to be reached all the time"),
			b.Heal(ctx),
			t.Await(ctx, 5*time.Second, "both links after heal", healed),
		)
		if err != nil {
			return err
		}
	}
	return errors.Join(oneWay(ctx, t, lab.Outbound, true), oneWay(ctx, t, lab.Inbound, false))
}

// oneWay cuts one way of n2 and sends it a datagram: it must arrive only if the way in is open.
func oneWay(ctx context.Context, t *lab.T, way lab.Way, arrives bool) error {
	a, b := t.Node(1), t.Node(2)
	if err := b.Isolate(ctx, 0, way); err != nil {
		return err
	}
	// The neighbour is known beforehand: an address question needs both ways.
	_, err := a.Exec(ctx, "ip", "neigh", "replace", b.Address(0), "lladdr", "02:00:00:00:00:02", "dev", "svc0")
	if err != nil {
		return err
	}
	before, err := received(ctx, b)
	if err != nil {
		return err
	}
	if _, err := a.Exec(ctx, "bash", "-c", "echo datagram > /dev/udp/"+b.Address(0)+"/9999"); err != nil {
		return err
	}
	after, err := received(ctx, b)
	return errors.Join(err, t.Expect((after != before) == arrives, "cut %v: datagram arrives %v, got %s then %s", way, arrives, before, after), b.Heal(ctx))
}

// received counts what came in on the node's link 0.
func received(ctx context.Context, n *lab.Node) (string, error) {
	out, err := n.Exec(ctx, "cat", "/sys/class/net/net0/statistics/rx_packets")
	return strings.TrimSpace(out), err
}

// pause stops everything, also below in a nested pid namespace, and continues it.
func pause(ctx context.Context, t *lab.T) error {
	n := t.Node(2)
	script := "setsid unshare -p -f --mount-proc sh -c 'while :; do date +%s.%N >> /run/ticks; sleep 0.02; done' >/dev/null 2>&1 &"
	if _, err := n.Exec(ctx, "sh", "-c", script); err != nil {
		return err
	}
	path, err := n.LivePath("/run/ticks")
	if err != nil {
		return err
	}
	size := func() int64 {
		info, err := os.Stat(path)
		if err != nil {
			return 0
		}
		return info.Size()
	}
	if err := t.Await(ctx, 5*time.Second, "ticks", func() bool { return size() > 0 }); err != nil {
		return err
	}
	if err := n.Pause(ctx); err != nil {
		return err
	}
	still := size()
	bounded, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	_, err = n.Exec(bounded, "true")
	if err := errors.Join(
		t.Expect(errors.Is(err, context.DeadlineExceeded), "a program on a paused node to wait, got %v", err),
		t.Expect(size() == still, "no tick while paused"),
		t.Expect(n.IsUp() && reach(ctx, t.Node(1), n.Address(0)), "a paused node to have power and its kernel to answer"),
		n.Continue(ctx),
	); err != nil {
		return err
	}
	if err := t.Await(ctx, 5*time.Second, "ticks after continue", func() bool { return size() > still }); err != nil {
		return err
	}
	return errors.Join(n.Pause(ctx), n.PowerCut(ctx)) // a paused node can be cut
}

// daemons has the node's init keep two programs running, as systemd does.
func daemons(ctx context.Context, t *lab.T) error {
	n := t.Node(1)
	if err := stand(ctx, n); err != nil {
		return err
	}
	if err := errors.Join(n.SetRestartDelay(ctx, lab.Daemon, 200*time.Millisecond), n.Start(ctx, lab.Daemon)); err != nil {
		return err
	}
	starts := func() int {
		log, _ := os.ReadFile(n.LogPath(lab.Daemon))
		return strings.Count(string(log), "up --node-file")
	}
	first := n.PID(ctx, lab.Daemon)
	if err := t.Await(ctx, 5*time.Second, "the daemon's start", func() bool { return starts() == 1 }); err != nil {
		return err
	}
	if err := n.Kill(ctx, lab.Daemon); err != nil {
		return err
	}
	again := func() bool { pid := n.PID(ctx, lab.Daemon); return pid != 0 && pid != first && starts() == 2 }
	if err := t.Await(ctx, 5*time.Second, "the daemon's return", again); err != nil {
		return err
	}
	if err := n.Halt(ctx, lab.Daemon); err != nil {
		return err
	}
	return errors.Join(
		t.Await(ctx, 5*time.Second, "the daemon's end", func() bool { return n.PID(ctx, lab.Daemon) == 0 }),
	)
}

// stand puts a stand-in where the daemon is looked for, in the node's own view of the program folder.
func stand(ctx context.Context, n *lab.Node) error {
	script := fmt.Sprintf("mkdir /tmp/bin && printf '#!/bin/sh\\necho up \"$@\"\\nexec sleep 1000\\n' > /tmp/bin/keeponed && "+
		"chmod 755 /tmp/bin/keeponed && mount --bind /tmp/bin %s", n.BinDir())
	_, err := n.Exec(ctx, "sh", "-c", script)
	return err
}

// shutOff shows that a node sees nothing of the machine that it could harm.
func shutOff(ctx context.Context, t *lab.T) error {
	n := t.Node(1)
	mark := "/etc/keepone-lab-mark"
	if _, err := n.Exec(ctx, "sh", "-c", "echo x > "+mark+" && cat "+mark); err != nil {
		return err
	}
	_, statErr := os.Stat(mark)
	writeErr := os.WriteFile(mark, nil, 0o600)
	mounts, err := n.Exec(ctx, "cat", "/proc/self/mounts")
	if err != nil {
		return err
	}
	cgroup, err := n.Exec(ctx, "sh", "-c", "grep ^0: /proc/1/cgroup; ls -d /sys/fs/cgroup/cgroup.procs")
	if err != nil {
		return err
	}
	lines := strings.Count(mounts, "\n")
	return errors.Join(
		t.Expect(os.IsNotExist(statErr), "what a node writes to be its own, got %v", statErr),
		t.Expect(writeErr != nil, "the room to be unable to write to the machine's files"),
		t.Expect(lines < 25, "a node to have few mounts, got %d:\n%s", lines, mounts),
		t.Expect(strings.HasPrefix(cgroup, "0::/\n"), "a cgroup tree of its own, got %q", cgroup),
		t.Expect(filepath.Base(n.State) == "n1", "a state folder per node"),
	)
}
