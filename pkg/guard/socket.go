package guard

import (
	"errors"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// openSocket binds a UDP socket that never blocks to addr. It may be bound before the address is there and outlives
// its going and coming back: sending fails meanwhile and no packet leaves over another link, since the kernel still
// refuses to send from an address that is not local. So a link needs no watching and no binding again.
func openSocket(addr netip.AddrPort) (int, error) {
	domain, freebind, level := unix.AF_INET, unix.IP_FREEBIND, unix.IPPROTO_IP
	if addr.Addr().Is6() {
		domain, freebind, level = unix.AF_INET6, unix.IPV6_FREEBIND, unix.IPPROTO_IPV6
	}
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("open socket: %w", err)
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.SetsockoptInt(fd, level, freebind, 1))
	if err == nil {
		err = unix.Bind(fd, sockaddr(addr))
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("bind %s: %w", addr, err)
	}
	return fd, nil
}

func sockaddr(addr netip.AddrPort) unix.Sockaddr {
	if addr.Addr().Is6() {
		return &unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()}
	}
	return &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
}

// receive reads one datagram; ok is false if none waits. An error that the network left on the socket (ICMP) is
// consumed like a datagram of no bytes. The call can't block, so the runtime isn't told of it: it would wake a thread
// to watch over each of the forty calls a second.
func receive(fd int, buf []byte) (n int, ok bool) {
	got, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), unix.MSG_DONTWAIT, 0, 0)
	switch errno {
	case 0:
		return int(got), true
	case unix.EAGAIN, unix.EBADF:
		return 0, false
	}
	return 0, true
}

// send never blocks.
func send(fd int, buf []byte, to netip.AddrPort) error {
	if err := unix.Sendto(fd, buf, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, sockaddr(to)); err != nil {
		return fmt.Errorf("send to %s: %w", to, err)
	}
	return nil
}
