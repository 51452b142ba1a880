package api

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// Listen opens the node port on a link address. The address need not be there yet: a link that comes up late,
// or goes away, must not keep the daemon from starting or from hearing the others.
func Listen(ctx context.Context, addr netip.AddrPort) (net.Listener, error) {
	lc := net.ListenConfig{Control: controlListen, KeepAliveConfig: keepAlive}
	l, err := lc.Listen(ctx, "tcp", addr.String())
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	return l, nil
}

func controlListen(network, address string, c syscall.RawConn) error {
	var inner error
	err := c.Control(func(fd uintptr) {
		if network == "tcp6" {
			inner = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1)
		} else {
			inner = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
		}
	})
	if err != nil {
		return err
	}
	if inner != nil {
		return fmt.Errorf("set freebind: %w", inner)
	}
	return control(network, address, c) // accepted connections inherit it
}

// control sets how soon the kernel gives up on a peer that does not acknowledge.
func control(_, _ string, c syscall.RawConn) error {
	var inner error
	err := c.Control(func(fd uintptr) {
		inner = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
	})
	if err != nil {
		return err
	}
	if inner != nil {
		return fmt.Errorf("set TCP user timeout: %w", inner)
	}
	return nil
}
