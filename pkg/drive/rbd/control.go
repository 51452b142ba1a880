package rbd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ceph/go-ceph/rbd"
	"golang.org/x/sys/unix"

	"github.com/keepone-ha/keepone/pkg/activate/takeover"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/worker"
)

const (
	// blocklistFor is how long a client stays cut off. It must outlast every pause that an old holder can wake
	// from: a short one was measured to end in corruption. Entries are left to expire, a new mapping has a new address.
	blocklistFor = 10 * 365 * 24 * time.Hour
	// blocklistMin is how much of that an entry must have left, else it is written anew.
	blocklistMin = 2 * 365 * 24 * time.Hour
)

// Image is one image through a control connection. It implements takeover.Image.
type Image struct {
	conn   *Conn
	volume core.VolumeSpec
	img    *rbd.Image
	self   []string
}

// Open opens the image for orders. others are addresses of this very holder's clients besides the connection.
func (c *Conn) Open(volume core.VolumeSpec, others ...string) (*Image, error) {
	self, err := c.Address()
	if err != nil {
		return nil, err
	}
	img, err := c.open(volume, false)
	if err != nil {
		return nil, err
	}
	return &Image{conn: c, volume: volume, img: img, self: append(others, self)}, nil
}

// Close closes the image, not the connection.
func (i *Image) Close() error { return classify(i.img.Close(), "close image") }

// RaiseEpoch implements takeover.Image.
func (i *Image) RaiseEpoch(ctx context.Context, to core.Epoch) (core.Epoch, error) {
	ioctx, err := i.conn.pool(i.volume)
	if err != nil {
		return 0, err
	}
	return raiseEpoch(ctx, ioctx, i.img, to)
}

// Clients implements takeover.Image.
func (i *Image) Clients(context.Context) (takeover.Clients, error) {
	return clients(i.img, i.self)
}

func clients(img *rbd.Image, self []string) (takeover.Clients, error) {
	var c takeover.Clients
	owners, err := img.LockGetOwners()
	if err != nil && !isNoOwner(err) {
		return c, classify(err, "list lock owners")
	}
	for _, o := range owners {
		c.Owners = append(c.Owners, normal(o.Owner))
	}
	c.Watchers, err = watchers(img, self)
	return c, err
}

func watchers(img *rbd.Image, self []string) ([]string, error) {
	listed, err := img.ListWatchers()
	if err != nil {
		return nil, classify(err, "list watchers")
	}
	var others []string
	for _, w := range listed {
		if !slices.Contains(self, normal(w.Addr)) {
			others = append(others, normal(w.Addr))
		}
	}
	slices.Sort(others)
	return slices.Compact(others), nil
}

func isNoOwner(err error) bool { return errors.Is(err, rbd.ErrNotFound) || errno(err) == unix.ENOENT }

// Break implements takeover.Image.
func (i *Image) Break(_ context.Context, owner string) error {
	err := i.img.LockBreak(rbd.LockModeExclusive, owner)
	switch errno(err) {
	case unix.ENOENT, unix.EBUSY: // nobody's, or another's by now: the next look tells
		return nil
	}
	return classify(err, "break lock")
}

// Blocklist implements takeover.Image.
func (i *Image) Blocklist(ctx context.Context, addresses []string) (uint64, error) {
	if err := i.conn.blocklist(ctx, addresses); err != nil {
		return 0, err
	}
	epoch, err := i.conn.osdmapEpoch()
	if err != nil {
		return 0, err
	}
	// From here on this client's reads make an OSD learn of the blocklist before it answers.
	return epoch, i.conn.Barrier(ctx)
}

// blocklist adds what the mons don't list for long enough, and checks that they list it then. Adding does not lengthen
// an entry that is there (OSDMap inserts): a shorter one, such as a person's of an hour, is taken off first. What its client
// writes in between is as what it wrote before it was cut off: nothing acquires the lock until this has ended well (I6).
func (c *Conn) blocklist(ctx context.Context, addresses []string) error {
	for try := 0; ; try++ {
		listed, err := c.blocklisted()
		if err != nil {
			return err
		}
		missing := slices.DeleteFunc(slices.Clone(addresses), func(a string) bool {
			return time.Until(listed[normal(a)]) > blocklistMin
		})
		if len(missing) == 0 {
			return nil
		}
		if try > 1 {
			return fail(worker.CodeUnknown, "Ceph took %v on the blocklist but does not list it", missing)
		}
		for _, a := range missing {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("blocklist %s: %w", a, err)
			}
			if until, short := listed[normal(a)]; short && try > 0 {
				if err := c.blocklistRemove(a, until); err != nil {
					return err
				}
			}
			if err := c.blocklistAdd(a, blocklistFor); err != nil {
				return err
			}
		}
	}
}

// blocklistRemove takes an entry off that ends too soon. The caps of 'profile rbd' do not allow it.
func (c *Conn) blocklistRemove(address string, until time.Time) error {
	_, err := c.command(map[string]any{"prefix": "osd blocklist", "blocklistop": "rm", "addr": address})
	if no := errno(err); no == unix.EACCES || no == unix.EPERM {
		return fail(worker.CodeNoCap, "somebody has %s on Ceph's blocklist until %s, which is too soon, and Ceph lengthens no entry: run `ceph osd blocklist rm %s`, keepone adds it again for good",
			address, until.UTC().Format(time.RFC3339), address)
	}
	return classify(err, "take "+address+" off Ceph's blocklist")
}

func (c *Conn) blocklistAdd(address string, expire time.Duration) error {
	_, err := c.command(map[string]any{
		"prefix": "osd blocklist", "blocklistop": "add", "addr": address, "expire": seconds(expire),
	})
	return classify(err, "add "+address+" to Ceph's blocklist")
}

// seconds is a JSON number that Ceph takes for a float: it refuses one without a point.
func seconds(d time.Duration) json.RawMessage {
	return json.RawMessage(strconv.FormatFloat(d.Seconds(), 'f', 1, 64))
}

// blocklisted returns until when each address is on the blocklist, as the mons say now.
func (c *Conn) blocklisted() (map[string]time.Time, error) {
	out, err := c.command(map[string]any{"prefix": "osd blocklist ls", "format": "json"})
	if err != nil {
		return nil, classify(err, "list Ceph's blocklist")
	}
	return parseBlocklist(out)
}

func parseBlocklist(out []byte) (map[string]time.Time, error) {
	var entries []struct{ Addr, Until string }
	if err := json.NewDecoder(strings.NewReader(string(out))).Decode(&entries); err != nil {
		return nil, fmt.Errorf("read Ceph's blocklist: %w", err)
	}
	listed := map[string]time.Time{}
	for _, e := range entries {
		until, err := time.Parse("2006-01-02T15:04:05.999999-0700", e.Until)
		if err != nil {
			continue // not known to last: it is written anew
		}
		listed[normal(e.Addr)] = until
	}
	return listed, nil
}

func normal(address string) string {
	if a, ok := takeover.ParseAddress(address); ok {
		return a.String()
	}
	return address
}

func (c *Conn) osdmapEpoch() (uint64, error) {
	out, err := c.command(map[string]any{"prefix": "osd stat", "format": "json"})
	if err != nil {
		return 0, classify(err, "read osdmap epoch")
	}
	var stat struct{ Epoch uint64 }
	if err := json.Unmarshal(out, &stat); err != nil {
		return 0, fmt.Errorf("read osdmap epoch: %w", err)
	}
	return stat.Epoch, nil
}

func (c *Conn) command(args map[string]any) ([]byte, error) {
	text, err := json.Marshal(args)
	if err != nil {
		return nil, fmt.Errorf("encode command: %w", err)
	}
	out, _, err := c.conn.MonCommand(text)
	return out, err
}
