package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Room is where a lab lives: namespaces of its own, and one work folder that can be written to. A command gets it.
type Room struct {
	Work   string // the only folder outside of nodes that can be written to
	BinDir string // where the product's programs are, or are not yet
	Stdio  Stdio

	exe    string
	cgroup string
}

// ErrNotInRoom is returned where the lab would touch the machine itself.
var ErrNotInRoom = errors.New("not inside a room of its own: run it through keepone-lab")

// roomInit is PID 1 of a room: it shuts the room off from the machine, runs the room's program, and reaps. Its end
// ends the room.
func roomInit(text string) error {
	o, err := decodeOrders(text)
	if err != nil {
		return err
	}
	if os.Getpid() != 1 {
		return ErrNotInRoom
	}
	if err := shutOff(o); err != nil {
		return err
	}
	stop := make(chan os.Signal, 4)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	r := newReaper()
	pid, ended, err := r.start([]string{o.Exe, "room-run", text}, os.Environ(), []uintptr{0, 1, 2})
	if err != nil {
		return fmt.Errorf("start the room's program: %w", err)
	}
	go r.run(context.Background())
	for {
		select {
		case <-stop:
			_ = syscall.Kill(pid, syscall.SIGTERM)
		case status := <-ended:
			if status.Exited() {
				os.Exit(status.ExitStatus())
			}
			return fmt.Errorf("run the room's program: %v", status.Signal())
		}
	}
}

// shutOff makes everything but the work folder read-only and drops what must not be pinned by this namespace: a
// cloned FUSE or loop mount of the machine would keep its server from ending.
func shutOff(o orders) error {
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount(o.Work, o.Work, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind work folder: %w", err)
	}
	mounts, err := readMounts("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for _, m := range mounts {
		foreign := m.isFUSE() || strings.HasPrefix(m.source, "/dev/loop") || strings.HasPrefix(m.source, "/dev/rbd")
		if foreign && !below(o.Work, m.point) && !below(o.BinDir, m.point) {
			_ = unix.Unmount(m.point, unix.MNT_DETACH) // one that stays is only pinned for as long as the room lives
		}
	}
	if err := unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("make the machine's files read-only: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount proc: %w", err)
	}
	if err := unix.Mount("fusectl", fuseControl, "fusectl", 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("mount fusectl: %w", err)
	}
	return nil
}

// below is true if path is dir or in it.
func below(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../") && dir != "/"
}

// roomRun is the room's program: it runs the command that the outer program named.
func roomRun(ctx context.Context, text string, stdio Stdio) error {
	o, err := decodeOrders(text)
	if err != nil {
		return err
	}
	var net unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &net); err != nil {
		return fmt.Errorf("read own network namespace: %w", err)
	}
	if os.Getppid() != 1 || net.Ino == o.OuterNet {
		return ErrNotInRoom
	}
	command, known := commands[o.Command]
	if !known || command.Inside == nil {
		return fmt.Errorf("%w: no verb %q inside a room", ErrUsage, o.Command)
	}
	room := &Room{Work: o.Work, BinDir: o.BinDir, Stdio: stdio, exe: o.Exe, cgroup: o.Cgroup}
	return command.Inside(ctx, room, o.Args)
}
