// Package netif drives the node's network links for a service: it takes a container's link down and up,
// announces the service's addresses after a takeover and finds out who else answers for them.
package netif

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
)

// ErrNoLink is a link that does not exist.
var ErrNoLink = errors.New("no such link")

// LinkUp takes the link up.
func LinkUp(name string) error {
	link, err := find(name)
	if err != nil {
		return fmt.Errorf("set link %s up: %w", name, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set link %s up: %w", name, err)
	}
	return nil
}

// LinkDown takes the link down (I5: the first step of containment). A link that is gone carries nothing, so it
// counts as down.
func LinkDown(name string) error {
	link, err := find(name)
	if errors.Is(err, ErrNoLink) {
		return nil
	}
	if err == nil {
		err = netlink.LinkSetDown(link)
	}
	if errors.Is(err, errNoDevice) {
		return nil // went away meanwhile
	}
	if err != nil {
		return fmt.Errorf("set link %s down: %w", name, err)
	}
	return nil
}

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

// Announcement is what Announce tells the network: that MAC has the addresses, behind the bridge.
type Announcement struct {
	Bridge    string
	MAC       net.HardwareAddr
	Addresses []netip.Addr
}

// Announce tells the network now, and again with a back-off for a minute, since switches and routers lose
// frames while they learn. Before each time it asks good, which says whether the lease is live: once it is
// not, Announce ends, for then the addresses may be another node's (I5). It ends early, without error, when
// ctx does. An error is the first announcement's; later ones are passed to failed, which may be nil.
func Announce(ctx context.Context, a Announcement, good func() bool, failed func(error)) error {
	return announce(ctx, good, failed, func() error { return send(a) })
}

// pauses between announcements: dense while a switch may still learn, a minute in all.
var pauses = []time.Duration{
	100 * time.Millisecond, 400 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second,
	8 * time.Second, 15 * time.Second, 30 * time.Second,
}

func announce(ctx context.Context, good func() bool, failed func(error), send func() error) error {
	if !good() {
		return nil
	}
	if err := send(); err != nil {
		return fmt.Errorf("announce addresses: %w", err)
	}
	for _, pause := range pauses {
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
