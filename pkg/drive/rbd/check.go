package rbd

import (
	"errors"
	"strings"
	"time"

	"github.com/ceph/go-ceph/rbd"
	"golang.org/x/sys/unix"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/worker"
)

// harmless is what Check blocklists to see that it may: a documentation address (RFC 5737) that no client has.
const harmless = "192.0.2.1:0/1"

// unsafeSettings lists Ceph's client settings with which a take-over loses data, and the values that are fine.
var unsafeSettings = []struct {
	name string
	fine []string
	why  string
}{
	{"rbd_blocklist_on_break_lock", []string{"true"}, "a lock that is broken must cut its owner off"},
	{"rbd_read_from_replica_policy", []string{"default"}, "a replica may serve what the old holder wrote too late"},
	// A flush that ends on the old holder's own disk is gone with it (I8).
	{"rbd_persistent_cache_mode", []string{"disabled"}, "a flush must reach Ceph, not a local cache"},
}

// Inspect opens the image read-only and says what it sees. It changes nothing and leaves no watch.
func (c *Conn) Inspect(volume core.VolumeSpec) (*worker.Image, error) {
	img, err := c.open(volume, true)
	if err != nil {
		return nil, err
	}
	defer func() { _ = img.Close() }()
	return c.look(img)
}

func (c *Conn) look(img *rbd.Image) (*worker.Image, error) {
	seen := &worker.Image{}
	var err error
	if seen.Size, err = img.GetSize(); err != nil {
		return nil, classify(err, "read size of image")
	}
	features, err := img.GetFeatures()
	if err != nil {
		return nil, classify(err, "read features of image")
	}
	set := rbd.FeatureSet(features)
	seen.Features = set.Names()
	if seen.Epoch, _, err = readEpoch(img); err != nil {
		return nil, err
	}
	self, err := c.Address()
	if err != nil {
		return nil, err
	}
	// The list of lockers is as fresh as the handle. A read-only one can't be asked for owners.
	_, lockers, err := img.ListLockers()
	if err != nil {
		return nil, classify(err, "list lockers of image")
	}
	for _, l := range lockers {
		seen.Owners = append(seen.Owners, normal(l.Addr))
	}
	seen.Watchers, err = watchers(img, []string{self})
	return seen, err
}

// Fit refuses an image that can't carry a service, or that carries a later grant (I2).
func Fit(volume core.VolumeSpec, seen *worker.Image, epoch core.Epoch) error {
	name := Name(volume)
	if seen.Size == 0 {
		return fail(worker.CodeImageEmpty, "image %s has size 0: it was never made whole, or was shrunk", name)
	}
	for _, f := range seen.Features {
		if f == rbd.FeatureNameExclusiveLock {
			if seen.Epoch > epoch {
				return fail(worker.CodeEpochAhead, "image %s carries epoch %d, this grant has %d", name, seen.Epoch, epoch)
			}
			return nil
		}
	}
	return fail(worker.CodeImageFeatures, "image %s lacks exclusive-lock: rbd feature enable %s exclusive-lock", name, name)
}

// Check tries what takeover needs: that this key may blocklist, and that no setting of the cluster's, the pool's
// or the image's makes a take-over unsafe.
func (c *Conn) Check(volume core.VolumeSpec) (*worker.Checked, error) {
	fsid, err := c.conn.GetFSID()
	if err != nil {
		return nil, classify(err, "read the cluster's fsid")
	}
	if err := c.CheckSettings(volume); err != nil {
		return nil, err
	}
	if err := c.blocklistAdd(harmless, time.Second); err != nil {
		return nil, err
	}
	relists, err := c.mayRelist()
	if err != nil {
		return nil, err
	}
	return &worker.Checked{FSID: fsid, Relists: relists}, nil
}

// mayRelist tries to take the harmless entry off again. 'profile rbd' alone does not allow that, and is enough until a
// person has cut the holder's client off for a while.
func (c *Conn) mayRelist() (bool, error) {
	_, err := c.command(map[string]any{"prefix": "osd blocklist", "blocklistop": "rm", "addr": harmless})
	switch errno(err) {
	case unix.EACCES, unix.EPERM:
		return false, nil
	case unix.ENOENT: // another node's check took it off
		return true, nil
	}
	return err == nil, classify(err, "take "+harmless+" off Ceph's blocklist")
}

// CheckSettings refuses Ceph's settings that make a take-over unsafe.
func (c *Conn) CheckSettings(volume core.VolumeSpec) error {
	ioctx, err := c.pool(volume)
	if err != nil {
		return err
	}
	img, err := c.open(volume, true)
	if err != nil {
		return err
	}
	defer func() { _ = img.Close() }()
	for _, setting := range unsafeSettings {
		places := []struct {
			where string
			read  func() (string, error)
		}{
			{"this client", func() (string, error) { return c.setting(setting.name) }},
			{"pool " + volume.Pool, func() (string, error) { return rbd.GetPoolMetadata(ioctx, "conf_"+setting.name) }},
			{"image " + Name(volume), func() (string, error) { return img.GetMetadata("conf_" + setting.name) }},
		}
		for _, p := range places {
			if err := judge(setting.name, setting.fine, setting.why, p.where, p.read); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Conn) setting(name string) (string, error) {
	if value, ok := c.settings[name]; ok {
		return value, nil
	}
	return "", rbd.ErrNotFound
}

// judge reads one setting in one place. Absent, or unknown to this Ceph, is fine.
func judge(name string, fine []string, why, where string, read func() (string, error)) error {
	value, err := read()
	if errors.Is(err, rbd.ErrNotFound) || errno(err) == 2 {
		return nil
	}
	if err != nil {
		return classify(err, "read "+name+" of "+where)
	}
	for _, f := range fine {
		if strings.EqualFold(value, f) {
			return nil
		}
	}
	return fail(worker.CodeCephConfig, "%s is %q for %s, it must be %q: %s", name, value, where, fine[0], why)
}
