package release

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A call into a file system or a device that hangs can't be given up by the thread that made it, and a process with
// such a thread can't end. So these calls are made by a child: this same program, which init below turns into one
// call. Its exit status is the call's errno. A child that hangs is left to the kernel.
const childName = "keepone-release-call"

func init() {
	if len(os.Args) >= 2 && os.Args[0] == childName {
		os.Exit(childMain(os.Args[1:]))
	}
}

// The calls that a child makes.
const (
	callSync      = "sync"       // path major minor
	callUnmount   = "unmount"    // path flags
	callDetach    = "detach"     // loop device, connection, its backing_file in sysfs, that file: as sought
	callBackedBy  = "backed-by"  // loop device, minor of the backing file's device: 0 if so, ENODEV if not
	callRead      = "read"       // device
	callForget    = "forget"     // loop control, number of the loop device
	callRemoveRBD = "remove-rbd" // file, id
)

func childMain(args []string) int {
	err := unix.EINVAL
	call, known := map[string]func([]string) error{
		callSync: childSync, callUnmount: childUnmount, callDetach: childDetach,
		callBackedBy: childBackedBy, callRead: childRead, callForget: childForget, callRemoveRBD: childRemoveRBD,
	}[args[0]]
	if !known {
		return int(err)
	}
	if failed := call(args[1:]); failed == nil {
		return 0
	} else if !errors.As(failed, &err) || err == 0 || err > 255 {
		return int(unix.EIO)
	}
	return int(err)
}

// childSync writes back the one file system that is meant, never another one that shows at its path once it is gone.
func childSync(args []string) error {
	if len(args) != 3 {
		return unix.EINVAL
	}
	fd, err := unix.Open(args[0], unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if strconv.Itoa(int(unix.Major(st.Dev))) != args[1] || strconv.Itoa(int(unix.Minor(st.Dev))) != args[2] {
		return unix.ENODEV
	}
	return unix.Syncfs(fd)
}

func childUnmount(args []string) error {
	if len(args) != 2 {
		return unix.EINVAL
	}
	flags, err := strconv.Atoi(args[1])
	if err != nil {
		return unix.EINVAL
	}
	return unix.Unmount(args[0], flags)
}

// childDetach looks once more at what the device is, and frees that very one: while it is open its number can't become
// another's. It may have between the look that found it and now.
func childDetach(args []string) error {
	if len(args) != 4 {
		return unix.EINVAL
	}
	fd, err := openLoop(args[:1])
	if err != nil {
		return err
	}
	err = backedBy(fd, args[1])
	switch {
	case errors.Is(err, unix.ENXIO):
		return nil // not attached any more
	case errors.Is(err, unix.ENODEV):
		return nil // another's by now
	case err != nil || args[1] == "0": // it can't say, as once its connection is dead
		text, err := os.ReadFile(args[2])
		if err != nil || backingFile(text) != args[3] {
			return ignoreErrno(err, unix.ENOENT)
		}
	}
	return ignoreErrno(unix.IoctlSetInt(fd, unix.LOOP_CLR_FD, 0), unix.ENXIO)
}

// backedBy returns ENODEV if the device is over another FUSE connection, and ENXIO if it is not attached. Connection 0
// is any.
func backedBy(fd int, connection string) error {
	info, err := unix.IoctlLoopGetStatus64(fd)
	if err != nil {
		return err
	}
	if connection != "0" && (strconv.Itoa(int(unix.Minor(info.Device))) != connection || unix.Major(info.Device) != 0) {
		return unix.ENODEV
	}
	return nil
}

// backingFile is the path in a loop device's backing_file, as this mount namespace has it.
func backingFile(text []byte) string {
	return strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), " (deleted)")
}

func childForget(args []string) error {
	if len(args) != 2 {
		return unix.EINVAL
	}
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return unix.EINVAL
	}
	control, err := unix.Open(args[0], unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return unix.IoctlSetInt(control, unix.LOOP_CTL_REMOVE, n)
}

func childBackedBy(args []string) error {
	if len(args) != 2 {
		return unix.EINVAL
	}
	fd, err := openLoop(args[:1])
	if err != nil {
		return err
	}
	if err := backedBy(fd, args[1]); !errors.Is(err, unix.ENXIO) {
		return err
	}
	return unix.ENODEV
}

func openLoop(args []string) (int, error) {
	if len(args) != 1 {
		return -1, unix.EINVAL
	}
	// Read-only: the last close of a writable one would write back, and may hang.
	return unix.Open(args[0], unix.O_RDONLY|unix.O_CLOEXEC, 0)
}

func childRemoveRBD(args []string) error {
	if len(args) != 2 {
		return unix.EINVAL
	}
	return os.WriteFile(args[0], []byte(args[1]), 0)
}

func ignoreErrno(err error, errno unix.Errno) error {
	if errors.Is(err, errno) {
		return nil
	}
	return err
}

// inChild makes one call in a child, until ctx ends. Then the outcome is not known: the call may still happen.
func inChild(ctx context.Context, args ...string) error {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = append([]string{childName}, args...)
	cmd.Env = []string{"GOMAXPROCS=1"}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", args[0], err)
	}
	ended := make(chan error, 1)
	// Not joined if the child hangs in the kernel: there is nothing that would end it.
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		return childError(args[0], err)
	case <-ctx.Done():
	}
	_ = cmd.Process.Kill()
	select {
	case <-ended:
	case <-time.After(childGrace):
	}
	return fmt.Errorf("%s: %w", args[0], ctx.Err())
}

// childGrace lets a child that can be killed die before we go on, so that no call of ours is under way any more.
const childGrace = 50 * time.Millisecond

func childError(call string, err error) error {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		return fmt.Errorf("%s: %w", call, unix.Errno(exit.ExitCode()))
	default:
		return fmt.Errorf("%s: %w", call, err)
	}
}
