//go:build lab

package rbd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepone-ha/keepone/pkg/activate/takeover"
	"github.com/keepone-ha/keepone/pkg/activate/takeover/takeovertest"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/drive/nstest"
	"github.com/keepone-ha/keepone/pkg/drive/rbd/cephtest"
	"github.com/keepone-ha/keepone/pkg/worker"
)

var cluster *cephtest.Cluster

func TestMain(m *testing.M) {
	os.Exit(nstest.Main(m, func() (func(), error) {
		dir, err := os.MkdirTemp("", "keepone-ceph-")
		if err != nil {
			return nil, err
		}
		if cluster, err = cephtest.Start(dir); err != nil {
			return nil, err
		}
		return func() { _ = cluster.Stop() }, nil
	}))
}

var images atomic.Int64

func freshImage(t *testing.T, args ...string) core.VolumeSpec {
	t.Helper()
	v := core.VolumeSpec{Pool: cephtest.Pool, Image: fmt.Sprintf("i%d", images.Add(1)), FS: "ext4", Mapper: "librbd"}
	if len(args) == 0 {
		args = []string{"--size", "64M"}
	}
	if out, err := cluster.Run(t.Context(), "rbd", append([]string{"create", Name(v)}, args...)...); err != nil {
		t.Fatalf("create image: %v %s", err, out)
	}
	return v
}

func control(t *testing.T, user string) *Conn {
	t.Helper()
	c, err := Control(cluster.Client(user))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func wantCode(t *testing.T, err error, want worker.Code) {
	t.Helper()
	var failure *worker.Failure
	if !errors.As(err, &failure) || failure.Code != want {
		t.Fatalf("error %v, want code %s", err, want)
	}
}

type world struct{ volume core.VolumeSpec }

func (w world) Control(t *testing.T) takeover.Image {
	img, err := control(t, "ha").Open(w.volume)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = img.Close() })
	return img
}

type holder struct{ *Holder }

func (w world) Holder(t *testing.T) takeovertest.Holder {
	c, err := Data(cluster.Client("ha"))
	if err != nil {
		t.Fatal(err)
	}
	h, err := c.Hold(w.volume)
	if err == nil {
		err = h.Open()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return holder{h}
}

const object = 4 << 20

func (h holder) Write(index int, value string) error {
	if _, err := h.WriteAt([]byte(value), int64(index)*object); err != nil {
		return err
	}
	return h.Flush()
}

func (h holder) Read(index int) (string, error) {
	buf := make([]byte, 4)
	_, err := h.ReadAt(buf, int64(index)*object)
	return string(buf), err
}

func TestTakeover(t *testing.T) {
	takeovertest.Run(t, netip.MustParseAddr("127.0.0.1"), func(t *testing.T) takeovertest.World {
		return world{freshImage(t)}
	})
}

func TestInspect(t *testing.T) {
	c := control(t, "ha")
	v := freshImage(t)
	seen, err := c.Inspect(v)
	if err != nil || seen.Size != 64<<20 || seen.Epoch != 0 || len(seen.Owners)+len(seen.Watchers) != 0 {
		t.Fatalf("inspect: %+v, %v", seen, err)
	}
	h := world{v}.Holder(t)
	if err := takeover.Acquire(t.Context(), h, 7, func(context.Context) error { return nil }); err != nil {
		t.Fatal(err)
	}
	seen, err = c.Inspect(v)
	if err != nil || seen.Epoch != 7 || len(seen.Owners) != 1 || seen.Owners[0] != h.Address() || len(seen.Watchers) != 1 {
		t.Fatalf("inspect: %+v, %v; holder %s", seen, err, h.Address())
	}
}

func TestBadImages(t *testing.T) {
	c := control(t, "ha")
	missing := core.VolumeSpec{Pool: cephtest.Pool, Image: "none"}
	_, err := c.Inspect(missing)
	wantCode(t, err, worker.CodeImageMissing)
	_, err = c.Inspect(core.VolumeSpec{Pool: "nopool", Image: "none"})
	wantCode(t, err, worker.CodeImageMissing)

	for _, test := range []struct {
		args []string
		code worker.Code
	}{
		{[]string{"--size", "0"}, worker.CodeImageEmpty},
		{[]string{"--size", "8M", "--image-feature", "layering"}, worker.CodeImageFeatures},
	} {
		v := freshImage(t, test.args...)
		seen, err := c.Inspect(v)
		if err != nil {
			t.Fatal(err)
		}
		wantCode(t, Fit(v, seen, 1), test.code)
	}
}

func TestCheck(t *testing.T) {
	v := freshImage(t)
	checked, err := control(t, "ha").Check(v)
	if err != nil || checked.FSID != cluster.FS || checked.Relists {
		t.Fatalf("check: %+v, %v", checked, err)
	}
	for range 2 { // also what another node's check took off
		if checked, err = control(t, "mender").Check(v); err != nil || !checked.Relists {
			t.Fatalf("check: %+v, %v", checked, err)
		}
	}
	_, err = control(t, "weak").Check(v)
	wantCode(t, err, worker.CodeNoCap)
	_, err = Control(worker.Ceph{Conf: cluster.Client("ha").Conf, Keyring: "/no/keyring", User: "ha"})
	wantCode(t, err, worker.CodeCephConfig)

	if _, err := cluster.Run(t.Context(), "rbd", "image-meta", "set", Name(v), "conf_rbd_read_from_replica_policy", "balance"); err != nil {
		t.Fatal(err)
	}
	_, err = control(t, "ha").Check(v)
	wantCode(t, err, worker.CodeCephConfig)
}

// TestShortEntry: somebody has cut the client off for a while. That ends too soon, so it is made to last, or it is said
// who can.
func TestShortEntry(t *testing.T) {
	const address = "10.9.9.9:0/77"
	if out, err := cluster.Run(t.Context(), "ceph", "osd", "blocklist", "add", address, "600"); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	err := control(t, "ha").blocklist(t.Context(), []string{address})
	wantCode(t, err, worker.CodeNoCap)
	if !strings.Contains(err.Error(), "ceph osd blocklist rm "+address) {
		t.Errorf("it does not say what to do: %v", err)
	}
	c := control(t, "mender")
	if err := c.blocklist(t.Context(), []string{address}); err != nil {
		t.Fatal(err)
	}
	if listed, err := c.blocklisted(); err != nil || time.Until(listed[address]) < blocklistMin {
		t.Errorf("on the blocklist until %v, %v", listed[address], err)
	}
}

// TestBounds measures what a take-over costs; the marks are far above what a calm machine needs.
func TestBounds(t *testing.T) {
	c := control(t, "ha")
	var cut, lock []time.Duration
	for range 10 {
		w := world{freshImage(t)}
		old := w.Holder(t)
		if err := takeover.Acquire(t.Context(), old, 1, func(context.Context) error { return nil }); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		img, err := c.Open(w.volume)
		if err != nil {
			t.Fatal(err)
		}
		did, err := takeover.CutOff(t.Context(), img, worker.CutOff{Volume: w.volume, Epoch: 2, Addresses: []string{old.Address()}})
		if err != nil || len(did.Watchers) != 0 {
			t.Fatalf("cut off: %+v, %v", did, err)
		}
		listed, err := c.blocklisted()
		if err != nil || time.Until(listed[old.Address()]) < 9*365*24*time.Hour {
			t.Fatalf("%s is on the blocklist until %v, %v", old.Address(), listed[old.Address()], err)
		}
		_ = img.Close()
		cut = append(cut, time.Since(begin))
		begin = time.Now()
		if err := takeover.Acquire(t.Context(), w.Holder(t), 2, func(context.Context) error { return nil }); err != nil {
			t.Fatal(err)
		}
		lock = append(lock, time.Since(begin))
	}
	t.Logf("open and cut off: median %v of %v", median(cut), cut)
	t.Logf("connect, open and acquire: median %v of %v", median(lock), lock)
	if m := median(cut); m > time.Second {
		t.Errorf("cut off takes %v", m)
	}
}

func TestCephAway(t *testing.T) {
	c := control(t, "ha")
	v := freshImage(t)
	if _, err := c.Inspect(v); err != nil {
		t.Fatal(err)
	}
	if err := cluster.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := cluster.Signal(unix.SIGCONT); err != nil {
			t.Error(err)
		}
	}()
	begin := time.Now()
	_, err := c.Inspect(v)
	wantCode(t, err, worker.CodeCephAway)
	t.Logf("inspect gave up after %v", time.Since(begin))
	begin = time.Now()
	_, err = Control(cluster.Client("ha"))
	wantCode(t, err, worker.CodeCephAway)
	t.Logf("connect gave up after %v", time.Since(begin))
}

func median(d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2]
}
