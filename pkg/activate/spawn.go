package activate

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepone-ha/keepone/pkg/drive/rbd/krbd"
	"github.com/keepone-ha/keepone/pkg/release"
	"github.com/keepone-ha/keepone/pkg/worker"
)

// endGrace is how long a mapper that reported its failure may take to end.
const endGrace = 2 * time.Second

// Spawner is the Mapper that runs in a process of its own, in a session and a cgroup of its own: the helper, the
// daemon and a containment may end without it (its device would hang), and it is the last thing to be stopped.
type Spawner struct {
	Argv []string // the mapper, which gets the Plan on standard input
}

// Map implements Mapper.
func (s Spawner) Map(ctx context.Context, plan worker.Plan) (worker.Mapped, error) {
	cmd := exec.Command(s.Argv[0], s.Argv[1:]...) //nolint:noctx // it outlives ctx
	group, err := worker.FreshCgroup(plan.MapCgroup)
	if err != nil {
		return worker.Mapped{}, err
	}
	defer func() { _ = group.Close() }()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: int(group.Fd())}
	log, err := os.OpenFile(filepath.Join(plan.Volume.RunDir, "mapper.log"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return worker.Mapped{}, fmt.Errorf("make mapper log: %w", err)
	}
	defer func() { _ = log.Close() }()
	cmd.Stderr = log
	in, err := cmd.StdinPipe()
	if err != nil {
		return worker.Mapped{}, fmt.Errorf("start mapper: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return worker.Mapped{}, fmt.Errorf("start mapper: %w", err)
	}
	if err := startFlusher(cmd); err != nil {
		return worker.Mapped{}, fmt.Errorf("start mapper: %w", err)
	}
	return s.talk(ctx, plan, cmd, in, out)
}

// talk hands the plan over and waits for the one answer. Standard input stays open until then: if this process
// dies first, the mapper sees its end and takes nothing.
func (s Spawner) talk(ctx context.Context, plan worker.Plan, cmd *exec.Cmd, in io.WriteCloser, out io.Reader) (worker.Mapped, error) {
	type answer struct {
		mapped worker.Mapped
		err    error
	}
	answered := make(chan answer, 1)
	go func() { // ends with the mapper's line or with the mapper
		var a answer
		if a.err = json.NewEncoder(in).Encode(plan); a.err == nil {
			a.err = json.NewDecoder(bufio.NewReader(out)).Decode(&a.mapped)
		}
		answered <- a
	}()
	var a answer
	select {
	case a = <-answered:
	case <-ctx.Done():
		a.err = fail(worker.CodeUnknown, "the mapper is not ready within the bound: Ceph hangs, or is very slow")
	}
	if a.err == nil && a.mapped.Failure != nil {
		a.err = a.mapped.Failure
	}
	if a.err == nil && a.mapped.PID > 0 {
		_ = in.Close()
		go func() { _ = cmd.Wait() }() // reaps it, should it end before this short-lived process
		return a.mapped, nil
	}
	_ = in.Close()
	if err := end(cmd, a.err != nil && ctx.Err() != nil); err != nil && a.err == nil {
		a.err = err
	}
	if errors.Is(a.err, io.EOF) {
		a.err = fail(worker.CodeUnknown, "the mapper ended without a word: see %s", filepath.Join(plan.Volume.RunDir, "mapper.log"))
	}
	if a.err != nil {
		// Nothing is on top of it yet. A mapper that was killed leaves its mount; one that is gone is no error.
		_ = unix.Unmount(release.FuseDir(plan.Run, plan.Service), unix.UMOUNT_NOFOLLOW)
	}
	return a.mapped, a.err
}

// end waits for a mapper that has no more to do, and kills it if it does not end or now is asked for.
func end(cmd *exec.Cmd, now bool) error {
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if !now {
		timer := time.NewTimer(endGrace)
		defer timer.Stop()
		select {
		case err := <-ended:
			return err
		case <-timer.C:
		}
	}
	_ = cmd.Process.Kill()
	timer := time.NewTimer(endGrace)
	defer timer.Stop()
	select {
	case err := <-ended:
		return err
	case <-timer.C:
		return errors.New("the mapper was killed and is not gone")
	}
}

// startFlusher starts the mapper as a process that memory reclaim waits for: it must not wait for its own device
// when it needs memory. The mark is the thread's and passes to the child; without the capability it is not set.
func startFlusher(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_IO_FLUSHER, 1, 0, 0, 0); err == nil {
		defer func() { _ = unix.Prctl(unix.PR_SET_IO_FLUSHER, 0, 0, 0, 0) }()
	}
	return cmd.Start()
}

// Unmap implements Mapper.
func (s Spawner) Unmap(ctx context.Context, plan worker.Plan, mapped worker.Mapped) error {
	if mapped.PID == 0 {
		return krbd.Unmap(ctx, mapped.Device)
	}
	mapper, err := release.LoadMapper(plan.Run, plan.Service)
	if err != nil {
		return err
	}
	if err := mapper.Signal(int(unix.SIGTERM)); err != nil {
		return err
	}
	if err := mapper.Wait(ctx); err != nil {
		return fmt.Errorf("unmap volume: %w", err)
	}
	exit, err := release.LoadMapperExit(plan.Run, plan.Service)
	if err != nil {
		return fmt.Errorf("the mapper ended without a word: %w", err)
	}
	if exit.Process != mapper.Process || !exit.Clean() {
		return fmt.Errorf("the mapper did not end cleanly: flushed %v, unlocked %v, errors %d", exit.Flushed, exit.Unlocked, exit.IOErrors)
	}
	return nil
}
