package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepone-ha/keepone/pkg/activate"
	"github.com/keepone-ha/keepone/pkg/activate/takeover"
	"github.com/keepone-ha/keepone/pkg/drive/rbd"
	"github.com/keepone-ha/keepone/pkg/drive/rbd/imagefs"
	"github.com/keepone-ha/keepone/pkg/drive/rbd/krbd"
	"github.com/keepone-ha/keepone/pkg/release"
	"github.com/keepone-ha/keepone/pkg/worker"
)

// unmountLimit is how long a mapper that was asked to end waits for its file's last user. The asker has detached
// the loop device before; if it did not, waiting longer would only hide that.
const unmountLimit = 5 * time.Second

// mapped is a volume that this process holds.
type mapped struct {
	plan   worker.Plan
	holder *rbd.Holder
	server *imagefs.Server
}

// helperMap takes the volume of a Plan and serves it until it is asked to end. It says one Mapped line.
func helperMap(ctx context.Context, stdin io.Reader, stdout io.Writer) error {
	signal.Ignore(unix.SIGHUP, unix.SIGPIPE)
	in := bufio.NewReader(stdin)
	var plan worker.Plan
	if err := readLine(in, &plan); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, plan.Limit)
	defer cancel()
	go func() { // ends with the parent, or with its interest
		_, _ = in.ReadByte()
		cancel()
	}()
	if plan.Volume.Spec.Mapper == "krbd" {
		return say(stdout, mapKernel(limited, plan))
	}
	lastToKill()
	m, answer := mapUser(limited, plan)
	if err := say(stdout, answer); err != nil || m == nil {
		if m != nil {
			return errors.Join(err, m.end())
		}
		return err
	}
	if err := detach(); err != nil {
		return errors.Join(err, m.end())
	}
	<-ctx.Done()
	return m.end()
}

func say(stdout io.Writer, answer worker.Mapped) error {
	if err := json.NewEncoder(stdout).Encode(answer); err != nil {
		return fmt.Errorf("answer the activation: %w", err)
	}
	return nil
}

// detach lets go of the parent's pipes: it ends, this process stays.
func detach() error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("detach mapper: %w", err)
	}
	defer func() { _ = null.Close() }()
	for _, fd := range []int{0, 1} {
		if err := unix.Dup2(int(null.Fd()), fd); err != nil {
			return fmt.Errorf("detach mapper: %w", err)
		}
	}
	return nil
}

// mapUser maps through librbd: its own data client, FUSE. On failure nothing of it stays.
func mapUser(ctx context.Context, plan worker.Plan) (*mapped, worker.Mapped) {
	m := &mapped{plan: plan}
	err := m.acquire(ctx)
	var answer worker.Mapped
	if err == nil {
		answer, err = m.serve()
	}
	if err == nil {
		return m, answer
	}
	failure := asFailure(err)
	if m.holder != nil {
		if err := m.end(); err != nil {
			failure.Message += "; " + err.Error()
		}
	}
	return nil, worker.Mapped{Failure: failure}
}

// acquire looks at the image, cuts the old holder off once more, and takes the lock: all of the new holder's part
// of a take-over, whatever the leader did before it (I6).
func (m *mapped) acquire(ctx context.Context) error {
	type dialled struct {
		conn *rbd.Conn
		err  error
	}
	data := make(chan dialled, 1)
	go func() {
		conn, err := rbd.Data(m.plan.Volume.Ceph)
		data <- dialled{conn, err}
	}()
	control, err := rbd.Control(m.plan.Volume.Ceph)
	own := <-data // connecting is bounded
	if err == nil {
		defer control.Close()
		err = own.err
	}
	if err != nil {
		return err // of the process too: the other connection ends with it
	}
	if m.holder, err = own.conn.Hold(m.plan.Volume.Spec); err != nil {
		return err
	}
	if err := prepare(ctx, control, m.plan, m.holder.Address()); err != nil {
		return err
	}
	return takeover.Acquire(ctx, m.holder, m.plan.Epoch, func(ctx context.Context) error {
		return activate.Ready(ctx, guardLease{m.plan.Run}, m.plan)
	})
}

// prepare checks the image and cuts off whoever held it. others are own clients besides the control connection.
func prepare(ctx context.Context, control *rbd.Conn, plan worker.Plan, others ...string) error {
	spec := plan.Volume.Spec
	seen, err := control.Inspect(spec)
	if err != nil {
		return err
	}
	if err := rbd.Fit(spec, seen, plan.Epoch); err != nil {
		return err
	}
	if err := control.CheckSettings(spec); err != nil {
		return err
	}
	img, err := control.Open(spec, others...)
	if err != nil {
		return err
	}
	defer func() { _ = img.Close() }()
	// Also with nobody to cut off: it writes the epoch and refuses a stranger.
	did, err := takeover.CutOff(ctx, img, worker.CutOff{
		Volume: spec, Epoch: max(plan.Epoch, plan.Takeover.Epoch), Addresses: plan.Takeover.Addresses, From: plan.Takeover.From,
	})
	if err != nil {
		return err
	}
	if len(did.Watchers) > 0 {
		return &worker.Failure{Code: worker.CodeUnknown, Message: fmt.Sprintf("clients of the last holder still watch the image: %v", did.Watchers)}
	}
	return nil
}

func (m *mapped) serve() (worker.Mapped, error) {
	var err error
	if m.server, err = imagefs.Serve(release.FuseDir(m.plan.Run, m.plan.Service), m.holder); err != nil {
		return worker.Mapped{}, err
	}
	connection, err := m.server.Connection()
	if err != nil {
		return worker.Mapped{}, err
	}
	err = release.SaveMapper(m.plan.Run, m.plan.Service, release.Mapper{
		Address: m.holder.Address(), Connection: connection, Image: rbd.Name(m.plan.Volume.Spec),
	})
	if err != nil {
		return worker.Mapped{}, err
	}
	return worker.Mapped{
		PID: os.Getpid(), Address: m.holder.Address(), File: m.server.Path(), Connection: connection,
	}, nil
}

// end gives the volume back and leaves the word that it did. Only with that word does it count as vacated.
func (m *mapped) end() error {
	var exit release.MapperExit
	var errs []error
	if m.server != nil {
		ctx, cancel := context.WithTimeout(context.Background(), unmountLimit)
		defer cancel()
		unmounted := m.server.Unmount(ctx)
		flushed := m.server.Flush()
		// Still in use, something above may hold what it never wrote: that is not flushed (I8).
		exit.Flushed = unmounted == nil && flushed == nil
		exit.IOErrors = m.server.Errors()
		errs = append(errs, unmounted, flushed)
	}
	if m.server != nil {
		unlocked := m.holder.Unlock(context.Background())
		exit.Unlocked = unlocked == nil
		errs = append(errs, unlocked)
	}
	errs = append(errs, m.holder.Close())
	if m.server != nil {
		errs = append(errs, release.SaveMapperExit(m.plan.Run, m.plan.Service, exit))
	}
	return errors.Join(errs...)
}

// mapKernel maps through the kernel. No process stays, so what the data client can't do here is done around it.
func mapKernel(ctx context.Context, plan worker.Plan) worker.Mapped {
	device, address, err := acquireKernel(ctx, plan)
	if err != nil {
		return worker.Mapped{Failure: asFailure(err)}
	}
	return worker.Mapped{Device: device, Address: address}
}

func acquireKernel(ctx context.Context, plan worker.Plan) (device, address string, err error) {
	control, err := rbd.Control(plan.Volume.Ceph)
	if err != nil {
		return "", "", err
	}
	defer control.Close()
	if err := prepare(ctx, control, plan); err != nil {
		return "", "", err
	}
	if err := activate.Ready(ctx, guardLease{plan.Run}, plan); err != nil {
		return "", "", err
	}
	// A new client of the kernel's gets the latest osdmap as it connects: it needs no barrier.
	if device, address, err = krbd.Map(ctx, plan.Volume); err != nil {
		return "", "", err
	}
	// The lock is held: a higher epoch now means that a later grant came in between (I1, I2).
	seen, err := control.Inspect(plan.Volume.Spec)
	if err == nil {
		err = rbd.Fit(plan.Volume.Spec, seen, plan.Epoch)
	}
	if err != nil {
		return "", "", errors.Join(err, krbd.Unmap(context.WithoutCancel(ctx), device))
	}
	return device, address, nil
}
