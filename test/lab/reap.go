package lab

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// reaper is the one place of a PID 1 that waits for processes: it hands the status of those that it started to
// whoever asked for them, and buries orphans.
type reaper struct {
	mu      sync.Mutex
	waiting map[int]chan<- syscall.WaitStatus
	signals chan os.Signal
}

func newReaper() *reaper {
	r := &reaper{waiting: map[int]chan<- syscall.WaitStatus{}, signals: make(chan os.Signal, 1)}
	signal.Notify(r.signals, syscall.SIGCHLD)
	return r
}

// start runs a program; its end arrives on the channel. The lock is held over the fork, so that even a program
// that ends at once is known by the time it is reaped.
func (r *reaper) start(argv, env []string, files []uintptr) (int, <-chan syscall.WaitStatus, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	attr := &syscall.ProcAttr{Env: env, Files: files, Sys: &syscall.SysProcAttr{Setsid: true}}
	pid, err := syscall.ForkExec(argv[0], argv, attr)
	if err != nil {
		return 0, nil, err
	}
	ended := make(chan syscall.WaitStatus, 1)
	r.waiting[pid] = ended
	return pid, ended, nil
}

// run reaps until ctx ends. The ticker covers a signal that was merged with another.
func (r *reaper) run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		r.drain()
		select {
		case <-ctx.Done():
			return
		case <-r.signals:
		case <-tick.C:
		}
	}
}

func (r *reaper) drain() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		r.mu.Lock()
		ended := r.waiting[pid]
		delete(r.waiting, pid)
		r.mu.Unlock()
		if ended != nil {
			ended <- status
		}
	}
}
