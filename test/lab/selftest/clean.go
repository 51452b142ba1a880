package selftest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/keepone-ha/keepone/test/lab"
)

func init() {
	lab.Register(lab.Case{Name: "lab/clean-after-end", Outside: cleanAfter(syscall.SIGTERM)})
	lab.Register(lab.Case{Name: "lab/clean-after-ctrl-c", Outside: cleanAfter(syscall.SIGINT)})
	lab.Register(lab.Case{Name: "lab/clean-after-kill", Outside: cleanAfter(syscall.SIGKILL)})
	lab.Register(lab.Case{Name: "lab/side-by-side", Outside: sideBySide})
}

// upLab is another lab program that keeps a lab up.
type upLab struct {
	cmd *exec.Cmd
	out *output
}

// output collects what a lab says and tells when it is up.
type output struct {
	mu   sync.Mutex
	text strings.Builder
	up   chan struct{}
	once sync.Once
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(p)
	if strings.Contains(o.text.String(), "the lab is up") {
		o.once.Do(func() { close(o.up) })
	}
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func startUp(ctx context.Context, h *lab.Host, args ...string) (*upLab, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find own program: %w", err)
	}
	u := &upLab{out: &output{up: make(chan struct{})}}
	u.cmd = exec.CommandContext(ctx, exe, append([]string{"-bin", h.BinDir, "up"}, args...)...)
	u.cmd.Stdout, u.cmd.Stderr = io.Writer(u.out), u.out
	u.cmd.Cancel = func() error { return u.cmd.Process.Signal(syscall.SIGTERM) }
	u.cmd.WaitDelay = 30 * time.Second
	if err := u.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start another lab: %w", err)
	}
	select {
	case <-u.out.up:
		return u, nil
	case <-time.After(30 * time.Second):
		return nil, errors.Join(errors.New("the other lab is not up: "+u.out.String()), u.end(syscall.SIGTERM))
	}
}

func (u *upLab) end(sig syscall.Signal) error {
	if err := u.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("signal the other lab: %w", err)
	}
	err := u.cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && sig == syscall.SIGKILL {
		return nil
	}
	if err != nil {
		return fmt.Errorf("end the other lab: %w: %s", err, u.out)
	}
	return nil
}

// traces lists what is on the machine of this lab: it knows its own name in cgroups, and its work folder. Nothing
// of another lab counts.
func (u *upLab) traces() []string {
	_, rest, _ := strings.Cut(u.out.String(), "work folder: ")
	work, _, _ := strings.Cut(rest, "\n")
	group := fmt.Sprintf("/keepone-lab-%d-", u.cmd.Process.Pid)
	var found []string
	mention := func(what, glob string, marks ...string) {
		paths, _ := filepath.Glob(glob)
		for _, path := range paths {
			text, _ := os.ReadFile(path)
			for _, mark := range marks {
				if strings.Contains(string(text), mark) {
					found = append(found, what+" "+path)
				}
			}
		}
	}
	mention("process", "/proc/[0-9]*/cgroup", group)
	mention("mount", "/proc/self/mounts", work)
	mention("loop device", "/sys/block/loop*/loop/backing_file", work)
	for _, glob := range []string{"/sys/fs/cgroup" + group + "*", "/sys/fs/cgroup/*" + group + "*", work, "/sys/class/net/n[0-9]l[0-9]"} {
		paths, _ := filepath.Glob(glob)
		found = append(found, paths...)
	}
	return found
}

// leavesNothing waits a little: the kernel ends namespaces a moment after their last process.
func (u *upLab) leavesNothing(ctx context.Context) error {
	var left []string
	for range 50 {
		if left = u.traces(); len(left) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return fmt.Errorf("left behind: %s", strings.Join(left, "\n"))
}

// cleanAfter ends a lab in a way; after SIGKILL the next run of the program sweeps.
func cleanAfter(sig syscall.Signal) func(context.Context, *lab.Host) error {
	return func(ctx context.Context, h *lab.Host) error {
		u, err := startUp(ctx, h, "-n", "2")
		if err != nil {
			return err
		}
		during := len(u.traces())
		if err := u.end(sig); err != nil {
			return err
		}
		if during < 10 {
			return fmt.Errorf("expected a running lab to show many traces, got %d: the check is blind", during)
		}
		if sig == syscall.SIGKILL {
			if err := sweepOnce(ctx, h); err != nil {
				return err
			}
		}
		return u.leavesNothing(ctx)
	}
}

// sweepOnce waits out the second for which a sweep spares what a starting lab may not have locked yet.
func sweepOnce(ctx context.Context, h *lab.Host) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(1200 * time.Millisecond):
	}
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	out, err := exec.CommandContext(ctx, exe, "-bin", h.BinDir, "sweep").CombinedOutput()
	if err != nil {
		return fmt.Errorf("sweep: %w: %s", err, out)
	}
	return nil
}

// sideBySide has two labs up at once; the end of one is nothing to the other.
func sideBySide(ctx context.Context, h *lab.Host) error {
	one, err := startUp(ctx, h, "-n", "2", "-no-ceph")
	if err != nil {
		return err
	}
	two, err := startUp(ctx, h, "-n", "2", "-no-ceph")
	if err != nil {
		return errors.Join(err, one.end(syscall.SIGTERM))
	}
	err = one.end(syscall.SIGTERM)
	if signalErr := two.cmd.Process.Signal(syscall.Signal(0)); signalErr != nil {
		err = errors.Join(err, fmt.Errorf("the second lab ended with the first: %w", signalErr))
	}
	return errors.Join(err, two.end(syscall.SIGTERM), one.leavesNothing(ctx), two.leavesNothing(ctx))
}
