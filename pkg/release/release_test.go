package release

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepone-ha/keepone/pkg/core"
)

func TestInstanceIsMadeOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	var work sync.WaitGroup
	got := make([]core.Instance, 20)
	for i := range got {
		work.Go(func() {
			var err error
			if got[i], err = Instance(dir); err != nil {
				t.Error(err)
			}
		})
	}
	work.Wait()
	for _, instance := range got {
		if instance != got[0] {
			t.Fatalf("two instances: %q and %q", instance, got[0])
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("something is left behind: %v", entries)
	}
}

func TestRecordRoundTrip(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(dir, "one"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("no record: %v", err)
	}
	r := Record{Service: "one", Epoch: 3, Attempt: 2, Storage: Storage{Kind: KindLoop, Mount: "/m"}, Init: Process{5, 6}}
	if err := r.Save(dir); err != nil {
		t.Fatal(err)
	}
	if err := Mark(dir, "one", 3, 1, MarkVacated, "of an older attempt"); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "services", "two"), 0o755); err != nil {
		t.Fatal(err) // locked, not yet recorded
	}
	records, err := List(dir)
	if err != nil || len(records) != 1 || !reflect.DeepEqual(records[0], r) {
		t.Fatalf("got %+v, %v", records, err)
	}
	if err := Mark(dir, "one", 3, 2, MarkContained, "because"); err != nil {
		t.Fatal(err)
	}
	if got, _ := Load(dir, "one"); !got.Marks.Contained || got.Marks.Vacated || got.Marks.Reason != "because" {
		t.Errorf("marks %+v", got.Marks)
	}
	if err := (Record{Service: "../x"}).Save(dir); !errors.Is(err, ErrName) {
		t.Errorf("bad name: %v", err)
	}
}

func TestTombstone(t *testing.T) {
	dir := t.TempDir()
	if buried, _, err := Buried(dir, "one", 1, 1); buried || err != nil {
		t.Fatal("buried from the start", err)
	}
	for _, at := range []struct {
		epoch   core.Epoch
		attempt int
	}{{5, 2}, {3, 9}, {5, 1}} { // the later, lower ones lower nothing
		if err := Tombstone(dir, "one", at.epoch, at.attempt, "a\nreason"); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		epoch   core.Epoch
		attempt int
		want    bool
	}{{1, 99, true}, {5, 1, true}, {5, 2, true}, {5, 3, false}, {6, 1, false}} {
		if got, reason, err := Buried(dir, "one", tt.epoch, tt.attempt); got != tt.want || err != nil || (got && reason != "a reason") {
			t.Errorf("%d.%d: %t %q %v, want %t", tt.epoch, tt.attempt, got, reason, err, tt.want)
		}
	}
	path := filepath.Join(Dir(dir, "one"), "tombstone")
	if err := os.WriteFile(path, []byte("9 9 cut o"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Tombstone(dir, "one", 10, 1, "next"); err != nil {
		t.Fatal(err)
	}
	if buried, _, _ := Buried(dir, "one", 10, 1); !buried {
		t.Error("a line that was cut off swallowed the next one")
	}
	if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
		t.Fatal(err)
	}
	if buried, _, err := Buried(dir, "one", 99, 1); !buried || err == nil {
		t.Error("an unreadable tombstone lets things go on")
	}
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	unlock, err := Lock(t.Context(), dir, "one")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*lockPoll)
	defer cancel()
	if _, err := Lock(ctx, dir, "one"); !errors.Is(err, ErrBusy) {
		t.Fatalf("second lock: %v", err)
	}
	unlock()
	unlock, err = Lock(t.Context(), dir, "one")
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

// A pid that was used again is neither alive nor signalled.
func TestProcessIsNeverAnother(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	p, err := ProcessOf(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	other := Process{p.PID, p.Start + 1}
	if alive, err := other.Alive(); alive || err != nil {
		t.Errorf("another one is alive: %v", err)
	}
	if err := other.Signal(int(unix.SIGKILL)); err != nil {
		t.Error(err)
	}
	if alive, err := p.Alive(); !alive || err != nil {
		t.Errorf("it was signalled all the same: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*waitPoll)
	defer cancel()
	if err := p.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait: %v", err)
	}
	if err := errors.Join(p.Signal(int(unix.SIGKILL)), p.Wait(t.Context())); err != nil {
		t.Error(err)
	}
	if alive, _ := p.Alive(); alive {
		t.Error("a zombie is alive")
	}
}

func TestParseStat(t *testing.T) {
	got, err := parseStat("77 (a) b) (c) D 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20")
	if err != nil || got.comm != "a) b) (c" || got.state != 'D' || got.start != 4242 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestParseMounts(t *testing.T) {
	mounts, err := ParseMounts(`36 35 7:3 / /mnt/a\040b rw,noatime shared:1 master:2 - ext4 /dev/loop3 ro,errors=remount-ro
37 35 0:45 / /run/f ro - fuse.keepone keepone rw,user_id=0
`)
	want := []Mount{
		{Major: 7, Minor: 3, Root: "/", Path: "/mnt/a b", Type: "ext4", Source: "/dev/loop3", SuperRO: true},
		{Minor: 45, Root: "/", Path: "/run/f", Type: "fuse.keepone", Source: "keepone", ReadOnly: true},
	}
	if err != nil || !reflect.DeepEqual(mounts, want) {
		t.Errorf("got %+v, %v", mounts, err)
	}
	if mounts[0].Under("/mnt/a") || !mounts[0].Under("/mnt") {
		t.Error("Under mistakes a prefix for a directory")
	}
}

func FuzzParsers(f *testing.F) {
	f.Add("36 35 7:3 / /mnt rw - ext4 /dev/loop3 rw")
	f.Add("77 (a) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20")
	f.Add("populated 1\nfrozen 0\n")
	f.Add("1 2 words\n")
	f.Fuzz(func(_ *testing.T, text string) {
		_, _ = ParseMounts(text)
		_, _ = parseStat(text)
		_, _ = parsePopulated(text)
		_ = parseLines(text)
	})
}

// Where no cgroup v2 is in sight, an absent cgroup means nothing.
func TestAbsentCgroupNeedsCgroupFS(t *testing.T) {
	path := filepath.Join(t.TempDir(), "one", "run")
	if populated, err := (cgroupFS{}).Populated(path); !populated || err == nil {
		t.Errorf("believed in %s: %t %v", path, populated, err)
	}
	if populated, err := (cgroupFS{anyFS: true}).Populated(path); populated || err != nil {
		t.Errorf("absent: %t %v", populated, err)
	}
	if _, err := (cgroupFS{anyFS: true}).Populated(""); err == nil {
		t.Error("a record without a cgroup is taken for an empty one")
	}
}

// Without cgroup.kill each process is killed, those in nested cgroups too.
func TestSweepWithoutCgroupKill(t *testing.T) {
	root := t.TempDir()
	nested := filepath.Join(root, "lxc.payload", "deep")
	if err := os.MkdirAll(nested, 0o755); err != nil {
		t.Fatal(err)
	}
	for dir, procs := range map[string]string{root: "11\n", nested: "12\n13\n"} {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(procs), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(root, "cgroup.kill"), 0o755); err != nil {
		t.Fatal(err) // a directory can't be written to: there is no such file
	}
	var killed []int
	c := cgroupFS{anyFS: true, signal: func(pid int, _ unix.Signal) error { killed = append(killed, pid); return nil }}
	_ = c.Kill(root)
	if !reflect.DeepEqual(killed, []int{11, 12, 13}) {
		t.Errorf("killed %v", killed)
	}
}

func TestBound(t *testing.T) {
	if b := (Options{}).Bound(); b > time.Minute {
		t.Errorf("a stop with default bounds may take %v", b)
	}
	if b := (Options{Graceful: time.Hour}).Bound(); b < time.Hour {
		t.Errorf("bound %v", b)
	}
}

func TestChildErrors(t *testing.T) {
	if err := inChild(t.Context(), callUnmount, t.TempDir(), "0"); !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EPERM) {
		t.Errorf("unmount of no mount: %v", err)
	}
	if err := inChild(t.Context(), "unheard-of"); err == nil || !strings.Contains(err.Error(), "unheard-of") {
		t.Errorf("unknown call: %v", err)
	}
}
