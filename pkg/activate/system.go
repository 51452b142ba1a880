package activate

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepone-ha/keepone/pkg/drive/blockfs"
	"github.com/keepone-ha/keepone/pkg/release"
	"github.com/keepone-ha/keepone/pkg/worker"
)

// KernelDisk is the Disk of this machine.
type KernelDisk struct{}

type kernelLoop struct {
	*blockfs.Loop
	file string
}

func (l kernelLoop) Name() string { return l.Device }

func (l kernelLoop) Cleared(ctx context.Context) error {
	return blockfs.Cleared(ctx, l.Device, l.file)
}

// Attach implements Disk.
func (KernelDisk) Attach(ctx context.Context, file string) (Loop, error) {
	loop, err := blockfs.Attach(ctx, file)
	if err != nil {
		return nil, err
	}
	return kernelLoop{loop, file}, nil
}

// Check implements Disk.
func (KernelDisk) Check(ctx context.Context, device, fs string) error {
	return blockfs.Check(ctx, device, fs)
}

// Mount implements Disk.
func (KernelDisk) Mount(ctx context.Context, device, dir, fs string) error {
	return blockfs.Mount(ctx, device, dir, fs)
}

// busyPause is between two tries to unmount while LXC's monitor of a killed container lets go.
const busyPause = 10 * time.Millisecond

// Unmount implements Disk. It waits until nothing uses the volume.
func (KernelDisk) Unmount(ctx context.Context, dir string) error {
	for {
		err := blockfs.Unmount(ctx, dir)
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		timer := time.NewTimer(busyPause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
}

// Full implements Disk.
func (KernelDisk) Full(ctx context.Context, dir string) bool { return blockfs.Full(ctx, dir) }

// Carries implements Disk.
func (KernelDisk) Carries(ctx context.Context, run string, rec release.Record) error {
	return release.Carries(ctx, run, rec)
}

// KillInit ends a container by its init: its PID namespace ends with it.
func KillInit(ctx context.Context, init release.Process) error {
	if err := init.Signal(int(unix.SIGKILL)); err != nil {
		return err
	}
	return init.Wait(ctx)
}

// Stream is the Caller at the other end of standard input and output.
type Stream struct {
	out  *json.Encoder
	lane chan error
}

// NewStream reads Go lines from in and writes Progress lines to out. Its reader ends with in.
func NewStream(in io.Reader, out io.Writer) *Stream {
	s := &Stream{out: json.NewEncoder(out), lane: make(chan error, 1)}
	go func() {
		var answer worker.Go
		line, err := bufio.NewReader(in).ReadBytes('\n')
		if err == nil {
			err = json.Unmarshal(line, &answer)
		}
		switch {
		case err != nil:
			s.lane <- fmt.Errorf("the caller is gone: %w", err)
		case !answer.Go:
			s.lane <- errors.New("the caller said no")
		default:
			s.lane <- nil
		}
	}()
	return s
}

// Report implements Caller.
func (s *Stream) Report(p worker.Progress) error {
	if err := s.out.Encode(p); err != nil {
		return fmt.Errorf("write progress: %w", err)
	}
	return nil
}

// AwaitGo implements Caller.
func (s *Stream) AwaitGo(ctx context.Context) error {
	select {
	case err := <-s.lane:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
