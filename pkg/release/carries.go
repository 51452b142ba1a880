package release

import (
	"context"
	"fmt"
	"slices"
)

// Carries returns nil if what lies on top at the volume's mount point is the volume itself: the recorded device, and over
// the recorded image still. Who mounts may be another (a cluster manager's Filesystem resource), its configuration may
// name another device, and a device's number says little: once it is free the kernel gives it to the next image.
func Carries(ctx context.Context, runDir string, r Record) error {
	return system().carries(ctx, runDir, r)
}

func (h *host) carries(ctx context.Context, runDir string, r Record) error {
	mounts, err := h.mounts.List()
	if err != nil {
		return err
	}
	var top *Mount
	for i, m := range mounts {
		if m.Path == r.Storage.Mount {
			top = &mounts[i]
		}
	}
	if top == nil {
		return fmt.Errorf("nothing is mounted at %s", r.Storage.Mount)
	}
	major, minor, err := h.devices.Number(r.Storage.Device)
	if err != nil {
		return err
	}
	if top.Major != major || top.Minor != minor {
		return fmt.Errorf("at %s there is %s (%d:%d), and the volume is %s (%d:%d): correct the device of whoever mounts it",
			top.Path, top.Source, top.Major, top.Minor, r.Storage.Device, major, minor)
	}
	t := &teardown{host: h, runDir: runDir, r: r}
	devices, err := h.devices.Find(ctx, t.want())
	if err != nil {
		return err
	}
	if !slices.Contains(devices, r.Storage.Device) {
		return fmt.Errorf("%s at %s is not over the image of %s any more", r.Storage.Device, top.Path, r.Service)
	}
	return nil
}
