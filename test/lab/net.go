package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The room's two wires: 0 carries services and Ceph, 1 the BMCs as well. Nothing of them exists outside.
const (
	links = 2
	// RoomAddress is the room's own address on link 0, where Ceph listens unless it is spread over the nodes.
	RoomAddress = "10.77.0.254"
)

// LinkAddress is node i's address on a link.
func LinkAddress(node, link int) string { return fmt.Sprintf("10.%d.0.%d", 77+link, node) }

// ServiceAddress is an address on link 0 that no node has, for service number n from 1 to 9.
func ServiceAddress(n int) string { return fmt.Sprintf("10.77.0.%d", 50+n) }

// LinkAddress6 is node i's IPv6 address on link 0; 254 is the room.
func LinkAddress6(node int) string { return fmt.Sprintf("fd77::%d", node) }

// ServiceAddress6 is to IPv6 what ServiceAddress is to IPv4.
func ServiceAddress6(n int) string { return LinkAddress6(50 + n) }

// portName is the room's end of a node's link.
func portName(node, link int) string { return fmt.Sprintf("n%dl%d", node, link) }

// network is the switch of the room: two bridges and a filter on their ports.
type network struct{}

// portFilter drops per port and direction. "out" and "in" are the node's view. "talk" is one node's port and the
// number of a UDP or TCP port that nobody hears of from there.
const portFilter = `table bridge lab {
	set out { type ifname; }
	set in { type ifname; }
	set talk { type ifname . inet_proto . inet_service; }
	chain forward {
		type filter hook forward priority 0; iifname @out drop; oifname @in drop;
		iifname . meta l4proto . th dport @talk drop; iifname . meta l4proto . th sport @talk drop;
		oifname . meta l4proto . th dport @talk drop; oifname . meta l4proto . th sport @talk drop;
	}
	chain input { type filter hook input priority 0; iifname @out drop; }
	chain output { type filter hook output priority 0; oifname @in drop; }
}
`

func newNetwork(ctx context.Context, nodes int) (*network, error) {
	if err := linkUp("lo"); err != nil {
		return nil, err
	}
	for link := range links {
		addrs := []string{fmt.Sprintf("10.%d.0.254/24", 77+link)}
		if link == 0 {
			addrs = append(addrs, LinkAddress6(254)+"/64")
		}
		if link == 1 {
			for i := 1; i <= nodes; i++ {
				addrs = append(addrs, fmt.Sprintf("10.78.0.%d/24", 100+i))
			}
		}
		mac := net.HardwareAddr{2, 0, 0, 0, 0xf0, byte(link)}
		if err := makeBridge(fmt.Sprintf("br%d", link), mac, addrs); err != nil {
			return nil, err
		}
	}
	if _, err := runWith(ctx, 5*time.Second, strings.NewReader(portFilter), "nft", "-f", "-"); err != nil {
		return nil, fmt.Errorf("make port filter: %w", err)
	}
	return &network{}, nil
}

// makeBridge makes a bridge in this process's network namespace and brings it up. Its MAC is fixed: else it
// would change with each port.
func makeBridge(name string, mac net.HardwareAddr, addrs []string) error {
	snooping := false
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name, HardwareAddr: mac}, MulticastSnooping: &snooping}
	if err := netlink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("make bridge %s: %w", name, err)
	}
	for _, text := range addrs {
		addr, err := netlink.ParseAddr(text)
		if err != nil {
			return fmt.Errorf("parse address: %w", err)
		}
		if addr.IP.To4() == nil {
			addr.Flags = unix.IFA_F_NODAD // the lab knows whose it is: good at once
		}
		if err := netlink.AddrAdd(bridge, addr); err != nil {
			return fmt.Errorf("add address %s to %s: %w", text, name, err)
		}
	}
	return linkUp(name)
}

func linkUp(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find link %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set link %s up: %w", name, err)
	}
	return nil
}

// attach gives the node whose init is pid a fresh pair of links.
func (w *network) attach(node, pid int) error {
	for link := range links {
		bridge, err := netlink.LinkByName(fmt.Sprintf("br%d", link))
		if err != nil {
			return fmt.Errorf("find bridge: %w", err)
		}
		name := portName(node, link)
		veth := &netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: name, MasterIndex: bridge.Attrs().Index},
			PeerName:  fmt.Sprintf("net%d", link), PeerNamespace: netlink.NsPid(pid),
		}
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("make link %s: %w", name, err)
		}
		if err := linkUp(name); err != nil {
			return err
		}
	}
	return nil
}

// Mislead has the room believe that a machine is at an address which it is not at, as firmly as the kernel believes
// anything about a neighbour that it has just heard.
func (l *Lab) Mislead(address string, mac net.HardwareAddr) error {
	bridge, err := netlink.LinkByName("br0")
	if err != nil {
		return fmt.Errorf("find bridge: %w", err)
	}
	entry := netlink.Neigh{LinkIndex: bridge.Attrs().Index, State: netlink.NUD_REACHABLE, IP: net.ParseIP(address), HardwareAddr: mac}
	if err := netlink.NeighSet(&entry); err != nil {
		return fmt.Errorf("set neighbour %s: %w", address, err)
	}
	return nil
}

// Neighbour is where the room believes an address to be; nil if it believes nothing.
func (l *Lab) Neighbour(address string) (net.HardwareAddr, error) {
	bridge, err := netlink.LinkByName("br0")
	if err != nil {
		return nil, fmt.Errorf("find bridge: %w", err)
	}
	entries, err := netlink.NeighList(bridge.Attrs().Index, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list neighbours: %w", err)
	}
	for _, e := range entries {
		if e.IP.Equal(net.ParseIP(address)) {
			return e.HardwareAddr, nil
		}
	}
	return nil, nil
}

// unplug downs the node's links, as a power cut does to a cable's other end.
func (w *network) unplug(node int) error {
	var errs []error
	for link := range links {
		if l, err := netlink.LinkByName(portName(node, link)); err == nil {
			errs = append(errs, netlink.LinkSetDown(l))
		}
	}
	return errors.Join(errs...)
}

// remove deletes the node's links, at both ends.
func (w *network) remove(node int) error {
	var errs []error
	for link := range links {
		if l, err := netlink.LinkByName(portName(node, link)); err == nil {
			if err := netlink.LinkDel(l); err != nil && !gone(err) {
				errs = append(errs, fmt.Errorf("remove link %s: %w", portName(node, link), err))
			}
		}
	}
	return errors.Join(errs...)
}

func gone(err error) bool {
	var missing netlink.LinkNotFoundError
	return errors.As(err, &missing) || errors.Is(err, os.ErrNotExist) || strings.Contains(err.Error(), "no such device")
}

// Way is a direction of traffic, seen from the node.
type Way int

// The ways that a link can be cut.
const (
	BothWays Way = iota
	Inbound      // nothing reaches the node
	Outbound     // nothing leaves it
)

func (w Way) String() string { return [...]string{"both ways", "inbound", "outbound"}[w] }

// sets names the filter's sets that a way needs.
func (w Way) sets() []string { return [...][]string{{"in", "out"}, {"in"}, {"out"}}[w] }

// AllLinks stands for every link of a node.
const AllLinks = -1

// Isolate drops what passes the node's link, or every link, in a way. Containers on the node's bridge are behind
// the same links. Cuts add up until Heal.
func (n *Node) Isolate(ctx context.Context, link int, way Way) error {
	var script strings.Builder
	for i := range links {
		if link != AllLinks && link != i {
			continue
		}
		for _, set := range way.sets() {
			fmt.Fprintf(&script, "add element bridge lab %s { %q }\n", set, portName(n.Index, i))
		}
	}
	n.lab.Logf("%s: isolate link %s, %v", n.Name, linkWord(link), way)
	return n.filter(ctx, script.String())
}

// Talk is a conversation of the nodes among each other, by its ports.
type Talk struct {
	name     string
	protocol string
	ports    []int
}

// The conversations that can be cut apart from all else.
var (
	// CorosyncTalk is knet's: a port for each link.
	CorosyncTalk = Talk{"corosync", "udp", []int{5405, 5406}}
	// RaftTalk is keeponed's node port.
	RaftTalk = Talk{"Raft", "tcp", []int{7480}}
	// GuardTalk is the guards' heartbeats and the leader's acknowledgements of them.
	GuardTalk = Talk{"heartbeats", "udp", []int{7481, 7482}}
)

// Silence drops one conversation of the node on every link and lets all else pass, until Heal.
func (n *Node) Silence(ctx context.Context, t Talk) error {
	n.lab.Logf("%s: cut off from %s", n.Name, t.name)
	return n.filter(ctx, n.talk("add", t))
}

func (n *Node) talk(verb string, t Talk) string {
	var script strings.Builder
	for i := range links {
		for _, port := range t.ports {
			fmt.Fprintf(&script, "%s element bridge lab talk { %q . %s . %d }\n", verb, portName(n.Index, i), t.protocol, port)
		}
	}
	return script.String()
}

// Heal takes every cut of the node back.
func (n *Node) Heal(ctx context.Context) error {
	var script strings.Builder
	for _, t := range []Talk{CorosyncTalk, RaftTalk, GuardTalk} {
		script.WriteString(n.talk("add", t) + n.talk("delete", t))
	}
	for i := range links {
		for _, set := range BothWays.sets() {
			// Adding first makes deleting what is not there no error.
			fmt.Fprintf(&script, "add element bridge lab %s { %q }\n", set, portName(n.Index, i))
			fmt.Fprintf(&script, "delete element bridge lab %s { %q }\n", set, portName(n.Index, i))
		}
	}
	n.lab.Logf("%s: heal", n.Name)
	return n.filter(ctx, script.String())
}

func (n *Node) filter(ctx context.Context, script string) error {
	if _, err := runWith(ctx, 5*time.Second, strings.NewReader(script), "nft", "-f", "-"); err != nil {
		return fmt.Errorf("filter links of %s: %w", n.Name, err)
	}
	return nil
}

func linkWord(link int) string {
	if link == AllLinks {
		return "all"
	}
	return fmt.Sprint(link)
}
