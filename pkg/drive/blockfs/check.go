package blockfs

import (
	"context"
	"errors"
	"fmt"

	"github.com/keepone-ha/keepone/pkg/drive"
	"github.com/keepone-ha/keepone/pkg/worker"
)

// The exit codes of e2fsck(8) are a sum; up to this one the file system is good to mount.
const fsckCorrected = 1

// Check repairs what can be repaired without a person. For ext4 that is e2fsck -p: it replays the journal and does
// more only if the file system knows of errors. XFS has no such check: its mount replays the log, and xfs_repair
// refuses a log that was not replayed.
func Check(ctx context.Context, device, fs string) error {
	if fs != "ext4" {
		return nil
	}
	_, err := drive.Run(ctx, "e2fsck", "-p", device)
	return judge(ctx, device, err)
}

func judge(ctx context.Context, device string, err error) error {
	var ran *drive.Error
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fail(worker.CodeUnknown, "check %s: no end within the bound: %v", device, err)
	case errors.As(err, &ran) && ran.Code == fsckCorrected:
		return nil
	case errors.As(err, &ran) && ran.Code > 0 && ran.Code&4 != 0:
		return fail(worker.CodeFileSystem, "the file system on %s is damaged beyond what is repaired unasked: stop the service, map the "+
			"image by hand and run e2fsck -f: %v", device, err)
	}
	return fail(worker.CodeFileSystem, "the file system on %s is damaged, or is none: %v", device, err)
}

// Make makes an empty file system. It refuses a device that has one.
func Make(ctx context.Context, device, fs string) error {
	var argv []string
	switch fs {
	case "ext4":
		argv = []string{"mkfs.ext4", "-q", "-E", "nodiscard", device}
	case "xfs":
		argv = []string{"mkfs.xfs", "-q", "-K", device}
	default:
		return fail(worker.CodeFileSystem, "file system %q is not known: ext4 and xfs are", fs)
	}
	if _, err := drive.Run(ctx, argv...); err != nil {
		return fmt.Errorf("make file system: %w", err)
	}
	return nil
}
