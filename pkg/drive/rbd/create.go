package rbd

import (
	"context"

	"github.com/ceph/go-ceph/rbd"
	"golang.org/x/sys/unix"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/worker"
)

// Create makes an image that fits keepone: exclusive-lock, and none of the features that bring locks and maps of
// their own into a take-over. It refuses one that exists.
func (c *Conn) Create(volume core.VolumeSpec, size uint64) error {
	ioctx, err := c.pool(volume)
	if err != nil {
		return err
	}
	options := rbd.NewRbdImageOptions()
	defer options.Destroy()
	if err := options.SetUint64(rbd.ImageOptionFeatures, rbd.FeatureLayering|rbd.FeatureExclusiveLock); err != nil {
		return classify(err, "choose features of image")
	}
	err = rbd.CreateImage(ioctx, volume.Image, size, options)
	if errno(err) == unix.EEXIST {
		return fail(worker.CodeImageExists, "image %s exists already: name another in the cluster document, or remove it with rbd rm %s",
			Name(volume), Name(volume))
	}
	return classify(err, "make image "+Name(volume))
}

// Remove takes away an image that Create made and that nobody uses.
func (c *Conn) Remove(volume core.VolumeSpec) error {
	ioctx, err := c.pool(volume)
	if err != nil {
		return err
	}
	return classify(rbd.RemoveImage(ioctx, volume.Image), "remove image "+Name(volume))
}

// Strangers lists everybody who owns or watches the image besides this connection.
func (i *Image) Strangers(ctx context.Context) ([]string, error) {
	who, err := i.Clients(ctx)
	return append(who.Owners, who.Watchers...), err
}
