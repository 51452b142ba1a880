package netif

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// errNoDevice is the kernel's word for a link that went away.
const errNoDevice = unix.ENODEV

// Duplicate asks on the bridge who has addr, without claiming it, and returns the hardware address of the
// first that answers, nil if nobody does. It takes about 300 ms at most: RFC 5227 §2.1 waits longer, but this
// asks after a fence, when only a mistake in the network's plan is left to be found. It must be called before
// the container that is to have addr runs. It asks with the bridge's own hardware address, so that no switch
// learns the container's before it is here. An answer from the container's own hardware address is another
// container with it: it counts as any other.
func Duplicate(ctx context.Context, bridge string, addr netip.Addr) (net.HardwareAddr, error) {
	addr = addr.Unmap()
	link, err := net.InterfaceByName(bridge)
	if err != nil {
		return nil, fmt.Errorf("probe %s on %s: %w", addr, bridge, err)
	}
	frame, kind := solicitation(link.HardwareAddr, addr), etherIPv6
	if addr.Is4() {
		frame, kind = arpProbe(link.HardwareAddr, addr), etherARP
	}
	conn, err := packet.Listen(link, packet.Raw, kind, nil)
	if err != nil {
		return nil, fmt.Errorf("probe %s on %s: open socket: %w", addr, bridge, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	who, err := ask(ctx, conn, frame, addr)
	if err != nil {
		return nil, fmt.Errorf("probe %s on %s: %w", addr, bridge, err)
	}
	return who, nil
}

const (
	asks    = 3
	askWait = 100 * time.Millisecond // after each; a host on the same Ethernet answers within a few
)

func ask(ctx context.Context, conn *packet.Conn, frame []byte, addr netip.Addr) (net.HardwareAddr, error) {
	to := &packet.Addr{HardwareAddr: net.HardwareAddr(frame[:6])}
	for range asks {
		if _, err := conn.WriteTo(frame, to); err != nil {
			return nil, fmt.Errorf("send: %w", err)
		}
		who, err := hear(ctx, conn, addr, time.Now().Add(askWait))
		if who != nil || err != nil {
			return who, err
		}
	}
	return nil, nil
}

// hear reads frames until one claims addr or the time is up.
func hear(ctx context.Context, conn *packet.Conn, addr netip.Addr, until time.Time) (net.HardwareAddr, error) {
	if err := conn.SetReadDeadline(until); err != nil {
		return nil, fmt.Errorf("set deadline: %w", err)
	}
	buffer := make([]byte, 2048)
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n, _, err := conn.ReadFrom(buffer)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, ctx.Err()
		case err != nil:
			return nil, fmt.Errorf("receive: %w", err)
		}
		if who := claims(buffer[:n], addr); who != nil {
			return who, nil
		}
	}
}

// send sends one announcement of each address.
func send(a Announcement) error {
	link, err := net.InterfaceByName(a.Bridge)
	if err != nil {
		return fmt.Errorf("find bridge %s: %w", a.Bridge, err)
	}
	conn, err := packet.Listen(link, packet.Raw, etherARP, nil)
	if err != nil {
		return fmt.Errorf("open socket on %s: %w", a.Bridge, err)
	}
	defer conn.Close()
	for _, addr := range a.Addresses {
		frame := unsolicited(a.MAC, addr.Unmap())
		if addr.Unmap().Is4() {
			frame = garp(a.MAC, addr.Unmap())
		}
		if _, err := conn.WriteTo(frame, &packet.Addr{HardwareAddr: net.HardwareAddr(frame[:6])}); err != nil {
			return fmt.Errorf("announce %s on %s: %w", addr, a.Bridge, err)
		}
	}
	return nil
}
