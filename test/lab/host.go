package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// roomGrace is how long a room may take to end by itself: it races nothing but a person's patience, and is
	// above the bound of Down.
	roomGrace = 25 * time.Second
	// killGrace bounds the end of processes after SIGKILL: a process in an uninterruptible wait is reported, not
	// waited for.
	killGrace = 10 * time.Second
)

// Host is the machine as the outer program sees it.
type Host struct {
	Stdio        Stdio
	BinDir, Work string
	Keep         bool
}

// Entry says what to run in a fresh room.
type Entry struct {
	Command string
	Args    []string
	Work    string // "" makes a fresh folder
	Keep    bool   // keep the folder at the end
}

// prepare refuses where a lab can't run and removes what dead labs left.
func (h *Host) prepare() error {
	exe, err := self()
	if err != nil {
		return err
	}
	// A root shell that was not a login may lack the folders of half the tools.
	if err := os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin"); err != nil {
		return fmt.Errorf("extend PATH: %w", err)
	}
	if h.BinDir == "" {
		h.BinDir = filepath.Dir(exe)
	}
	if h.BinDir, err = filepath.Abs(h.BinDir); err != nil {
		return fmt.Errorf("find program folder: %w", err)
	}
	if err := Require(); err != nil {
		return err
	}
	return sweep()
}

// Enter makes a room, runs one command in it, and cleans up behind it, whatever became of it. A command that
// failed by itself has said why; its error then is only its exit code.
func (h *Host) Enter(ctx context.Context, e Entry) (err error) {
	work, err := openWork(e.Work)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, work.close(e.Keep)) }()
	group, err := openCgroup()
	if err != nil {
		return err
	}
	before := loopNumbers()
	defer func() {
		err = errors.Join(err, group.close(), releaseDeadLoops())
		forgetLoops(before)
	}()
	exe, err := self()
	if err != nil {
		return err
	}
	var net unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &net); err != nil {
		return fmt.Errorf("read own network namespace: %w", err)
	}
	o := orders{
		Command: e.Command, Args: e.Args, Work: work.dir, BinDir: h.BinDir, Exe: exe,
		Cgroup: group.dir, OuterNet: net.Ino,
	}
	return h.spawn(ctx, o, group)
}

// spawn starts the room's PID 1 and waits for its end. The thread that starts it stays: the kernel sends the
// death signal when the starting thread dies, not the process.
func (h *Host) spawn(ctx context.Context, o orders, group *cgroup) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	inner, err := group.child("room")
	if err != nil {
		return err
	}
	defer inner.Close()
	cmd := exec.Command(o.Exe, "room-init", o.encode())
	cmd.Stdout, cmd.Stderr = h.Stdio.Out, h.Stdio.Err
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Pdeathsig:   syscall.SIGKILL,
		Setpgid:     true, // a terminal's ctrl-C reaches the outer program alone, which forwards it
		UseCgroupFD: true, CgroupFD: int(inner.Fd()),
	}
	cmd.WaitDelay = killGrace
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start room: %w", err)
	}
	ended := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		stopRoom(ctx, cmd.Process, ended)
	}()
	err = cmd.Wait()
	close(ended)
	<-stopped
	return roomError(ctx, err)
}

// stopRoom passes the end of ctx on to the room, first as a request.
func stopRoom(ctx context.Context, p *os.Process, ended <-chan struct{}) {
	select {
	case <-ended:
		return
	case <-ctx.Done():
	}
	_ = p.Signal(syscall.SIGTERM)
	select {
	case <-ended:
	case <-time.After(roomGrace):
		_ = p.Kill()
	}
}

func roomError(ctx context.Context, err error) error {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &exit) && exit.Exited():
		return exitCode(exit.ExitCode())
	case ctx.Err() != nil:
		return fmt.Errorf("end room: %w", context.Cause(ctx))
	default:
		return fmt.Errorf("run room: %w", err)
	}
}

// workFolder is the one place that a lab writes to. Its lock tells a living lab's from a dead one's.
type workFolder struct {
	dir  string
	lock *os.File
}

const (
	workPrefix = "keepone-lab-"
	workLock   = ".lab-lock"
	workKeep   = ".lab-keep"
)

func openWork(dir string) (*workFolder, error) {
	var err error
	if dir == "" {
		dir, err = os.MkdirTemp("", workPrefix)
	} else if dir, err = filepath.Abs(dir); err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("make work folder: %w", err)
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, fmt.Errorf("find work folder: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, workLock), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock work folder: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("lock work folder %s: another lab uses it: %w", dir, err)
	}
	return &workFolder{dir: dir, lock: lock}, nil
}

func (w *workFolder) close(keep bool) error {
	defer w.lock.Close()
	if keep {
		return os.WriteFile(filepath.Join(w.dir, workKeep), nil, 0o600)
	}
	if err := os.RemoveAll(w.dir); err != nil {
		return fmt.Errorf("remove work folder: %w", err)
	}
	return nil
}
