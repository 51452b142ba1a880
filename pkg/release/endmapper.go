package release

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// mapper returns who the mapper is: by the record, or by what it wrote itself if the starter died first.
func mapperOf(runDir string, r Record) Process {
	if m, err := LoadMapper(runDir, r.Service); err == nil && m.PID != 0 {
		return m.Process
	}
	return r.Mapper
}

// endMapper asks the mapper to end and believes only what it wrote as its last act: flushed, unlocked, no error.
func (t *teardown) endMapper(ctx context.Context) error {
	mapper := mapperOf(t.runDir, t.r)
	if mapper.PID == 0 {
		return t.noMapper()
	}
	if err := mapper.Signal(int(unix.SIGTERM)); err != nil {
		return err
	}
	if err := mapper.Wait(ctx); err != nil {
		return err
	}
	err := until(ctx, t.o.Mapper, func() (bool, error) {
		populated, err := t.cgroups.Populated(t.r.Cgroups.Map)
		return !populated && err == nil, err
	})
	if err != nil {
		return fmt.Errorf("mapper's cgroup: %w", err)
	}
	return t.lastWord(mapper)
}

// lastWord reads the mapper's own verdict. A kernel mapping needs none: that the kernel let go of the device says that
// it was flushed and unlocked.
func (t *teardown) lastWord(mapper Process) error {
	exit, err := LoadMapperExit(t.runDir, t.r.Service)
	switch {
	case errors.Is(err, fs.ErrNotExist) && t.r.Storage.Kind == KindKRBD:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("mapper ended without a word: what it held back may be lost")
	case err != nil:
		return err
	case exit.Process != mapper:
		return errors.New("mapper ended without a word, an older one's is there")
	case !exit.Clean():
		return fmt.Errorf("mapper ended with flushed=%t unlocked=%t ioErrors=%d", exit.Flushed, exit.Unlocked, exit.IOErrors)
	}
	return nil
}

// noMapper: the starter died before the mapper told its name, or there never was one. Only an empty cgroup says that
// nothing was ever mapped, and a mapper that came and went unseen is not known to have been clean.
func (t *teardown) noMapper() error {
	populated, err := t.cgroups.Populated(t.r.Cgroups.Map)
	switch {
	case err != nil:
		return fmt.Errorf("mapper's cgroup: %w", err)
	case populated:
		return errors.New("a mapper runs that never said its name")
	case t.r.Storage.Device != "" && t.r.Storage.Kind != KindKRBD:
		return errors.New("a device was mapped and nobody knows by whom")
	case t.r.Storage.Address != "" && t.r.Storage.Kind != KindKRBD:
		return errors.New("a storage client was opened and nobody knows how it ended")
	}
	return nil
}

// force takes down what did not go by itself: it cuts the FUSE connection, so that whatever hangs on it fails, kills
// the mapper, unmounts and detaches. It makes the node clean, never vacated. It stays within lastResort.
func (t *teardown) force(ctx context.Context) {
	t.step(context.WithoutCancel(ctx), "force", lastResort, func(ctx context.Context) error {
		m, _ := LoadMapper(t.runDir, t.r.Service) // without one the mount tells
		var errs []error
		if conn := t.connection(m); conn != 0 {
			errs = append(errs, t.devices.Abort(conn))
		}
		errs = append(errs, t.empty(ctx, t.r.Cgroups.Map, lastResort/5))
		errs = append(errs, t.forceMounts(ctx))
		short, cancel := context.WithTimeout(ctx, lastResort/5)
		defer cancel()
		errs = append(errs, t.unmap(short), t.forceFuse(ctx))
		return errors.Join(errs...)
	})
	if !t.res.Contained { // what could not be killed may have hung on the connection that is cut now
		t.contain(ctx)
	}
}

// forceMounts tries again plainly, as nothing hangs on a connection that is cut, then detaches.
func (t *teardown) forceMounts(ctx context.Context) error {
	short, cancel := context.WithTimeout(ctx, lastResort/5)
	defer cancel()
	if t.unmount(short) == nil {
		return nil
	}
	mounts, err := t.volumeMounts()
	if err != nil {
		return err
	}
	short, cancel = context.WithTimeout(ctx, lastResort/5)
	defer cancel()
	var errs []error
	for i := len(mounts) - 1; i >= 0; i-- {
		errs = append(errs, t.mounts.Unmount(short, mounts[i].Path, true))
	}
	return errors.Join(errs...)
}

// forceFuse unmounts the mapper's own mount. The force flag cuts the connection even where fusectl is not mounted.
func (t *teardown) forceFuse(ctx context.Context) error {
	mounted, err := t.fuseMounted()
	if err != nil || !mounted {
		return err
	}
	short, cancel := context.WithTimeout(ctx, lastResort/5)
	defer cancel()
	return t.mounts.Unmount(short, t.r.Storage.FuseDir, true)
}

func (t *teardown) fuseMounted() (bool, error) {
	mounts, err := t.mounts.List()
	for _, m := range mounts {
		if t.r.Storage.FuseDir != "" && m.Path == t.r.Storage.FuseDir {
			return true, err
		}
	}
	return false, err
}

// verify looks once more at everything: no step is believed that the kernel does not confirm.
func (t *teardown) verify(ctx context.Context) {
	t.step(context.WithoutCancel(ctx), "verify", slack, func(ctx context.Context) error {
		mounts, err1 := t.volumeMounts()
		fuse, err2 := t.fuseMounted()
		devices, err3 := t.devices.Find(ctx, t.want())
		mapping, err4 := t.cgroups.Populated(t.r.Cgroups.Map)
		running, err5 := t.cgroups.Populated(t.r.Cgroups.Run)
		if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
			return err
		}
		if running {
			t.res.Contained = false
		}
		if len(mounts) > 0 || fuse || len(devices) > 0 || mapping || running {
			return fmt.Errorf("still here: %d mounts, FUSE mount %t, devices %v, mapper %t, processes %t",
				len(mounts), fuse, devices, mapping, running)
		}
		return nil
	})
}
