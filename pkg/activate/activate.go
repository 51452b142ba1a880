// Package activate brings one service up on this node, step by step: lease, map, mount, container. It runs in a
// helper process inside the service's own cgroup, under the service's lock, and asks tombstone and lease before
// each step, so that a starter that was paused and wakes after a stop does nothing (I4, I7). What it brought up it
// takes down again when a later step fails; whatever it could not, the record leads to.
package activate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/release"
	"github.com/keepone-ha/keepone/pkg/worker"
)

// Lease is the node's guard.
type Lease interface {
	// Lease returns until when this instance may run service at epoch; ok is false if it may not now.
	Lease(ctx context.Context, service core.ServiceName, epoch core.Epoch) (until boottime.Time, ok bool, err error)
}

// Mapper brings the volume here: checks, take-over, lock, device.
type Mapper interface {
	Map(ctx context.Context, plan worker.Plan) (worker.Mapped, error)
	// Unmap ends what Map began: flush, unlock, gone. It fails if any of it can't be told.
	Unmap(ctx context.Context, plan worker.Plan, mapped worker.Mapped) error
}

// Disk is the file system on the volume.
type Disk interface {
	Attach(ctx context.Context, file string) (Loop, error)
	Check(ctx context.Context, device, fs string) error
	Mount(ctx context.Context, device, dir, fs string) error
	Unmount(ctx context.Context, dir string) error
	Full(ctx context.Context, dir string) bool
	// Carries returns nil if the volume itself is mounted at its mount point, and nothing else.
	Carries(ctx context.Context, run string, rec release.Record) error
}

// Loop is a loop device that clears itself after its last user.
type Loop interface {
	Name() string
	Keep() error                       // it stays when its last user is gone
	Drop() error                       // takes Keep back
	Release() error                    // lets it go; once
	Cleared(ctx context.Context) error // waits
}

// Container is what runs on the volume.
type Container interface {
	Start(ctx context.Context, plan worker.Plan) (initPID, haltSignal int, err error)
	Kill(ctx context.Context, init release.Process) error
}

// Caller is who ordered the activation.
type Caller interface {
	Report(worker.Progress) error
	// AwaitGo returns nil once the client's address is committed with the grant (I6).
	AwaitGo(ctx context.Context) error
}

// Parts are what an activation works with.
type Parts struct {
	Lease     Lease
	Mapper    Mapper
	Disk      Disk
	Container Container
	Caller    Caller
}

const (
	// lockLimit is how long an activation waits for one before it that is about to end.
	lockLimit = 2 * time.Second
	// undoLimit bounds what is taken down after a failure; each step of it gets its part.
	undoLimit = 10 * time.Second
)

// run is one activation under way.
type run struct {
	Parts
	plan   worker.Plan
	record release.Record
	mapped worker.Mapped
	last   time.Time // when the step before was reported
	undo   []func(context.Context) error
}

// Run carries the plan out. It reports every step, and a failure as the last one after what was brought up has
// been taken down again; the error it returns is the same failure.
func Run(ctx context.Context, plan worker.Plan, parts Parts) error {
	ctx, cancel := context.WithTimeout(ctx, plan.Limit)
	defer cancel()
	r := &run{Parts: parts, plan: plan, last: time.Now()}
	err := r.locked(ctx)
	if err == nil {
		return nil
	}
	failure := asFailure(ctx, err)
	if left := r.takeDown(); left != nil {
		failure.Message += "; and what was brought up is not all gone: " + left.Error()
	}
	if err := r.Caller.Report(worker.Progress{Step: worker.StepFailed, Took: r.took(), Failure: failure}); err != nil {
		return errors.Join(failure, err)
	}
	return failure
}

func (r *run) locked(ctx context.Context) error {
	lockCtx, cancel := context.WithTimeout(ctx, lockLimit)
	defer cancel()
	unlock, err := release.Lock(lockCtx, r.plan.Run, r.plan.Service)
	if errors.Is(err, release.ErrBusy) {
		return fail(worker.CodeBusy, "another activation of %s is at work on this node", r.plan.Service)
	}
	if err != nil {
		return err
	}
	r.undo = append(r.undo, func(context.Context) error { unlock(); return nil })
	if err := r.steps(ctx); err != nil {
		return err
	}
	unlock()
	return nil
}

func (r *run) steps(ctx context.Context) error {
	if err := r.ready(ctx); err != nil {
		return err
	}
	// The record comes before any effect, so that a stop finds all of it (I7).
	if err := r.begin(); err != nil {
		return err
	}
	if err := r.report(worker.Progress{Step: worker.StepLease}); err != nil {
		return err
	}
	if !r.plan.Restart {
		if err := r.volume(ctx); err != nil {
			return err
		}
	}
	if r.plan.Stage == core.StagePromoted {
		return nil
	}
	return r.container(ctx)
}

// ready asks the tombstone and the guard. It stands before each step: the starter may have been paused for any
// time since the last one (I4, I7).
func (r *run) ready(ctx context.Context) error { return Ready(ctx, r.Lease, r.plan) }

// Ready returns nil if the plan's attempt is not buried and the grant's lease is live now.
func Ready(ctx context.Context, lease Lease, plan worker.Plan) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("activate %s: %w", plan.Service, err)
	}
	buried, why, err := release.Buried(plan.Run, plan.Service, plan.Epoch, plan.Attempt)
	if err != nil {
		return fail(worker.CodeTombstone, "%s can't tell whether it was stopped: %v", plan.Service, err)
	}
	if buried {
		return fail(worker.CodeTombstone, "%s was stopped meanwhile: %s", plan.Service, why)
	}
	until, ok, err := lease.Lease(ctx, plan.Service, plan.Epoch)
	switch {
	case err != nil:
		return fail(worker.CodeLease, "the guard does not tell the lease of %s: %v", plan.Service, err)
	case !ok || until <= boottime.Now():
		return fail(worker.CodeLease, "no live lease for %s at epoch %d", plan.Service, plan.Epoch)
	}
	return nil
}

func (r *run) report(p worker.Progress) error {
	p.Took = r.took()
	if err := r.Caller.Report(p); err != nil {
		return fmt.Errorf("report step %s: %w", p.Step, err)
	}
	return nil
}

func (r *run) took() time.Duration {
	now := time.Now()
	took := now.Sub(r.last)
	r.last = now
	return took
}

// takeDown undoes in reverse order, also when ctx of the activation has ended. A step that fails leaves those
// before it alone: what is mounted must not lose its device, nor a device its mapper.
func (r *run) takeDown() error {
	ctx, cancel := context.WithTimeout(context.Background(), undoLimit)
	defer cancel()
	for i := len(r.undo) - 1; i >= 0; i-- {
		if err := r.undo[i](ctx); err != nil {
			return err
		}
	}
	return nil
}

func fail(code worker.Code, format string, args ...any) *worker.Failure {
	return &worker.Failure{Code: code, Message: fmt.Sprintf(format, args...)}
}

// asFailure keeps a Failure and calls what ran out of time Unknown, never failed.
func asFailure(ctx context.Context, err error) *worker.Failure {
	var failure *worker.Failure
	if errors.As(err, &failure) {
		return &worker.Failure{Code: failure.Code, Message: err.Error()}
	}
	if ctx.Err() != nil {
		return fail(worker.CodeUnknown, "no end within the bound: %v", err)
	}
	return fail(worker.CodeUnknown, "%v", err)
}
