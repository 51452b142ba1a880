package release

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// The default bounds. They race the stop timeout of whoever asked, and their sum stays below a minute.
const (
	defaultContain = 3 * time.Second
	defaultSync    = 10 * time.Second
	defaultUnmount = 5 * time.Second
	defaultUnmap   = 5 * time.Second
	defaultMapper  = 10 * time.Second
	lastResort     = 5 * time.Second        // for all of abort, kill, unmount and detach by force
	otherStop      = 10 * time.Second       // for another stop to take the storage down; it takes less than one as a rule
	slack          = 2 * time.Second        // a busy machine, and looking at facts in between
	backedByLimit  = 500 * time.Millisecond // one getattr on a FUSE file
)

func (o Options) withDefaults() Options {
	for _, d := range []struct {
		value    *time.Duration
		fallback time.Duration
	}{
		{&o.Contain, defaultContain},
		{&o.Sync, defaultSync},
		{&o.Unmount, defaultUnmount},
		{&o.Unmap, defaultUnmap},
		{&o.Mapper, defaultMapper},
	} {
		if *d.value <= 0 {
			*d.value = d.fallback
		}
	}
	if o.Reason == "" {
		o.Reason = "stopped"
	}
	return o
}

// teardown is one stop under way.
type teardown struct {
	*host
	runDir string
	r      Record
	o      Options
	res    Result
	dirty  bool // some step failed, timed out or could not be looked at: never vacated
}

// step runs one station in its bound. An error of it is a reason against Vacated.
func (t *teardown) step(ctx context.Context, name string, limit time.Duration, do func(context.Context) error) bool {
	started := time.Now()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := do(ctx)
	t.res.Steps = append(t.res.Steps, Step{Name: name, Took: time.Since(started)})
	if err != nil {
		t.fail(fmt.Sprintf("%s: %v", name, err))
	}
	return err == nil
}

func (t *teardown) fail(reason string) {
	t.dirty = true
	t.res.Reasons = append(t.res.Reasons, reason)
}

func (h *host) stopContainer(ctx context.Context, runDir string, r Record, o Options) Result {
	t := &teardown{host: h, runDir: runDir, r: r, o: o}
	t.halt(ctx)
	t.contain(ctx)
	return t.res
}

func (h *host) stop(ctx context.Context, runDir string, r Record, o Options) Result {
	t := &teardown{host: h, runDir: runDir, r: r, o: o}
	t.halt(ctx)
	t.contain(ctx)
	defer t.alone(ctx)()
	t.learnDevice()
	t.recall()
	if !t.storage(ctx) {
		t.stain()
		t.force(ctx)
	}
	t.verify(ctx)
	t.res.Vacated = t.res.Contained && !t.dirty
	if t.res.Vacated {
		if err := Mark(runDir, r.Service, r.Epoch, r.Attempt, MarkVacated, o.Reason); err != nil {
			t.res.Reasons = append(t.res.Reasons, err.Error()) // it is vacated all the same
		}
	}
	return t.res
}

// halt writes the tombstone, then asks the container's init to shut down.
func (t *teardown) halt(ctx context.Context) {
	t.step(ctx, "tombstone", slack, func(context.Context) error {
		return Tombstone(t.runDir, t.r.Service, t.r.Epoch, t.r.Attempt, t.o.Reason)
	})
	if t.o.Graceful <= 0 || t.r.HaltSignal <= 0 || t.r.Init.PID == 0 {
		return
	}
	started := time.Now()
	ctx, cancel := context.WithTimeout(ctx, t.o.Graceful)
	defer cancel()
	_ = Mark(t.runDir, t.r.Service, t.r.Epoch, t.r.Attempt, MarkHalted, t.o.Reason)
	err := t.r.Init.Signal(t.r.HaltSignal)
	if err == nil {
		err = t.r.Init.Wait(ctx)
	}
	t.res.Steps = append(t.res.Steps, Step{Name: "halt", Took: time.Since(started)})
	if err != nil { // it is killed next: what it was told was acknowledged only after a flush (I8)
		t.res.Reasons = append(t.res.Reasons, "halt: container did not shut down by itself: "+err.Error())
	}
}

func (t *teardown) contain(ctx context.Context) {
	c := t.host.contain(ctx, t.runDir, t.r, t.o.Reason, t.o.Contain)
	t.res.Contained = c.Done
	t.res.Steps = append(t.res.Steps, Step{Name: "contain", Took: c.Took})
	for _, reason := range c.Reasons {
		t.fail("contain: " + reason)
	}
}

// alone waits for another stop of the service, of the daemon's or an operator's, to be done with the storage: two at
// once would each take the other's steps for failures, and force what is just then being written back (I8). One that
// hangs, or is paused, is not waited for any longer (I7).
func (t *teardown) alone(ctx context.Context) (unlock func()) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), otherStop) // hurry must not spoil the other's work
	defer cancel()
	unlock, err := lockStop(ctx, t.runDir, t.r.Service)
	if err != nil {
		t.res.Reasons = append(t.res.Reasons, "wait for another stop: "+err.Error())
		return func() {}
	}
	return unlock
}

// recall takes over what an earlier stop of this attempt has seen: the kernel tells of a lost write only once (I8).
func (t *teardown) recall() {
	marks, err := ReadMarks(t.runDir, t.r.Service, t.r.Epoch, t.r.Attempt)
	switch {
	case err != nil:
		t.fail(err.Error())
	case marks.Dirty:
		t.fail("an earlier stop could not write back, unmount and unmap as it should be")
	}
}

// stain notes for every later stop that this one may have lost writes.
func (t *teardown) stain() {
	reason := "unknown"
	if n := len(t.res.Reasons); n > 0 {
		reason = t.res.Reasons[n-1]
	}
	if err := Mark(t.runDir, t.r.Service, t.r.Epoch, t.r.Attempt, MarkDirty, reason); err != nil {
		t.fail(err.Error())
	}
}

// storage takes the volume down as it should be; false: force must.
func (t *teardown) storage(ctx context.Context) bool {
	return t.step(ctx, "sync", t.o.Sync, t.sync) &&
		t.step(ctx, "unmount", t.o.Unmount, t.unmount) &&
		t.step(ctx, "unmap", t.o.Unmap, t.unmap) &&
		t.step(ctx, "mapper", t.o.Mapper, t.endMapper)
}

// sync writes back what is dirty and asks the file system for errors (I8). With the container dead nothing new
// comes.
func (t *teardown) sync(ctx context.Context) error {
	mounts, err := t.volumeMounts()
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if m.Path != t.r.Storage.Mount {
			continue
		}
		if err := t.mounts.Sync(ctx, m); err != nil {
			return err
		}
		if broken := t.mounts.Broken(m); broken != "" {
			t.fail("sync: " + broken)
			t.stain()
		}
	}
	return nil
}

// volumeMounts are the mounts at and below the mount point, and any other mount of the same device.
func (t *teardown) volumeMounts() ([]Mount, error) {
	all, err := t.mounts.List()
	if err != nil || t.r.Storage.Mount == "" {
		return nil, err
	}
	type dev struct{ major, minor uint32 }
	ours := map[dev]bool{}
	for _, m := range all {
		if m.Path == t.r.Storage.Mount && m.Major != 0 {
			ours[dev{m.Major, m.Minor}] = true
		}
	}
	var found []Mount
	for _, m := range all {
		if m.Under(t.r.Storage.Mount) || ours[dev{m.Major, m.Minor}] {
			found = append(found, m)
		}
	}
	return found, nil
}

// unmount goes from the top down. A mount may stay busy a moment while the last mount namespace of the container
// goes away.
func (t *teardown) unmount(ctx context.Context) error {
	return until(ctx, t.o.Unmount, func() (bool, error) {
		mounts, err := t.volumeMounts()
		if err != nil || len(mounts) == 0 {
			return err == nil, err
		}
		top := mounts[len(mounts)-1]
		if err := t.mounts.Unmount(ctx, top.Path, false); err != nil && !errors.Is(err, unix.EINVAL) {
			return false, fmt.Errorf("%s: %w", top.Path, err) // EINVAL: it is gone by now
		}
		return false, nil
	})
}

// learnDevice takes the device from the mount if the starter died before it recorded it.
func (t *teardown) learnDevice() {
	mounts, _ := t.mounts.List()
	for _, m := range mounts {
		if t.r.Storage.Device == "" && m.Path == t.r.Storage.Mount && m.Major != 0 {
			t.r.Storage.Device = m.Source
		}
	}
}

// want describes the device that carries the volume. The connection's number comes from the mount, or from a mapper
// that lives: numbers are used again.
func (t *teardown) want() sought {
	s := t.r.Storage
	w := sought{kind: s.Kind, device: s.Device, pool: s.Pool, image: s.Image, file: filepath.Join(s.FuseDir, "image")}
	m, err := LoadMapper(t.runDir, t.r.Service)
	if err == nil && w.device == "" {
		w.device = m.Device
	}
	w.connection = t.connection(m)
	return w
}

func (t *teardown) connection(m Mapper) uint32 {
	mounts, _ := t.mounts.List()
	for _, mount := range mounts {
		if t.r.Storage.FuseDir != "" && mount.Path == t.r.Storage.FuseDir && mount.Major == 0 {
			return mount.Minor
		}
	}
	if alive, err := m.Alive(); err == nil && alive {
		return m.Connection
	}
	return 0
}

// unmap detaches the device and waits until the kernel shows it no more: it stays while any mount namespace still
// has the file system.
func (t *teardown) unmap(ctx context.Context) error {
	if !t.want().known() {
		return errors.New("the record does not say what was mapped")
	}
	err := until(ctx, t.o.Unmap, func() (bool, error) {
		want := t.want()
		devices, err := t.devices.Find(ctx, want)
		if err != nil || len(devices) == 0 {
			return err == nil, err
		}
		var errs []error
		for _, device := range devices {
			errs = append(errs, t.devices.Detach(ctx, device, want))
		}
		return false, errors.Join(errs...)
	})
	if err == nil {
		t.devices.Forget(ctx, t.r.Storage.Device)
	}
	return err
}
