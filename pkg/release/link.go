package release

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// netLinks sets links by ioctl: no netlink library, so that the guard stays small.
type netLinks struct{}

// Down clears IFF_UP.
func (netLinks) Down(name string) error {
	return withInterface(name, func(fd int, req *unix.Ifreq) error {
		flags := req.Uint16()
		if flags&unix.IFF_UP == 0 {
			return nil
		}
		req.SetUint16(flags &^ unix.IFF_UP)
		return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
	})
}

// Up reads IFF_UP.
func (netLinks) Up(name string) (bool, error) {
	up := false
	err := withInterface(name, func(_ int, req *unix.Ifreq) error {
		up = req.Uint16()&unix.IFF_UP != 0
		return nil
	})
	return up, err
}

// withInterface calls do with the link's flags; not at all if there is no such link.
func withInterface(name string, do func(int, *unix.Ifreq) error) error {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return fmt.Errorf("name link %q: %w", name, err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket for link %s: %w", name, err)
	}
	defer func() { _ = unix.Close(fd) }()
	err = unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, req)
	if err == nil {
		err = do(fd, req)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("set link %s: %w", name, err)
	}
	return nil
}
