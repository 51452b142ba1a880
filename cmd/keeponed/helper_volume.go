package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/pkg/activate"
	"github.com/keepone-ha/keepone/pkg/activate/takeover"
	"github.com/keepone-ha/keepone/pkg/drive"
	"github.com/keepone-ha/keepone/pkg/drive/blockfs"
	"github.com/keepone-ha/keepone/pkg/drive/rbd"
	"github.com/keepone-ha/keepone/pkg/drive/rbd/imagefs"
	"github.com/keepone-ha/keepone/pkg/worker"
)

// undoLimit bounds what is taken down after a volume job, also after one that failed.
const undoLimit = 30 * time.Second

// helperVolume carries one VolumeJob out and says a VolumeProgress line for each step.
func helperVolume(ctx context.Context, stdin io.Reader, stdout io.Writer) error {
	var job worker.VolumeJob
	if err := readLine(bufio.NewReader(stdin), &job); err != nil {
		return err
	}
	if job.Limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, job.Limit)
		defer cancel()
	}
	out := json.NewEncoder(stdout)
	step := func(format string, args ...any) {
		_ = out.Encode(worker.VolumeProgress{Step: fmt.Sprintf(format, args...)}) // a caller that is gone stops nothing
	}
	err := errors.New("the volume job asks for nothing")
	switch {
	case job.Create != nil:
		err = createVolume(ctx, job.Volume, *job.Create, step)
	case job.Claim != nil:
		err = claimVolume(ctx, job.Volume, *job.Claim, step)
	}
	last := worker.VolumeProgress{Done: err == nil}
	if err != nil {
		last.Failure = asFailure(err)
	}
	return out.Encode(last)
}

// createVolume leaves a whole volume or, after a failure, no image.
func createVolume(ctx context.Context, v worker.Volume, order worker.CreateVolume, step func(string, ...any)) error {
	if _, err := os.Stat(order.From); err != nil {
		return &worker.Failure{Code: worker.CodeContainerConfig, Message: "read the container's directory: " + err.Error()}
	}
	control, err := rbd.Control(v.Ceph)
	if err != nil {
		return err
	}
	defer control.Close()
	step("make image %s of %d MiB", rbd.Name(v.Spec), order.Size>>20)
	if err := control.Create(v.Spec, order.Size); err != nil {
		return err
	}
	err = fillVolume(ctx, v, order, step)
	if err != nil {
		err = errors.Join(err, control.Remove(v.Spec))
	}
	return err
}

// fillVolume maps the image here for itself alone, makes its file system and unpacks the container.
func fillVolume(ctx context.Context, v worker.Volume, order worker.CreateVolume, step func(string, ...any)) (err error) {
	var undo []func(context.Context) error
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), undoLimit)
		defer cancel()
		for i := len(undo) - 1; i >= 0; i-- {
			err = errors.Join(err, undo[i](ctx))
		}
	}()
	if err := os.MkdirAll(v.RunDir, 0o700); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	dir, err := os.MkdirTemp(v.RunDir, "create-")
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	// Before anything is mounted in it: a bind made later would cover the image's file, which could not be unmounted then.
	private, err := blockfs.Private(dir)
	undo = append(undo, func(ctx context.Context) error {
		if private {
			if err := blockfs.Unmount(ctx, dir); err != nil {
				return err
			}
		}
		return removeEmpty(dir, "mnt", "fuse")
	})
	if err != nil {
		return err
	}
	server, err := serveFresh(ctx, v, filepath.Join(dir, "fuse"), &undo)
	if err != nil {
		return err
	}
	loop, err := blockfs.Attach(ctx, server.Path())
	if err != nil {
		return err
	}
	undo = append(undo, func(ctx context.Context) error {
		return errors.Join(loop.Release(), blockfs.Cleared(ctx, loop.Device, server.Path()))
	})
	step("make file system %s", v.Spec.FS)
	if err := blockfs.Make(ctx, loop.Device, v.Spec.FS); err != nil {
		return err
	}
	mount := filepath.Join(dir, "mnt")
	undo = append(undo, func(ctx context.Context) error { return activate.KernelDisk{}.Unmount(ctx, mount) })
	if err := blockfs.Mount(ctx, loop.Device, mount, v.Spec.FS); err != nil {
		return err
	}
	step("unpack %s", order.From)
	return unpack(ctx, order.From, mount)
}

// serveFresh takes the lock of an image that nobody else knows yet and serves it.
func serveFresh(ctx context.Context, v worker.Volume, dir string, undo *[]func(context.Context) error) (*imagefs.Server, error) {
	data, err := rbd.Data(v.Ceph)
	if err != nil {
		return nil, err
	}
	holder, err := data.Hold(v.Spec)
	if err != nil {
		return nil, err
	}
	*undo = append(*undo, func(context.Context) error { return holder.Close() })
	if err := takeover.Acquire(ctx, holder, 0, func(context.Context) error { return nil }); err != nil {
		return nil, err
	}
	server, err := imagefs.Serve(dir, holder)
	if err != nil {
		return nil, err
	}
	*undo = append(*undo, func(ctx context.Context) error {
		err := errors.Join(server.Unmount(ctx), server.Flush())
		if server.Errors() > 0 {
			err = errors.Join(err, fmt.Errorf("%d operations on the image failed", server.Errors()))
		}
		return err
	})
	return server, nil
}

// removeEmpty removes dir and what is named in it, all of it empty: never a tree that may be a mount.
func removeEmpty(dir string, names ...string) error {
	for _, name := range names {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return os.Remove(dir)
}

// unpack brings the container's directory in with owners, modes, links and extended attributes as they are.
func unpack(ctx context.Context, from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return fmt.Errorf("read %s: %w", from, err)
	}
	argv := []string{
		"tar", "--extract", "--file", from, "--directory", to,
		"--numeric-owner", "--same-owner", "--preserve-permissions", "--xattrs", "--xattrs-include=*", "--acls",
	}
	if info.IsDir() {
		argv = []string{"cp", "--archive", from + "/.", to}
	}
	if _, err := drive.Run(ctx, argv...); err != nil {
		var ran *drive.Error
		if errors.As(err, &ran) && strings.Contains(ran.Output, "No space left on device") {
			return &worker.Failure{Code: worker.CodeVolumeFull, Message: "the container's directory does not fit: ask for a larger --size"}
		}
		return fmt.Errorf("unpack %s: %w", from, err)
	}
	for _, name := range []string{"config", "rootfs"} {
		if _, err := os.Stat(filepath.Join(to, name)); err != nil {
			return &worker.Failure{Code: worker.CodeContainerConfig, Message: fmt.Sprintf(
				"%s has no %s at its top: it must hold the container's config and rootfs", from, name)}
		}
	}
	return nil
}

// claimVolume cuts off everybody who owns or watches the image: the operator vouched that they may be.
func claimVolume(ctx context.Context, v worker.Volume, order worker.ClaimVolume, step func(string, ...any)) error {
	control, err := rbd.Control(v.Ceph)
	if err != nil {
		return err
	}
	defer control.Close()
	img, err := control.Open(v.Spec)
	if err != nil {
		return err
	}
	defer func() { _ = img.Close() }()
	strangers, err := img.Strangers(ctx)
	if err != nil {
		return err
	}
	if len(strangers) == 0 {
		step("nobody else uses image %s", rbd.Name(v.Spec))
	}
	did, err := takeover.CutOff(ctx, img, worker.CutOff{Volume: v.Spec, Epoch: order.Epoch, Addresses: strangers})
	if err != nil {
		return err
	}
	if len(did.Watchers) > 0 {
		return &worker.Failure{Code: worker.CodeUnknown, Message: fmt.Sprintf("still there after they were cut off: %v", did.Watchers)}
	}
	for _, address := range did.Blocklisted {
		step("cut off %s", address)
	}
	return nil
}
