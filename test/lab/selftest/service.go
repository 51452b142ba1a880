package selftest

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/test/lab"
)

func init() {
	lab.Register(lab.Case{Name: "lab/ceph", Nodes: 1, Run: ceph})
	lab.Register(lab.Case{Name: "lab/ceph-spread", CephSpread: true, Limit: 2 * time.Minute, Run: cephSpread})
	lab.Register(lab.Case{Name: "lab/writers", Nodes: 2, LogWriters: true, Run: writers})
	lab.Register(lab.Case{Name: "lab/container", Nodes: 1, NoCeph: true, Run: container})
}

// rbd runs the rbd tool on a node with the keyring that keepone has.
func rbd(ctx context.Context, n *lab.Node, bound time.Duration, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	return n.Exec(ctx, append([]string{"rbd", "--id", strings.TrimPrefix(lab.CephUser, "client.")}, args...)...)
}

// ceph uses an image from a node, and has the cluster stand still and go on.
func ceph(ctx context.Context, t *lab.T) error {
	n := t.Node(1)
	if err := t.CreateImage(ctx, "one", 64); err != nil {
		return err
	}
	info, err := rbd(ctx, n, 10*time.Second, "info", lab.Pool+"/one")
	if err := errors.Join(err, t.Expect(strings.Contains(info, "exclusive-lock"), "an exclusive lock, got %q", info)); err != nil {
		return err
	}
	if _, err := n.Exec(ctx, "ceph", "--id", "keepone", "osd", "blocklist", "add", "10.77.0.9:0/1", "60"); err != nil {
		return fmt.Errorf("use the cap: %w", err)
	}
	if err := t.StopCeph(); err != nil {
		return err
	}
	_, stopped := rbd(ctx, n, time.Second, "ls", lab.Pool)
	if err := errors.Join(t.Expect(stopped != nil, "no answer of a stopped Ceph"), t.ContinueCeph()); err != nil {
		return err
	}
	list, err := rbd(ctx, n, 10*time.Second, "ls", lab.Pool)
	return errors.Join(err, t.Expect(list == "one\n", "the image in the list, got %q", list))
}

// writers has two nodes write to an image, one after the other: the OSD tells who did, and who did again.
func writers(ctx context.Context, t *lab.T) error {
	if err := t.CreateImage(ctx, "one", 64); err != nil {
		return err
	}
	image := lab.Pool + "/one"
	for _, n := range t.Nodes() {
		if _, err := rbd(ctx, n, 10*time.Second, "bench", "--io-type", "write", "--io-size", "4096", "--io-total", "65536", "--io-pattern", "seq", image); err != nil {
			return err
		}
		if _, err := rbd(ctx, n, 10*time.Second, "bench", "--io-type", "read", "--io-size", "4096", "--io-total", "65536", image); err != nil { // reading is no turn
			return err
		}
	}
	turns, again := t.Turns()
	well := len(turns) == 2 && len(again) == 0
	for i, turn := range turns {
		well = well && turn.Writes > 0 && strings.HasPrefix(turn.Client, t.Node(i+1).Address(0)+":0/")
	}
	return t.Expect(well, "a turn of each node, got %+v and again %+v", turns, again)
}

// cephSpread cuts a node that carries a mon and an OSD: Ceph serves on, and takes the node back.
func cephSpread(ctx context.Context, t *lab.T) error {
	if err := t.CreateImage(ctx, "one", 64); err != nil {
		return err
	}
	lost := t.Node(3)
	if err := lost.PowerCut(ctx); err != nil {
		return err
	}
	began := time.Now()
	write := []string{"bench", "--io-type", "write", "--io-size", "4K", "--io-total", "64K", lab.Pool + "/one"}
	if _, err := rbd(ctx, t.Node(1), 30*time.Second, write...); err != nil {
		return fmt.Errorf("write without n3: %w", err)
	}
	t.Logf("first writes after the loss of a mon and an OSD: %v", time.Since(began))
	if err := lost.PowerOn(ctx); err != nil {
		return err
	}
	whole := func() bool {
		out, err := t.Ceph(ctx, "osd", "stat")
		return err == nil && strings.Contains(out, "3 up")
	}
	if err := t.Await(ctx, 40*time.Second, "the third OSD's return", whole); err != nil {
		return err
	}
	_, err := rbd(ctx, lost, 30*time.Second, write...)
	return err
}

// container starts the payload under LXC on a node, appends records through the wire, and finds them again after
// a power cut.
func container(ctx context.Context, t *lab.T) error {
	n, addr := t.Node(1), lab.ServiceAddress(1)
	tarball := filepath.Join(n.Path("/var/lib/lxc"), "one.tar")
	network := fmt.Sprintf("lxc.net.0.type = veth\nlxc.net.0.link = svc0\nlxc.net.0.flags = up\nlxc.net.0.name = eth0\n"+
		"lxc.net.0.hwaddr = 02:00:00:aa:00:01\nlxc.net.0.ipv4.address = %s/24\n", addr)
	payload := lab.Payload{Rootfs: "dir:/var/lib/lxc/one/rootfs", ExtraConfig: network, Credentials: "oneadmin:secret"}
	if err := t.Tarball(tarball, payload); err != nil {
		return err
	}
	if _, err := n.Exec(ctx, "sh", "-c", "mkdir /var/lib/lxc/one && tar -xf /var/lib/lxc/one.tar -C /var/lib/lxc/one"); err != nil {
		return err
	}
	if err := startContainer(ctx, t, n, addr); err != nil {
		return err
	}
	if _, err := lab.AskVersion(ctx, addr, "oneadmin:wrong"); err == nil {
		return errors.New("expected the front-end to refuse a wrong password")
	}
	client := t.Client(ctx, addr)
	defer client.Stop()
	enough := func() bool { return client.Acknowledged() >= 50 }
	if err := t.Await(ctx, 10*time.Second, "records", enough); err != nil {
		return err
	}
	cut := time.Now()
	if err := errors.Join(n.PowerCut(ctx), n.PowerOn(ctx), startContainer(ctx, t, n, addr)); err != nil {
		return err
	}
	if _, err := client.AwaitAck(ctx, time.Now(), 10*time.Second); err != nil {
		return err
	}
	client.Stop()
	verdict, err := client.Verify(ctx)
	gap := client.GapAround(cut)
	t.Logf("%v, gap %v", verdict, gap.Length())
	if err := errors.Join(err,
		t.Expect(len(verdict.Missing) == 0 && verdict.Acknowledged > 50, "every record, got %v", verdict),
		t.Expect(gap.Length() > 20*time.Millisecond, "a gap around the power cut, got %v", gap.Length()),
	); err != nil {
		return err
	}
	began := time.Now()
	_, err = n.Exec(ctx, "lxc-stop", "-n", "one", "-t", "5")
	t.Logf("graceful stop: %v", time.Since(began))
	return errors.Join(err, t.Expect(time.Since(began) < 4*time.Second, "a graceful stop, no kill"))
}

func startContainer(ctx context.Context, t *lab.T, n *lab.Node, addr string) error {
	began := time.Now()
	if out, err := n.Exec(ctx, "lxc-start", "-n", "one", "-l", "INFO", "-o", "/var/log/lxc-one.log"); err != nil {
		return fmt.Errorf("start container: %w: %s", err, out)
	}
	at, err := lab.AwaitAnswer(ctx, addr, "oneadmin:secret", 10*time.Second)
	t.Logf("container answers after %v", at.Sub(began))
	return err
}
