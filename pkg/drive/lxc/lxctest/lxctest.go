// Package lxctest makes the directory of a small container for tests: busybox as its init.
package lxctest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

const config = `lxc.signal.halt = SIGUSR1
lxc.mount.auto = proc sys
lxc.autodev = 1
lxc.pty.max = 16
lxc.tty.max = 0
`

const inittab = `::sysinit:/bin/true
::respawn:/bin/sleep 1000
::shutdown:/bin/true
`

// Make makes config and rootfs in dir. It needs /bin/busybox, statically linked.
func Make(dir string) error {
	rootfs := filepath.Join(dir, "rootfs")
	for _, d := range []string{"bin", "sbin", "etc/init.d", "proc", "sys", "dev", "tmp", "root", "var", "run"} {
		if err := os.MkdirAll(filepath.Join(rootfs, d), 0o755); err != nil {
			return fmt.Errorf("make rootfs: %w", err)
		}
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return fmt.Errorf("read busybox: %w", err)
	}
	errs := []error{
		os.WriteFile(filepath.Join(rootfs, "bin/busybox"), busybox, 0o755),
		os.WriteFile(filepath.Join(rootfs, "etc/inittab"), []byte(inittab), 0o644),
		os.WriteFile(filepath.Join(dir, "config"), []byte(config), 0o644),
		os.Symlink("../bin/busybox", filepath.Join(rootfs, "sbin/init")),
	}
	for _, applet := range []string{"sh", "cat", "sleep", "true", "echo", "poweroff", "halt", "mount", "umount", "ip", "dd", "sync"} {
		errs = append(errs, os.Symlink("busybox", filepath.Join(rootfs, "bin", applet)))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("make rootfs: %w", err)
	}
	return nil
}
