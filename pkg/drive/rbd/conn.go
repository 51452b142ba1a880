// Package rbd talks to Ceph: checks of an image and its cluster, cutting off an old holder's clients, and the new
// holder's own data client. Calls into librbd can't be cancelled: each runs in a helper process that is killed if
// it hangs. Control connections give up after five seconds; a data connection never does, for a write that
// timed out may still land.
package rbd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/worker"
)

// controlTimeout is given to Ceph in whole seconds: below it mons re-form their quorum often enough, above it a
// failover has lost its bound.
const controlTimeout = "5"

// barrierLimit bounds the wait for an osdmap, which no option of Ceph's bounds.
const barrierLimit = 5 * time.Second

// Conn is one client of the cluster. Its methods are for one goroutine at a time.
type Conn struct {
	conn  *rados.Conn
	pools map[string]*rados.IOContext
	// settings are Ceph's as this client got them, before it changed any for itself.
	settings map[string]string
	// hung is set once a call has been left behind in Ceph: the process should end soon.
	hung bool
}

// Control opens a control connection: every call on it ends within about five seconds, or fails.
func Control(ceph worker.Ceph) (*Conn, error) {
	return dial(ceph, map[string]string{
		"client_mount_timeout": controlTimeout,
		"rados_osd_op_timeout": controlTimeout,
		"rados_mon_op_timeout": controlTimeout,
		"rbd_cache":            "false",
	})
}

// Data opens a data connection. Only connecting is bounded.
func Data(ceph worker.Ceph) (*Conn, error) {
	return dial(ceph, map[string]string{"client_mount_timeout": controlTimeout})
}

func dial(ceph worker.Ceph, options map[string]string) (*Conn, error) {
	for _, file := range []string{ceph.Conf, ceph.Keyring} {
		if _, err := os.Stat(file); file != "" && errors.Is(err, fs.ErrNotExist) {
			return nil, fail(worker.CodeCephConfig, "%s is not there: set it in the node file", file)
		}
	}
	conn, err := rados.NewConnWithUser(ceph.User)
	if err != nil {
		return nil, fmt.Errorf("make ceph client: %w", err)
	}
	if err := conn.ReadConfigFile(ceph.Conf); err != nil {
		return nil, fail(worker.CodeCephConfig, "read %s: %v", ceph.Conf, err)
	}
	if ceph.Keyring != "" {
		options["keyring"] = ceph.Keyring
	}
	for name, value := range options {
		if err := conn.SetConfigOption(name, value); err != nil {
			return nil, fail(worker.CodeCephConfig, "set Ceph's %s: %v", name, err)
		}
	}
	if err := conn.Connect(); err != nil {
		return nil, classify(err, "connect to Ceph as client."+ceph.User)
	}
	c := &Conn{conn: conn, pools: map[string]*rados.IOContext{}, settings: map[string]string{}}
	return c, c.ownSettings()
}

// ownSettings keeps librbd from blocklisting on its own when a lock is broken: it would write our entry anew with
// Ceph's short default expiry, and a client that wakes after that writes again (I6). Should it do so all the
// same, by a setting of the image's own, then for as long as we do.
func (c *Conn) ownSettings() error {
	for _, s := range unsafeSettings {
		if value, err := c.conn.GetConfigOption(s.name); err == nil { // unknown to this Ceph: harmless
			c.settings[s.name] = value
		}
	}
	for name, value := range map[string]string{
		"rbd_blocklist_on_break_lock":  "false",
		"rbd_blocklist_expire_seconds": strconv.FormatInt(int64(blocklistFor/time.Second), 10),
	} {
		if err := c.conn.SetConfigOption(name, value); err != nil {
			return fail(worker.CodeCephConfig, "set Ceph's %s: %v", name, err)
		}
	}
	return nil
}

// Close ends the client. A client that hung is left to the end of the process.
func (c *Conn) Close() {
	if c.hung {
		return
	}
	for _, ioctx := range c.pools {
		ioctx.Destroy()
	}
	c.conn.Shutdown()
}

// Hung reports whether a call was left behind in Ceph.
func (c *Conn) Hung() bool { return c.hung }

// Address is this very client, as the blocklist and lock owners name it.
func (c *Conn) Address() (string, error) {
	addrs, err := c.conn.GetAddrs()
	if err != nil {
		return "", classify(err, "read own address")
	}
	return strings.TrimPrefix(strings.TrimPrefix(addrs, "v2:"), "v1:"), nil
}

// Barrier waits until this client's osdmap is the latest that is committed.
func (c *Conn) Barrier(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, barrierLimit)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- c.conn.WaitForLatestOSDMap() }()
	select {
	case err := <-done:
		return classify(err, "wait for the latest osdmap")
	case <-ctx.Done():
		c.hung = true
		return fail(worker.CodeCephAway, "Ceph's mons gave no osdmap within the bound")
	}
}

func (c *Conn) pool(volume core.VolumeSpec) (*rados.IOContext, error) {
	key := volume.Pool + "/" + volume.Namespace
	if ioctx := c.pools[key]; ioctx != nil {
		return ioctx, nil
	}
	ioctx, err := c.conn.OpenIOContext(volume.Pool)
	if errors.Is(err, rados.ErrNotFound) {
		return nil, fail(worker.CodeImageMissing, "Ceph has no pool %q", volume.Pool)
	}
	if err != nil {
		return nil, classify(err, "open pool "+volume.Pool)
	}
	ioctx.SetNamespace(volume.Namespace)
	c.pools[key] = ioctx
	return ioctx, nil
}

// open opens the image. Only an image that is open for writing is watched by this client.
func (c *Conn) open(volume core.VolumeSpec, readOnly bool) (*rbd.Image, error) {
	ioctx, err := c.pool(volume)
	if err != nil {
		return nil, err
	}
	how := rbd.OpenImage
	if readOnly {
		how = rbd.OpenImageReadOnly
	}
	img, err := how(ioctx, volume.Image, rbd.NoSnapshot)
	if errors.Is(err, rbd.ErrNotFound) {
		return nil, fail(worker.CodeImageMissing, "pool %s has no image %q: make it with keepone volume create", volume.Pool, volume.Image)
	}
	if err != nil {
		return nil, classify(err, "open image "+Name(volume))
	}
	return img, nil
}

// Name is how Ceph's own tools name the image.
func Name(volume core.VolumeSpec) string {
	if volume.Namespace != "" {
		return volume.Pool + "/" + volume.Namespace + "/" + volume.Image
	}
	return volume.Pool + "/" + volume.Image
}
