package cases

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

// Virtual machines under software emulation are several times slower than namespaces.
const (
	vmLimit     = 8 * time.Minute
	vmFormLimit = 2 * time.Minute
	vmTakeover  = 2 * time.Minute
	vmStep      = time.Minute

	kernelVolume = "/var/lib/keepone/volumes/one"
)

// slowTiming is for guests without hardware to run on: a handshake takes them a good part of a second.
const slowTiming = `
[timing]
heartbeat = "500ms"
suspect = "4s"
lease = "12s"
lease_margin = "2s"
down = "12s"
raft_election = "2500ms"

`

// addVM registers a case on a formed cluster of so many virtual machines.
func addVM(name string, nodes int, run func(ctx context.Context, c *cluster) error) {
	lab.Register(lab.Case{
		Name: "vm/" + name, Nodes: nodes, Machines: true, Limit: vmLimit,
		Run: func(ctx context.Context, t *lab.T) error {
			c, err := formVM(ctx, t.Lab)
			if err != nil {
				return fmt.Errorf("form cluster: %w", err)
			}
			if err := run(ctx, c); err != nil {
				c.keepJournals(ctx)
				return err
			}
			return nil
		},
	})
}

// formVM makes a cluster by the README's words, on nodes that have the package installed.
func formVM(ctx context.Context, l *lab.Lab) (c *cluster, err error) {
	c = &cluster{Lab: l, address: lab.ServiceAddress(1), cli: "/usr/sbin/keepone"}
	c.document = strings.NewReplacer("manager = \"keepone\"\n", "manager = \"keepone\"\n"+slowTiming, `"librbd"`, `"krbd"`, `"svc0"`, `"br0"`, `start_limit = "30s"`, `start_limit = "90s"`,
		`stop_limit = "10s"`, `stop_limit = "30s"`, `timeout = "1s"`, `timeout = "3s"`).Replace(c.text())
	defer func() {
		if err != nil {
			c.keepJournals(ctx)
		}
	}()
	for _, n := range l.Nodes() {
		if err := c.giveCeph(ctx, n); err != nil {
			return c, err
		}
	}
	first := l.Node(1)
	if err := put(ctx, first, clusterFile, c.document); err != nil {
		return c, err
	}
	if _, err := c.keepone(ctx, first, append([]string{"init", "--config", clusterFile}, identity(first)...)...); err != nil {
		return c, err
	}
	if err := enable(ctx, first); err != nil {
		return c, err
	}
	for _, n := range l.Nodes()[1:] {
		token, err := c.keepone(ctx, first, "node", "add", n.Name, "--quiet")
		if err != nil {
			return c, err
		}
		join := append([]string{"join", "--token", strings.TrimSpace(token), "--server", first.Address(0)}, identity(n)...)
		if _, err := c.keepone(ctx, n, join...); err != nil {
			return c, err
		}
		if err := enable(ctx, n); err != nil {
			return c, err
		}
	}
	if err := c.awaitOnline(ctx, vmFormLimit); err != nil {
		return c, err
	}
	// A newcomer takes the document's raft_election for its leadership at its next start.
	for _, n := range l.Nodes()[1:] {
		if _, err := sh(ctx, n, "systemctl restart keeponed"); err != nil {
			return c, err
		}
	}
	if err := c.awaitOnline(ctx, vmFormLimit); err != nil {
		return c, err
	}
	tar := filepath.Join(c.Work, "one.tar")
	if err := c.Tarball(tar, lab.Payload{Credentials: session}); err != nil {
		return c, err
	}
	text, err := os.ReadFile(tar)
	if err != nil {
		return c, err
	}
	if err := put(ctx, first, "/root/front-end.tar", string(text)); err != nil {
		return c, err
	}
	if _, err := c.keepone(ctx, first, "volume", "create", service, "--size", "256M", "--from", "/root/front-end.tar"); err != nil {
		return c, err
	}
	if err := c.awaitRunning(ctx, vmFormLimit); err != nil {
		return c, err
	}
	return c, c.awaitCandidates(ctx, vmFormLimit)
}

// identity is how a node is named to init and join.
func identity(n *lab.Node) []string {
	return []string{"--name", n.Name, "--link", n.Address(0), "--link", n.Address(1)}
}

// giveCeph gives a node its access to Ceph, as an operator copies it there.
func (c *cluster) giveCeph(ctx context.Context, n *lab.Node) error {
	for _, path := range []string{lab.ClientConf, lab.ClientKeyring} {
		text, err := os.ReadFile(n.Path(path))
		if err != nil {
			return fmt.Errorf("read Ceph client files: %w", err)
		}
		if err := put(ctx, n, path, string(text)); err != nil {
			return err
		}
	}
	return nil
}

// put writes a file in a node's machine.
func put(ctx context.Context, n *lab.Node, path, text string) error {
	ctx, cancel := context.WithTimeout(ctx, vmStep)
	defer cancel()
	_, err := n.ExecInput(ctx, text, "sh", "-c", `mkdir -p "$(dirname "$0")" && umask 077 && cat >"$0"`, path)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// enable is what the README says after init and join.
func enable(ctx context.Context, n *lab.Node) error {
	_, err := n.Exec(ctx, "systemctl", "enable", "--quiet", "--now", "keepone-guard", "keeponed", "keepone-shutdown")
	return err
}

// sh runs a line of shell in a node.
func sh(ctx context.Context, n *lab.Node, line string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, vmStep)
	defer cancel()
	out, err := n.Exec(ctx, "sh", "-c", line)
	if err != nil {
		return out, fmt.Errorf("%w: %s", err, strings.TrimSpace(out))
	}
	return strings.TrimSpace(out), nil
}

// keepJournals saves what the nodes that can be reached say of themselves.
func (c *cluster) keepJournals(ctx context.Context) {
	for _, n := range c.Nodes() {
		ctx := context.WithoutCancel(ctx) // sh bounds it
		out, err := sh(ctx, n, "journalctl --no-pager -b -o short-precise; dmesg | tail -50; cat /proc/mounts; systemd-cgls --no-pager")
		if err != nil {
			out += "\n" + err.Error()
		}
		_ = os.WriteFile(filepath.Join(c.Work, n.Name+".journal"), []byte(out), 0o600) //nolint:gosec // the case fails for another reason
	}
}

// mapping is what the kernel says of its mappings on a node: pool, image and client of each.
func mapping(ctx context.Context, n *lab.Node) (string, error) {
	return sh(ctx, n, "cd /sys/bus/rbd/devices && for d in *; do [ -e $d/name ] && echo $d $(cat $d/pool) $(cat $d/name) $(cat $d/client_addr) \"$(cat $d/config_info)\"; done; true")
}

var errNotMapped = errors.New("the kernel has no mapping of the volume")
