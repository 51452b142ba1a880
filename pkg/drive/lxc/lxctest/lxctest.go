// Package lxctest makes the directory of a small container for tests: busybox and a script as its init.
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

// initScript stands in for an init that halts when it is asked to. Busybox's own ends with a global sync(2), which
// waits for every hung device of the machine, also those of other tests.
const initScript = `#!/bin/sh
trap 'exit 0' USR1
while :; do
	sleep 1000 &
	wait $!
done
`

// Make makes config and rootfs in dir. It needs /bin/busybox, statically linked.
func Make(dir string) error {
	rootfs := filepath.Join(dir, "rootfs")
	for _, d := range []string{"bin", "sbin", "proc", "sys", "dev", "tmp", "root", "var", "run"} {
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
		os.WriteFile(filepath.Join(rootfs, "sbin/init"), []byte(initScript), 0o755),
		os.WriteFile(filepath.Join(dir, "config"), []byte(config), 0o644),
	}
	for _, applet := range []string{"sh", "cat", "sleep", "true", "echo", "poweroff", "halt", "mount", "umount", "ip", "dd", "sync"} {
		errs = append(errs, os.Symlink("busybox", filepath.Join(rootfs, "bin", applet)))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("make rootfs: %w", err)
	}
	return nil
}
