//go:build lab

// Package nstest runs a package's lab tests as the init of fresh namespaces: whatever they start, mount or set up
// ends with them, and nothing of it touches the machine.
package nstest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const mark = "KEEPONE_NSTEST"

// CgroupRoot is cgroup v2 inside.
const CgroupRoot = "/sys/fs/cgroup"

// Main runs the tests inside, around them set up and what it returns. Call it from TestMain and exit with its code.
func Main(m *testing.M, setup func() (teardown func(), err error)) int {
	switch os.Getenv(mark) {
	case "":
		return enter()
	case "enter":
		fmt.Fprintln(os.Stderr, "set up namespaces:", prepare())
		return 1
	}
	teardown, err := setup()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer teardown()
	return m.Run()
}

// enter runs this very test binary once more, as the init of its namespaces, in a cgroup of its own.
func enter() int {
	base := CgroupRoot
	if _, err := os.Stat(base + "/unified/cgroup.procs"); err == nil {
		base += "/unified"
	}
	group := filepath.Join(base, fmt.Sprintf("keepone-nstest-%d", os.Getpid()))
	if err := os.Mkdir(group, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, "make cgroup (root is needed):", err)
		return 1
	}
	defer removeCgroup(group)
	dir, err := os.Open(group)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = dir.Close() }()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...) //nolint:noctx // go test bounds it
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), mark+"=enter")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL, UseCgroupFD: true, CgroupFD: int(dir.Fd()),
	}
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

func removeCgroup(group string) {
	_ = os.WriteFile(filepath.Join(group, "cgroup.kill"), []byte("1"), 0o600)
	var dirs []string
	_ = filepath.WalkDir(group, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	for i := len(dirs) - 1; i >= 0; i-- {
		_ = os.Remove(dirs[i])
	}
}

// prepare does not come back: it ends in the tests themselves. The cgroup namespace is made only here, where this
// process is in its cgroup already, and that becomes its root. It is one thread's, so the tests are executed from it.
func prepare() error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("unshare cgroup namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Unmount("/sys", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount sys: %w", err)
	}
	for _, m := range [][2]string{
		{"/proc", "proc"}, {"/sys", "sysfs"}, {CgroupRoot, "cgroup2"}, {"/sys/fs/fuse/connections", "fusectl"}, {"/run", "tmpfs"},
	} {
		if err := unix.Mount("none", m[0], m[1], 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m[0], err)
		}
	}
	if err := loopbackUp(); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.Setenv(mark, "inside"); err != nil {
		return err
	}
	return unix.Exec(self, os.Args, os.Environ())
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("set loopback up: %w", err)
	}
	return nil
}
