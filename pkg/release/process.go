package release

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Process names one process for good: a pid alone may be reused.
type Process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // field 22 of /proc/PID/stat, in clock ticks since boot
}

// Self names the calling process.
func Self() (Process, error) { return ProcessOf(os.Getpid()) }

// ProcessOf names the process that has pid now; fs.ErrNotExist if none has.
func ProcessOf(pid int) (Process, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if errors.Is(err, unix.ESRCH) {
		err = fs.ErrNotExist
	}
	if err != nil {
		return Process{}, fmt.Errorf("read process %d: %w", pid, err)
	}
	stat, err := parseStat(string(text))
	if err != nil {
		return Process{}, fmt.Errorf("read process %d: %w", pid, err)
	}
	return Process{PID: pid, Start: stat.start}, nil
}

type procStat struct {
	comm  string
	state byte
	start uint64
}

// parseStat reads /proc/PID/stat. The name stands in parentheses and may itself hold any byte.
func parseStat(text string) (procStat, error) {
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return procStat{}, errors.New("stat without a name")
	}
	fields := strings.Fields(text[end+1:])
	if len(fields) < 20 || len(fields[0]) != 1 {
		return procStat{}, errors.New("stat is short")
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return procStat{}, fmt.Errorf("stat's start time: %w", err)
	}
	return procStat{comm: text[open+1 : end], state: fields[0][0], start: start}, nil
}

// Alive reports whether this very process still runs; a zombie does not. With an error it is not known.
func (p Process) Alive() (bool, error) {
	if p.PID <= 0 {
		return false, nil
	}
	text, err := os.ReadFile("/proc/" + strconv.Itoa(p.PID) + "/stat")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read process %d: %w", p.PID, err)
	}
	stat, err := parseStat(string(text))
	if err != nil {
		return false, fmt.Errorf("read process %d: %w", p.PID, err)
	}
	// A zombie leader may still have living threads, but only while it is being killed: its cgroup tells.
	return stat.start == p.Start && stat.state != 'Z' && stat.state != 'X', nil
}

// Signal sends sig to this very process, never to one that has its pid by now. A process that is gone is no
// error.
func (p Process) Signal(sig int) error {
	fd, err := p.open()
	if err != nil || fd < 0 {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	err = unix.PidfdSendSignal(fd, unix.Signal(sig), nil, 0)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal process %d: %w", p.PID, err)
	}
	return nil
}

// open returns a pidfd, or -1 if the process is gone. The start time is read after the pidfd is held, so that
// both speak of the same process.
func (p Process) open() (int, error) {
	if p.PID <= 0 {
		return -1, nil
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return -1, nil
	}
	if err != nil {
		return -1, fmt.Errorf("open process %d: %w", p.PID, err)
	}
	alive, err := p.Alive()
	if err != nil || !alive {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// waitPoll bounds how late an ended context is noticed.
const waitPoll = 50 * time.Millisecond

// Wait returns nil once the process has ended, or the context's error.
func (p Process) Wait(ctx context.Context) error {
	fd, err := p.open()
	if err != nil || fd < 0 {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	for {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(waitPoll.Milliseconds()))
		switch {
		case err != nil && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("wait for process %d: %w", p.PID, err)
		case err == nil && n > 0:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("wait for process %d: %w", p.PID, ctx.Err())
		}
	}
}
