package lxc

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/keepone-ha/keepone/pkg/core"
)

// setIPv6 gives a container that has just started its IPv6 addresses and gateway. LXC can only have the kernel look
// for duplicates first: for a second or more nobody could reach the address, and the announcement of it, which the
// container hears too, would count as a duplicate and leave the address dead for good. keepone has looked before.
func setIPv6(pid int, n core.NetworkSpec) (err error) {
	if n.Bridge == "" || !hasIPv6(n) {
		return nil
	}
	space, err := netns.GetFromPid(pid)
	if err != nil {
		return fmt.Errorf("open its network: %w", err)
	}
	defer func() { err = errors.Join(err, space.Close()) }()
	inside, err := netlink.NewHandleAt(space, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open its network: %w", err)
	}
	defer inside.Close()
	link, err := inside.LinkByName(linkInside)
	if err != nil {
		return fmt.Errorf("find %s: %w", linkInside, err)
	}
	for _, a := range n.Addresses {
		if a.Addr().Is4() {
			continue
		}
		addr := &netlink.Addr{IPNet: ipNet(a), Flags: unix.IFA_F_NODAD}
		if err := inside.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("add %s: %w", a, err)
		}
	}
	if n.Gateway.Is6() {
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: n.Gateway.AsSlice()}
		if err := inside.RouteAdd(route); err != nil {
			return fmt.Errorf("add gateway %s: %w", n.Gateway, err)
		}
	}
	return nil
}

func hasIPv6(n core.NetworkSpec) bool {
	return n.Gateway.Is6() || slices.ContainsFunc(n.Addresses, func(a netip.Prefix) bool { return !a.Addr().Is4() })
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
