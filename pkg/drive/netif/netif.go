// Package netif drives the node's network links for a service: it announces the service's addresses
// after a takeover, finds out who else answers for them, and removes what a container left.
package netif

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ErrNoLink is a link that does not exist.
var ErrNoLink = errors.New("no such link")

// Remove takes a link away. One that is gone is no error.
func Remove(name string) error {
	link, err := find(name)
	if errors.Is(err, ErrNoLink) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil && !errors.Is(err, errNoDevice) {
		return fmt.Errorf("remove link %s: %w", name, err)
	}
	return nil
}

func find(name string) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
		return nil, ErrNoLink
	}
	return link, err
}

// Pin ties the container's hardware address to its port of the node's own bridge. Without it a frame of an old
// holder, which has the same address, would move the address to the uplink, and this node would reach the container
// no more. The entry goes away with the port.
func Pin(port string, mac net.HardwareAddr) error {
	link, err := find(port)
	if err != nil {
		return fmt.Errorf("pin %s to %s: %w", mac, port, err)
	}
	err = netlink.NeighSet(&netlink.Neigh{
		LinkIndex: link.Attrs().Index, Family: unix.AF_BRIDGE, HardwareAddr: mac,
		State: netlink.NUD_NOARP, Flags: netlink.NTF_MASTER | netlink.NTF_STICKY,
	})
	if err != nil {
		return fmt.Errorf("pin %s to %s: %w", mac, port, err)
	}
	return nil
}

// Announcement is what Announce tells the network: that MAC has the addresses, behind the bridge.
type Announcement struct {
	Bridge    string
	MAC       net.HardwareAddr
	Addresses []netip.Addr
	// Contested: an old holder's kernel still answers for them, with the same MAC. Each frame of its sends the
	// switches' tables back to it; the announcements must outnumber them, for as long as the service runs here.
	Contested bool
}

// Announce tells the network now, and again with a back-off for a minute, since switches and routers lose
// frames while they learn. Before each time it asks good, which says whether the lease is live: once it is
// not, Announce ends, for then the addresses may be another node's (I5). It ends early, without error, when
// ctx does. An error is the first announcement's; later ones are passed to failed, which may be nil.
func Announce(ctx context.Context, a Announcement, good func() bool, failed func(error)) error {
	pauses := calm
	if a.Contested {
		pauses = contested
	}
	return announce(ctx, pauses, good, failed, func() error { return send(a) })
}

// calm pauses between announcements: dense while a switch may still learn, a minute in all.
func calm(yield func(time.Duration) bool) {
	for _, pause := range []time.Duration{
		100 * time.Millisecond, 400 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second,
		8 * time.Second, 15 * time.Second, 30 * time.Second,
	} {
		if !yield(pause) {
			return
		}
	}
}

// contested pauses never end: what an old holder's kernel says to whoever still talks to it is countered soon.
func contested(yield func(time.Duration) bool) {
	for yield(50 * time.Millisecond) {
	}
}

func announce(ctx context.Context, pauses iter.Seq[time.Duration], good func() bool, failed func(error), send func() error) error {
	if !good() {
		return nil
	}
	if err := send(); err != nil {
		return fmt.Errorf("announce addresses: %w", err)
	}
	for pause := range pauses {
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		if !good() {
			return nil
		}
		if err := send(); err != nil && failed != nil {
			failed(fmt.Errorf("repeat announcement: %w", err))
		}
	}
	return nil
}
