package lxc

import (
	"errors"
	"fmt"
	"os"

	golxc "github.com/lxc/go-lxc"
)

// ErrNotRunning says that there is no such container here.
var ErrNotRunning = errors.New("the container does not run here")

// Exec runs a command in the running container whose volume is mounted at volumes/name, with this process's standard streams, and returns its exit code.
// It is not bounded: the caller bounds this process.
func Exec(volumes, name string, argv []string) (int, error) {
	c, err := golxc.NewContainer(name, volumes)
	if err != nil {
		return -1, fmt.Errorf("open container %s: %w", name, err)
	}
	defer func() { _ = c.Release() }()
	if !c.Running() {
		return -1, fmt.Errorf("run %s in container %s: %w", argv[0], name, ErrNotRunning)
	}
	o := golxc.DefaultAttachOptions
	o.ClearEnv = true
	o.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}
	o.StdinFd, o.StdoutFd, o.StderrFd = os.Stdin.Fd(), os.Stdout.Fd(), os.Stderr.Fd()
	code, err := c.RunCommandStatus(argv, o)
	if err != nil || code < 0 {
		return -1, fmt.Errorf("run %s in container %s: %w", argv[0], name, errors.Join(err, golxc.ErrAttachFailed))
	}
	return code, nil
}
