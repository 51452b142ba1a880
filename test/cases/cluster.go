// Package cases holds the product's cases for the lab: each forms a real cluster by the operator's own commands,
// does something bad to it, and looks at what a user and an operator see.
package cases

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/test/lab"
)

const (
	service   = "one"
	session   = "oneadmin:opennebula"
	formLimit = 40 * time.Second
	nodeFile  = "/etc/keepone/node.toml"

	clusterFile = "/etc/keepone/cluster.toml"
)

// cluster is a formed keepone cluster.
type cluster struct {
	*lab.Lab
	document string // as it was applied first, passwords in clear
	address  string // of the front-end
	cli      string // where nodes have the operator's program; "": in BinDir
}

// status is what cases read of `keepone status -o json`, a documented interface.
type status struct {
	Quorum bool   `json:"quorum"`
	Leader string `json:"leader"`
	Nodes  []struct {
		Name   string `json:"name"`
		State  string `json:"state"`
		Reason string `json:"reason"`
		Voter  bool   `json:"voter"`
	} `json:"nodes"`
	Services []struct {
		Name   string   `json:"name"`
		State  string   `json:"state"`
		Holder string   `json:"holder"`
		Epoch  uint64   `json:"epoch"`
		Reason string   `json:"reason"`
		Next   []string `json:"next"` // nodes that could take it now
	} `json:"services"`
	Requests []struct {
		What string `json:"what"`
		Now  string `json:"now"`
	} `json:"requests"`
	Problems []struct {
		About string `json:"about"`
		Text  string `json:"text"`
	} `json:"problems"`
}

// event is what cases read of `keepone history -o json`, a documented interface.
type event struct {
	ID      uint64             `json:"id"`
	At      time.Time          `json:"at"`
	Kind    string             `json:"kind"`
	Service string             `json:"service"`
	Node    string             `json:"node"`
	From    string             `json:"from"`
	To      string             `json:"to"`
	Epoch   uint64             `json:"epoch"`
	Proof   string             `json:"proof"`
	Reason  string             `json:"reason"`
	Phases  map[string]float64 `json:"phases"` // seconds
}

// edit changes a cluster's document, and its address with it, before it is founded.
type edit func(c *cluster)

// form makes a cluster of all nodes of a lab, by the operator's commands alone, with the service running.
func form(ctx context.Context, l *lab.Lab, edits ...edit) (*cluster, error) {
	c, err := prepare(ctx, l, edits...)
	if err != nil {
		return nil, err
	}
	if err := c.createVolume(ctx); err != nil {
		return nil, err
	}
	if err := c.awaitRunning(ctx, formLimit); err != nil {
		return nil, err
	}
	return c, c.awaitCandidates(ctx, formLimit)
}

// awaitCandidates waits until every node that is up and does not hold the service could take it.
func (c *cluster) awaitCandidates(ctx context.Context, bound time.Duration) error {
	return await(ctx, bound, "every other node ready to take over", func() error {
		s, err := c.status(ctx, c.anyUp())
		if err != nil {
			return err
		}
		for _, svc := range s.Services {
			if len(svc.Next) < c.countUp()-1 {
				return fmt.Errorf("only %v could take %s", svc.Next, svc.Name)
			}
		}
		return nil
	})
}

// prepare founds the cluster and lets every node join; the service has no volume yet.
func prepare(ctx context.Context, l *lab.Lab, edits ...edit) (*cluster, error) {
	c, err := found(ctx, l, edits...)
	if err != nil {
		return nil, err
	}
	for _, n := range l.Nodes()[1:] {
		if err := c.join(ctx, n); err != nil {
			return nil, err
		}
	}
	return c, c.awaitOnline(ctx, formLimit)
}

// found makes a cluster of the first node alone, whose document names all of them.
func found(ctx context.Context, l *lab.Lab, edits ...edit) (*cluster, error) {
	c := &cluster{Lab: l, address: lab.ServiceAddress(1)}
	c.document = c.text()
	for _, change := range edits {
		change(c)
	}
	for _, n := range l.Nodes() {
		if err := write(n, nodeFile, c.node(n)); err != nil {
			return nil, err
		}
	}
	first := l.Node(1)
	if err := write(first, clusterFile, c.document); err != nil {
		return nil, err
	}
	if _, err := c.keepone(ctx, first, "init", "--config", clusterFile); err != nil {
		return nil, err
	}
	return c, boot(ctx, first)
}

// join lets one node in with a token of its own.
func (c *cluster) join(ctx context.Context, n *lab.Node) error {
	// The newest member is asked, a follower as a rule: any member will do.
	asked := c.Node(max(1, n.Index-1))
	out, err := c.keepone(ctx, asked, "node", "add", n.Name, "--quiet")
	if err != nil {
		return err
	}
	token := strings.TrimSpace(out)
	if _, err := c.keepone(ctx, n, "join", "--token", token, "--server", asked.Address(0)); err != nil {
		return err
	}
	return boot(ctx, n)
}

// boot starts what systemd would start from now on.
func boot(ctx context.Context, n *lab.Node) error {
	if err := n.Start(ctx, lab.Guard); err != nil {
		return err
	}
	if err := n.Start(ctx, lab.Daemon); err != nil {
		return err
	}
	return await(ctx, formLimit, "keeponed of "+n.Name+" ready", func() error {
		socket, err := n.LivePath("/run/keepone/keeponed.sock")
		if err == nil {
			_, err = os.Stat(socket)
		}
		return err
	})
}

// createVolume makes the service's image, file system and container from a tarball.
func (c *cluster) createVolume(ctx context.Context) error {
	tar := c.Node(1).Path("/var/lib/keepone/one.tar")
	if err := c.Tarball(tar, lab.Payload{Credentials: session}); err != nil {
		return err
	}
	_, err := c.keepone(ctx, c.Node(1), "volume", "create", service, "--size", "256M", "--from", "/var/lib/keepone/one.tar")
	return err
}

// text is the cluster document.
func (c *cluster) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "cluster = \"lab\"\nmanager = \"keepone\"\n\n")
	for _, n := range c.Nodes() {
		bmc := n.BMC()
		fmt.Fprintf(&b, "[[node]]\nname = %q\nlinks = [%q, %q]\n", n.Name, n.Address(0), n.Address(1))
		fmt.Fprintf(&b, "[node.bmc]\naddress = %q\nuser = %q\npassword = %q\ncipher_suite = 3\nguid = %q\n\n", bmc.Address, bmc.User, bmc.Password, bmc.GUID)
	}
	fmt.Fprintf(&b, `[[service]]
name = %q
start_limit = "30s"
stop_limit = "10s"
[service.volume]
pool = %q
image = "one"
fs = "ext4"
mapper = "librbd"
[service.network]
bridge = "svc0"
addresses = ["%s/24"]
[[service.probe]]
kind = "opennebula"
port = 2633
user = "oneadmin"
password = "opennebula"
interval = "500ms"
timeout = "1s"
failures = 4
`, service, lab.Pool, c.address)
	return b.String()
}

// node is a node's own file.
func (c *cluster) node(n *lab.Node) string {
	return fmt.Sprintf(`name = %q
links = [%q, %q]
cgroup_root = "/sys/fs/cgroup/keepone"

[ceph]
conf = "/etc/ceph/ceph.conf"
keyring = "%s"
user = "keepone"
[log]
level = "debug"
`, n.Name, n.Address(0), n.Address(1), lab.ClientKeyring)
}

func write(n *lab.Node, inside, text string) error {
	path := n.Path(inside)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write %s of %s: %w", inside, n.Name, err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return fmt.Errorf("write %s of %s: %w", inside, n.Name, err)
	}
	return nil
}

// keepone runs the operator's CLI on a node.
func (c *cluster) keepone(ctx context.Context, n *lab.Node, args ...string) (string, error) {
	program := c.cli
	if program == "" {
		program = filepath.Join(c.BinDir, "keepone")
	}
	out, err := n.Exec(ctx, append([]string{program}, args...)...)
	c.Logf("%s: keepone %s → %s", n.Name, strings.Join(args, " "), strings.TrimSpace(out))
	if err != nil {
		return out, fmt.Errorf("keepone %s on %s: %w: %s", strings.Join(args, " "), n.Name, err, strings.TrimSpace(out))
	}
	return out, nil
}

// anyUp is a node that can be asked, not one of those named: with its daemon, if there is one that has it.
func (c *cluster) anyUp(not ...*lab.Node) *lab.Node {
	var mute *lab.Node
	for _, n := range c.Nodes() {
		if !n.IsUp() || slices.Contains(not, n) {
			continue
		}
		if socket, err := n.LivePath("/run/keepone/keeponed.sock"); err == nil && exists(socket) {
			return n
		}
		if mute == nil {
			mute = n
		}
	}
	if mute != nil {
		return mute
	}
	return c.Node(1)
}

// named is the node of a name; nil if there is none.
func (c *cluster) named(name string) *lab.Node {
	for _, n := range c.Nodes() {
		if n.Name == name {
			return n
		}
	}
	return nil
}

func (c *cluster) status(ctx context.Context, n *lab.Node) (status, error) {
	var s status
	out, err := c.keepone(ctx, n, "status", "-o", "json")
	if out == "" && err != nil {
		return s, err
	}
	// What follows the answer is the program's word about its exit code, on standard error.
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&s); err != nil {
		return s, fmt.Errorf("read status of %s: %w", n.Name, err)
	}
	return s, nil
}

func (c *cluster) history(ctx context.Context, n *lab.Node) ([]event, error) {
	var h struct {
		Events []event `json:"events"`
	}
	out, err := c.keepone(ctx, n, "history", "-o", "json", "--all")
	if err != nil {
		return nil, err
	}
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&h); err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	return h.Events, nil
}

// holder is the node that runs the service.
func (c *cluster) holder(ctx context.Context, ask *lab.Node) (*lab.Node, uint64, error) {
	s, err := c.status(ctx, ask)
	if err != nil {
		return nil, 0, err
	}
	for _, svc := range s.Services {
		if svc.Name != service || svc.State != "running" {
			continue
		}
		if n := c.named(svc.Holder); n != nil {
			return n, svc.Epoch, nil
		}
	}
	return nil, 0, errors.New("the service runs nowhere")
}

// await polls until ok, and tells the last reason if it never is.
func await(ctx context.Context, bound time.Duration, what string, ok func() error) error {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	for {
		err := ok()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s within %s: %w", what, bound, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// awaitOnline waits until every node that is up is online.
func (c *cluster) awaitOnline(ctx context.Context, bound time.Duration) error {
	return await(ctx, bound, "every node online", func() error {
		s, err := c.status(ctx, c.anyUp())
		if err != nil {
			return err
		}
		online := 0
		for _, n := range s.Nodes {
			if n.State == "online" {
				online++
			}
		}
		voters := 0
		for _, n := range s.Nodes {
			if n.Voter {
				voters++
			}
		}
		if up := c.countUp(); online < up || !s.Quorum || voters < min(up, 5) && voters%2 == 0 || voters < min(up, 3) {
			return fmt.Errorf("%d of %d online, %d voters, quorum %v", online, up, voters, s.Quorum)
		}
		return nil
	})
}

func (c *cluster) countUp() int {
	up := 0
	for _, n := range c.Nodes() {
		if n.IsUp() {
			up++
		}
	}
	return up
}

// awaitRunning waits until the service runs and answers.
func (c *cluster) awaitRunning(ctx context.Context, bound time.Duration) error {
	if err := await(ctx, bound, "service running", func() error {
		_, _, err := c.holder(ctx, c.anyUp())
		return err
	}); err != nil {
		return err
	}
	_, err := lab.AwaitAnswer(ctx, c.address, session, bound)
	return err
}

// awaitHolder waits until the service runs on another node than not, and answers.
func (c *cluster) awaitHolder(ctx context.Context, bound time.Duration, not *lab.Node) (*lab.Node, error) {
	var found *lab.Node
	err := await(ctx, bound, "service on another node than "+not.Name, func() error {
		n, _, err := c.holder(ctx, c.anyUp(not))
		if err == nil && n == not {
			err = fmt.Errorf("still on %s", not.Name)
		}
		found = n
		return err
	})
	return found, err
}
