package release

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// world is a fake machine with one service that runs as it should; each test breaks one thing of it.
type world struct {
	run, mapping bool // populated
	unkillable   bool
	blind        bool // cgroups can't be read
	linkUp       bool
	linkStays    bool
	mounted      bool
	fuse         bool
	device       bool
	hangSync     bool
	syncErr      error
	hangUnmount  bool // until the connection is cut
	busy         int  // unmounts that answer EBUSY first
	broken       string
	devStays     bool
	number       uint32 // of /dev/loop3
	aborted      bool
	readErr      error
	order        []string

	other sync.Mutex // held while another stop takes the storage down
}

func (w *world) did(what string) { w.order = append(w.order, what) }

func (w *world) host() *host {
	return &host{cgroups: fakeTree{w}, links: fakeLinks{w}, mounts: fakeMounts{w}, devices: fakeDevices{w}}
}

type fakeTree struct{ w *world }

func (f fakeTree) Populated(path string) (bool, error) {
	if f.w.blind {
		return true, errors.New("no cgroup file system")
	}
	if filepath.Base(path) == "map" {
		return f.w.mapping, nil
	}
	return f.w.run, nil
}

func (f fakeTree) Kill(path string) error {
	f.w.did("kill " + filepath.Base(path))
	if filepath.Base(path) == "map" {
		f.w.mapping = false
	} else if !f.w.unkillable || f.w.aborted {
		f.w.run = false
	}
	return nil
}
func (fakeTree) Survivors(string) []string { return []string{"pid 7 (x) in state D at io_schedule"} }

type fakeLinks struct{ w *world }

func (f fakeLinks) Down(string) error {
	f.w.did("link")
	f.w.linkUp = f.w.linkStays
	return nil
}
func (f fakeLinks) Up(string) (bool, error) { return f.w.linkUp, nil }

type fakeMounts struct{ w *world }

func (f fakeMounts) List() ([]Mount, error) {
	f.w.other.Lock()
	defer f.w.other.Unlock()
	var m []Mount
	if f.w.fuse {
		m = append(m, Mount{Minor: 45, Path: "/f", Type: "fuse"})
	}
	if f.w.mounted {
		m = append(m, Mount{Major: 7, Minor: 3, Path: "/m", Type: "ext4", Source: "/dev/loop3"})
	}
	return m, nil
}

func (f fakeMounts) Sync(ctx context.Context, _ Mount) error {
	f.w.did("sync")
	if f.w.hangSync {
		<-ctx.Done()
		return ctx.Err()
	}
	return f.w.syncErr
}

func (f fakeMounts) Unmount(ctx context.Context, path string, detach bool) error {
	if path == "/f" {
		f.w.fuse = false
		return nil
	}
	f.w.did("unmount")
	if f.w.hangUnmount && !f.w.aborted && !detach {
		<-ctx.Done()
		return ctx.Err()
	}
	if f.w.busy > 0 {
		f.w.busy--
		return unix.EBUSY
	}
	f.w.mounted = false
	return nil
}
func (f fakeMounts) Broken(Mount) string { return f.w.broken }

type fakeDevices struct{ w *world }

func (f fakeDevices) Find(context.Context, sought) ([]string, error) {
	f.w.other.Lock()
	defer f.w.other.Unlock()
	if f.w.device {
		return []string{"/dev/loop3"}, nil
	}
	return nil, nil
}

func (f fakeDevices) Number(string) (major, minor uint32, err error) { return 7, f.w.number, nil }

func (f fakeDevices) Detach(context.Context, string, sought) error {
	f.w.did("detach")
	f.w.device = f.w.devStays
	return nil
}

func (f fakeDevices) Read(context.Context, string) error { return f.w.readErr }

func (fakeDevices) Forget(context.Context, string) {}

func (f fakeDevices) Abort(connection uint32) error {
	f.w.did("abort")
	f.w.aborted = connection == 45
	return nil
}

func healthy() *world {
	return &world{run: true, linkUp: true, mounted: true, device: true, number: 3}
}

func exampleRecord() Record {
	return Record{
		Service: "one", Epoch: 2, Attempt: 1,
		Cgroups: Cgroups{Run: "/cg/one/run", Map: "/cg/one/map"},
		Storage: Storage{Mount: "/m", Kind: KindLoop, Device: "/dev/loop3", FuseDir: "/f"},
		Network: Network{Links: []string{"veth1"}},
	}
}

// endedCleanly leaves what a mapper leaves that ended as it should.
func endedCleanly(t *testing.T, dir string) {
	t.Helper()
	gone := Process{PID: 1 << 30, Start: 1}
	if err := exampleRecord().Save(dir); err != nil {
		t.Fatal(err)
	}
	service := Dir(dir, "one")
	if err := saveJSON(filepath.Join(service, "mapper.json"), Mapper{Process: gone, Connection: 45}); err != nil {
		t.Fatal(err)
	}
	exit := MapperExit{Process: gone, Flushed: true, Unlocked: true}
	if err := saveJSON(filepath.Join(service, "mapper-exit.json"), exit); err != nil {
		t.Fatal(err)
	}
}

// Vacated is said only if nothing at all went wrong on the way, and every stop ends in its bound (I3, I7).
func TestStop(t *testing.T) {
	gone := Process{PID: 1 << 30, Start: 1}
	for _, tt := range []struct {
		name               string
		breakIt            func(*world)
		exit               *MapperExit
		contained, vacated bool
	}{
		{"all well", func(*world) {}, nil, true, true},
		{"busy for a moment", func(w *world) { w.busy = 3 }, nil, true, true},
		{"nothing here any more", func(w *world) { *w = world{} }, nil, true, true},
		{"process in D state", func(w *world) { w.unkillable = true }, nil, false, false},
		{"hangs until the connection is cut", func(w *world) { w.unkillable, w.hangSync, w.fuse = true, true, true }, nil, true, false},
		{"cgroups unreadable", func(w *world) { w.blind = true }, nil, false, false},
		{"link stays up", func(w *world) { w.linkStays = true }, nil, false, false},
		{"sync hangs", func(w *world) { w.hangSync = true }, nil, true, false},
		{"sync fails", func(w *world) { w.syncErr = unix.EIO }, nil, true, false},
		{"file system has errors", func(w *world) { w.broken = "counted 1 error" }, nil, true, false},
		{"unmount hangs", func(w *world) { w.hangUnmount = true }, nil, true, false},
		{"mount stays busy", func(w *world) { w.busy = 1 << 20 }, nil, true, false},
		{"device stays", func(w *world) { w.devStays = true }, nil, true, false},
		{"mapper stays", func(w *world) { w.mapping = true }, nil, true, false},
		{"mapper's mount stays", func(w *world) { w.fuse = true }, nil, true, false},
		{"mapper did not flush", func(*world) {}, &MapperExit{Process: gone, Unlocked: true}, true, false},
		{"mapper did not unlock", func(*world) {}, &MapperExit{Process: gone, Flushed: true}, true, false},
		{"mapper saw an error", func(*world) {}, &MapperExit{Process: gone, Flushed: true, Unlocked: true, IOErrors: 1}, true, false},
		{"only an older mapper's word", func(*world) {}, &MapperExit{Process: Process{5, 5}, Flushed: true, Unlocked: true}, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, w, o := t.TempDir(), healthy(), Options{}
			tt.breakIt(w)
			endedCleanly(t, dir)
			if tt.exit != nil {
				if err := saveJSON(filepath.Join(Dir(dir, "one"), "mapper-exit.json"), *tt.exit); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Test(t, func(t *testing.T) {
				started := time.Now()
				res := w.host().stop(t.Context(), dir, exampleRecord(), o.withDefaults())
				if took := time.Since(started); took > o.Bound() {
					t.Errorf("took %v, bound %v", took, o.Bound())
				}
				if res.Contained != tt.contained || res.Vacated != tt.vacated {
					t.Errorf("contained %t, vacated %t: %q", res.Contained, res.Vacated, res.Reasons)
				}
				if !res.Vacated && len(res.Reasons) == 0 {
					t.Error("no reason is given")
				}
			})
			marks, err := ReadMarks(dir, "one", 2, 1)
			if err != nil || marks.Vacated != tt.vacated {
				t.Errorf("marks %+v, %v", marks, err)
			}
			if buried, _, _ := Buried(dir, "one", 2, 1); !buried {
				t.Error("no tombstone")
			}
		})
	}
}

// The service is silent before it is killed, and dead before anything of its volume is touched.
func TestStopOrder(t *testing.T) {
	dir, w := t.TempDir(), healthy()
	endedCleanly(t, dir)
	_ = w.host().stop(t.Context(), dir, exampleRecord(), Options{}.withDefaults())
	want := []string{"link", "kill run", "link", "sync", "unmount", "detach"}
	if len(w.order) != len(want) {
		t.Fatalf("order %v, want %v", w.order, want)
	}
	for i := range want {
		if w.order[i] != want[i] {
			t.Fatalf("order %v, want %v", w.order, want)
		}
	}
}

// An init that LXC put outside of the cgroup is killed too, and is no longer there once that is called contained (I5).
func TestStopKillsInit(t *testing.T) {
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	died := make(chan struct{})
	go func() {
		defer close(died)
		_ = child.Wait()
	}()
	defer func() { _ = child.Process.Kill(); <-died }()
	r := exampleRecord()
	init, err := ProcessOf(child.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	r.Init = init
	if c := healthy().host().contain(t.Context(), t.TempDir(), r, "stopped", defaultContain); !c.Done {
		t.Errorf("not contained: %q", c.Reasons)
	}
	if alive, err := init.Alive(); alive || err != nil {
		t.Errorf("init is alive: %t, %v", alive, err)
	}
}

// An ended context makes a stop hurry; it still kills, and claims nothing that it did not see.
func TestStopWithEndedContext(t *testing.T) {
	dir, w := t.TempDir(), healthy()
	w.hangSync = true
	endedCleanly(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if res := w.host().stop(ctx, dir, exampleRecord(), Options{}.withDefaults()); !res.Contained || res.Vacated {
		t.Errorf("got %+v", res)
	}
}

// Two stops at once, the daemon's and an operator's: the second leaves the storage to the first, and says what came of
// it. Forcing would cut off what is being written back (I8). One that never ends is not waited for (I7).
func TestTwoStops(t *testing.T) {
	for _, tt := range []struct {
		name    string
		ends    bool
		touches bool
	}{
		{"the other one vacates", true, false},
		{"the other one hangs", false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, w, o := t.TempDir(), healthy(), Options{}.withDefaults()
			endedCleanly(t, dir)
			synctest.Test(t, func(t *testing.T) {
				unlock, err := lockStop(t.Context(), dir, "one")
				if err != nil {
					t.Fatal(err)
				}
				var wait sync.WaitGroup
				wait.Go(func() {
					time.Sleep(3 * time.Second)
					if tt.ends {
						w.other.Lock()
						w.mounted, w.device = false, false
						w.other.Unlock()
						if err := Mark(dir, "one", 2, 1, MarkVacated, "stopped"); err != nil {
							t.Error(err)
						}
						unlock()
					}
				})
				started := time.Now()
				res := w.host().stop(t.Context(), dir, exampleRecord(), o)
				if took := time.Since(started); took > o.Bound() {
					t.Errorf("took %v, bound %v", took, o.Bound())
				}
				wait.Wait()
				if !res.Vacated || slices.Contains(w.order, "sync") != tt.touches || slices.Contains(w.order, "abort") {
					t.Errorf("got %+v by %v", res, w.order)
				}
			})
		})
	}
}

// A later stop that finds the node clean does not forget that an earlier one could not write back: the kernel
// tells of a lost write only once (I8). What went wrong apart from the volume is made good.
func TestStopAgain(t *testing.T) {
	for _, tt := range []struct {
		name    string
		breakIt func(*world)
		vacated bool
	}{
		{"all well", func(*world) {}, true},
		{"process in D state", func(w *world) { w.unkillable = true }, true},
		{"link stays up", func(w *world) { w.linkStays = true }, true},
		{"sync hangs", func(w *world) { w.hangSync = true }, false},
		{"sync fails", func(w *world) { w.syncErr = unix.EIO }, false},
		{"file system has errors", func(w *world) { w.broken = "counted 1 error" }, false},
		{"unmount hangs", func(w *world) { w.hangUnmount = true }, false},
		{"device stays", func(w *world) { w.devStays = true }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, w := t.TempDir(), healthy()
			tt.breakIt(w)
			endedCleanly(t, dir)
			synctest.Test(t, func(t *testing.T) {
				_ = w.host().stop(t.Context(), dir, exampleRecord(), Options{}.withDefaults())
				*w = world{}
				if res := w.host().stop(t.Context(), dir, exampleRecord(), Options{}.withDefaults()); res.Vacated != tt.vacated {
					t.Errorf("vacated %t: %q", res.Vacated, res.Reasons)
				}
			})
		})
	}
}

func TestSick(t *testing.T) {
	for _, tt := range []struct {
		name string
		w    *world
		sick bool
		sure bool
	}{
		{"well", &world{mounted: true}, false, false},
		{"mapped only", &world{}, false, false},
		{"file system has errors", &world{mounted: true, broken: "counted 1 error"}, true, true},
		{"cut off", &world{mounted: true, readErr: unix.EIO}, true, true},
		{"hangs", &world{readErr: context.DeadlineExceeded}, true, false},
		{"nobody could look", &world{readErr: errors.New("start read: out of memory")}, true, false},
	} {
		if why, sure := tt.w.host().sick(t.Context(), exampleRecord()); (why != "") != tt.sick || sure != tt.sure {
			t.Errorf("%s: %q, certain %t", tt.name, why, sure)
		}
	}
	r := exampleRecord()
	r.Storage.Device = ""
	if why, _ := (&world{}).host().sick(t.Context(), r); why == "" {
		t.Error("an unknown device is called well")
	}
}

func TestStopContainerKeepsTheVolume(t *testing.T) {
	dir, w := t.TempDir(), healthy()
	res := w.host().stopContainer(t.Context(), dir, exampleRecord(), Options{}.withDefaults())
	if !res.Contained || res.Vacated || !w.mounted || !w.device {
		t.Errorf("got %+v, world %+v", res, w)
	}
}

// A starter that died early leaves half a record: what nobody can vouch for is not vacated.
func TestStopOfHalfARecord(t *testing.T) {
	for _, tt := range []struct {
		name    string
		change  func(*Record, *world)
		vacated bool
	}{
		{"before anything", func(r *Record, _ *world) { r.Storage.Device = "" }, true},
		{"a client was opened", func(r *Record, _ *world) { r.Storage.Address = "10.0.0.1:0/7" }, false},
		{"a device was mapped", func(*Record, *world) {}, false},
		{"a mapper without a name", func(r *Record, w *world) { r.Storage.Device, w.mapping = "", true }, false},
		{"kind unknown", func(r *Record, _ *world) { r.Storage = Storage{Mount: "/m"} }, false},
		{"no cgroup", func(r *Record, w *world) { w.blind = true }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, w := exampleRecord(), &world{}
			tt.change(&r, w)
			synctest.Test(t, func(t *testing.T) {
				res := w.host().stop(t.Context(), t.TempDir(), r, Options{}.withDefaults())
				if res.Vacated != tt.vacated {
					t.Errorf("vacated %t: %q", res.Vacated, res.Reasons)
				}
			})
		})
	}
}

func TestLeftovers(t *testing.T) {
	dir, w := t.TempDir(), &world{}
	at := Places{RunDir: dir, CgroupRoot: filepath.Join(dir, "none"), Volumes: "/"}
	if err := exampleRecord().Save(dir); err != nil {
		t.Fatal(err)
	}
	if left := w.host().leftovers(at); len(left) != 0 {
		t.Errorf("nothing is here, got %+v", left)
	}
	w.run = true
	if left := w.host().leftovers(at); len(left) == 0 {
		t.Error("a running process was not seen")
	}
	*w = world{mounted: true}
	if left := w.host().leftovers(at); len(left) == 0 {
		t.Error("a mount was not seen")
	}
	*w = world{blind: true}
	if left := w.host().leftovers(at); len(left) == 0 || left[0].Kind != LeftoverUnknown {
		t.Errorf("what can't be read is taken for absent: %+v", left)
	}
}

// TestCarries: a mount point that is mounted is not enough. Another device may lie there, or the device may have become
// another image's.
func TestCarries(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*world)
		want   string
	}{
		"the volume":     {func(*world) {}, ""},
		"nothing":        {func(w *world) { w.mounted = false }, "nothing is mounted at /m"},
		"another device": {func(w *world) { w.number = 9 }, "at /m there is /dev/loop3 (7:3), and the volume is /dev/loop3 (7:9)"},
		"another image":  {func(w *world) { w.device = false }, "/dev/loop3 at /m is not over the image of one any more"},
	} {
		w := healthy()
		c.change(w)
		err := w.host().carries(t.Context(), t.TempDir(), exampleRecord())
		if (err == nil) != (c.want == "") || (err != nil && !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
