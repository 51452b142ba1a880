package activate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/release"
	"github.com/keepone-ha/keepone/pkg/worker"
)

// begin writes the record of this attempt. It refuses to write over one whose volume or container is still here.
func (r *run) begin() error {
	before, err := release.Load(r.plan.Run, r.plan.Service)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if r.plan.Restart {
			return fail(worker.CodeUnknown, "%s can't be restarted in place: nothing of it was started here", r.plan.Service)
		}
	case err != nil:
		return err
	default:
		if err := r.follows(before); err != nil {
			return err
		}
	}
	r.record = r.newRecord(before)
	return r.save()
}

// follows checks that an attempt may come after the recorded one.
func (r *run) follows(before release.Record) error {
	facts, err := release.Running(r.plan.Run, before)
	if err != nil {
		return fmt.Errorf("read what is left of %s: %w", r.plan.Service, err)
	}
	return mayFollow(r.plan, before, facts)
}

func mayFollow(plan worker.Plan, before release.Record, facts release.Facts) error {
	// The run cgroup has this helper itself in it.
	facts.Populated = false
	switch {
	case plan.Restart && before.Storage.Kept && !facts.Mounted && facts.Mapper:
		return fail(worker.CodeBusy, "the volume of %s is mapped, but %s is not mounted at %s: whoever orders the container mounts it first",
			plan.Service, before.Storage.Device, before.Storage.Mount)
	case plan.Restart && (facts.Init || !facts.Mounted || !facts.Mapper):
		return fail(worker.CodeBusy, "%s can't be restarted in place: container runs %v, mounted %v, mapped %v",
			plan.Service, facts.Init, facts.Mounted, facts.Mapper)
	case !plan.Restart && !facts.Idle():
		return fail(worker.CodeBusy, "an earlier attempt of %s (epoch %d, attempt %d) is not taken down: container runs %v, mounted %v, mapped %v",
			plan.Service, before.Epoch, before.Attempt, facts.Init, facts.Mounted, facts.Mapper)
	}
	return nil
}

func (r *run) newRecord(before release.Record) release.Record {
	p := r.plan
	rec := release.Record{
		Service: p.Service, Epoch: p.Epoch, Instance: p.Instance, Attempt: p.Attempt,
		Cgroups:   release.Cgroups{Run: p.Cgroup, Map: p.MapCgroup},
		StopLimit: p.StopLimit,
		Storage: release.Storage{
			Mount: p.Volume.Mount, Kind: release.KindLoop, FuseDir: release.FuseDir(p.Run, p.Service),
			Pool: p.Volume.Spec.Pool, Image: p.Volume.Spec.Image,
		},
		Network: release.Network{
			Bridge: p.Container.Network.Bridge, MAC: p.Container.Network.MAC, Addresses: p.Container.Network.Addresses,
		},
	}
	if p.Container.Link != "" {
		rec.Network.Links = []string{p.Container.Link}
	}
	if p.Volume.Spec.Mapper == "krbd" {
		rec.Storage.Kind, rec.Storage.FuseDir = release.KindKRBD, ""
	}
	if p.Restart {
		rec.Storage, rec.Mapper = before.Storage, before.Mapper
	}
	return rec
}

func (r *run) save() error { return r.record.Save(r.plan.Run) }

// volume maps the image, waits until the client's address is committed, and mounts.
func (r *run) volume(ctx context.Context) error {
	if err := r.mapImage(ctx); err != nil {
		return err
	}
	loop, device, err := r.attach(ctx)
	if err != nil {
		return err
	}
	r.record.Storage.Device = device
	if err := r.save(); err != nil {
		return err
	}
	if err := r.report(worker.Progress{Step: worker.StepMapped, Address: r.mapped.Address, Device: device}); err != nil {
		return err
	}
	// I6: nothing touches the file system until the cluster knows whom to cut off.
	if err := r.Caller.AwaitGo(ctx); err != nil {
		return fmt.Errorf("wait for the client's address to be committed: %w", err)
	}
	if r.plan.Stage == core.StagePromoted {
		return r.keep(ctx, loop)
	}
	if err := r.mount(ctx, device); err != nil {
		return err
	}
	if loop != nil {
		// From here the mount alone keeps the device.
		if err := loop.Release(); err != nil {
			return err
		}
	}
	return r.report(worker.Progress{Step: worker.StepMounted})
}

// keep ends an activation that goes no further than the device: whoever ordered it mounts it.
func (r *run) keep(ctx context.Context, loop Loop) error {
	if err := r.ready(ctx); err != nil {
		return err
	}
	if loop != nil {
		r.undo = append(r.undo, func(context.Context) error { return loop.Drop() })
		if err := loop.Keep(); err != nil {
			return err
		}
	}
	r.record.Storage.Kept = true
	if err := r.save(); err != nil {
		return err
	}
	// A stop that came meanwhile may have detached it before it was kept (I7).
	if err := r.ready(ctx); err != nil {
		return err
	}
	if err := r.report(worker.Progress{Step: worker.StepPromoted}); err != nil {
		return err
	}
	if loop != nil {
		_ = loop.Release() // with the process at the latest
	}
	return nil
}

func (r *run) mapImage(ctx context.Context) error {
	if err := r.ready(ctx); err != nil {
		return err
	}
	mapped, err := r.Mapper.Map(ctx, r.plan)
	if err != nil {
		return fmt.Errorf("map volume: %w", err)
	}
	r.mapped = mapped
	r.undo = append(r.undo, func(ctx context.Context) error { return r.Mapper.Unmap(ctx, r.plan, mapped) })
	r.record.Storage.Address = mapped.Address
	if mapped.PID > 0 {
		if r.record.Mapper, err = release.ProcessOf(mapped.PID); err != nil {
			return fmt.Errorf("the mapper ended at once: %w", err)
		}
	}
	return r.save()
}

// attach returns the block device; the loop is nil if the mapping is one itself.
func (r *run) attach(ctx context.Context) (Loop, string, error) {
	if r.mapped.Device != "" {
		return nil, r.mapped.Device, nil
	}
	if err := r.ready(ctx); err != nil {
		return nil, "", err
	}
	loop, err := r.Disk.Attach(ctx, r.mapped.File)
	if err != nil {
		return nil, "", fmt.Errorf("attach volume: %w", err)
	}
	r.undo = append(r.undo, func(ctx context.Context) error {
		_ = loop.Release() // twice is harmless: it may be the mount's by now
		return loop.Cleared(ctx)
	})
	return loop, loop.Name(), nil
}

func (r *run) mount(ctx context.Context, device string) error {
	v := r.plan.Volume
	if err := r.ready(ctx); err != nil {
		return err
	}
	if err := r.Disk.Check(ctx, device, v.Spec.FS); err != nil {
		return err
	}
	if err := r.ready(ctx); err != nil {
		return err
	}
	// Before the effect: a mount that ends after the bound is to be undone as well.
	r.undo = append(r.undo, func(ctx context.Context) error { return r.Disk.Unmount(ctx, v.Mount) })
	return r.Disk.Mount(ctx, device, v.Mount, v.Spec.FS)
}

func (r *run) container(ctx context.Context) error {
	if err := r.ready(ctx); err != nil {
		return err
	}
	if r.plan.Restart { // another may have mounted it, and some time ago
		if err := r.Disk.Carries(ctx, r.plan.Run, r.record); err != nil {
			return fail(worker.CodeFileSystem, "what the container of %s would run on is not its volume: %v", r.plan.Service, err)
		}
	}
	pid, signal, err := r.Container.Start(ctx, r.plan)
	if err != nil {
		var failure *worker.Failure
		if errors.As(err, &failure) && failure.Code == worker.CodeContainerStart && r.Disk.Full(ctx, r.plan.Volume.Mount) {
			return fail(worker.CodeVolumeFull, "the volume is full: make room, or grow the image and its file system; %s", failure.Message)
		}
		return err
	}
	init, err := release.ProcessOf(pid)
	if err != nil {
		return fail(worker.CodeContainerStart, "the container's init ended at once: %v", err)
	}
	r.undo = append(r.undo, func(ctx context.Context) error { return r.Container.Kill(ctx, init) })
	r.record.Init, r.record.HaltSignal = init, signal
	if err := r.save(); err != nil {
		return err
	}
	// A stop that came while LXC was at work may have missed what LXC made last (I7).
	if err := r.ready(ctx); err != nil {
		return err
	}
	return r.report(worker.Progress{Step: worker.StepStarted, InitPID: pid, HaltSignal: signal})
}
