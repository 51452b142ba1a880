// Package krbd maps an image with the kernel's own client. The mapping has a client of its own (noshare), so that
// cutting it off harms no guest of this hypervisor, and no process stays behind.
package krbd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/keepone-ha/keepone/pkg/drive"
	"github.com/keepone-ha/keepone/pkg/worker"
)

const (
	// lockSeconds bounds the wait for a lock that a live peer holds: krbd would ask for it for ever.
	lockSeconds = 5
	// requestSeconds fails a request that Ceph does not answer: above Ceph's own recovery of a dead OSD (20 s), so
	// that only a volume that is really away is given up. Without it a process in the container hangs for ever.
	requestSeconds = 60
)

// argv is the `rbd map` that fits the plan. The key goes from the keyring to the kernel's own, never into argv.
func argv(v worker.Volume) []string {
	args := []string{"rbd", "--conf", v.Ceph.Conf, "--id", v.Ceph.User}
	if v.Ceph.Keyring != "" {
		args = append(args, "--keyring", v.Ceph.Keyring)
	}
	image := v.Spec.Pool + "/"
	if v.Spec.Namespace != "" {
		image += v.Spec.Namespace + "/"
	}
	return append(args, "device", "map", "--options",
		fmt.Sprintf("exclusive,noshare,lock_timeout=%d,osd_request_timeout=%d", lockSeconds, requestSeconds), image+v.Spec.Image)
}

// Map maps the image exclusively and returns its block device and its client's address IP:0/NONCE.
func Map(ctx context.Context, v worker.Volume) (device, address string, err error) {
	out, err := drive.Run(ctx, argv(v)...)
	if err != nil {
		return "", "", mapFailure(ctx, err)
	}
	lines := strings.Fields(string(out))
	if len(lines) == 0 || !strings.HasPrefix(lines[len(lines)-1], "/dev/rbd") {
		return "", "", fmt.Errorf("map image: rbd printed %q, not a device", out)
	}
	device = lines[len(lines)-1]
	if address, err = clientAddress("/sys", device); err != nil {
		// Unknown to the cluster it could not be cut off: it must not stay.
		return "", "", errors.Join(err, Unmap(context.WithoutCancel(ctx), device))
	}
	return device, address, nil
}

func mapFailure(ctx context.Context, err error) error {
	code := worker.CodeUnknown
	var ran *drive.Error
	hint := ""
	if ctx.Err() == nil && errors.As(err, &ran) {
		switch {
		case strings.Contains(ran.Output, "No such file or directory"):
			code = worker.CodeImageMissing
		case strings.Contains(ran.Output, "Read-only file system"), ran.Code == int(unix.EROFS):
			code, hint = worker.CodeImageStranger, ": its lock is held by a client that lives"
		case strings.Contains(ran.Output, "modinfo"), strings.Contains(ran.Output, "modprobe"):
			code, hint = worker.CodeCephConfig, `: this kernel has no rbd; set mapper = "librbd"`
		}
	}
	return &worker.Failure{Code: code, Message: err.Error() + hint}
}

// clientAddress reads the mapping's own client from sysfs.
func clientAddress(sys, device string) (string, error) {
	id := strings.TrimPrefix(filepath.Base(device), "rbd")
	text, err := os.ReadFile(filepath.Join(sys, "bus/rbd/devices", id, "client_addr"))
	if err != nil {
		return "", fmt.Errorf("read address of %s: %w", device, err)
	}
	address := strings.TrimSpace(string(text))
	if !strings.Contains(address, "/") {
		return "", fmt.Errorf("read address of %s: %q is none", device, address)
	}
	return address, nil
}

// Unmap takes the mapping down, flushed and unlocked; EBUSY if something still uses it.
func Unmap(ctx context.Context, device string) error {
	if _, err := drive.Run(ctx, "rbd", "device", "unmap", device); err != nil {
		return fmt.Errorf("unmap %s: %w", device, err)
	}
	return nil
}
