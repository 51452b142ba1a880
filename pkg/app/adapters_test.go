package app

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepone-ha/keepone/pkg/release"
)

// TestKernelHere: no record is nothing, a broken one is an error and never nothing, a tombstone shows.
func TestKernelHere(t *testing.T) {
	k := kernel{runDir: t.TempDir()}
	if names, err := k.Services(); err != nil || len(names) != 0 {
		t.Errorf("services %v, %v", names, err)
	}
	if here, err := k.Here("one"); err != nil || here.Record != nil {
		t.Errorf("%+v, %v", here, err)
	}
	gone := filepath.Join(cgroup2(t), "no-such-keepone-cgroup")
	rec := release.Record{Service: "one", Epoch: 5, Attempt: 2, Instance: "boot/a1", Cgroups: release.Cgroups{Run: gone, Map: gone}}
	if err := rec.Save(k.runDir); err != nil {
		t.Fatal(err)
	}
	here, err := k.Here("one")
	if err != nil || here.Record == nil || here.Record.Epoch != 5 || here.Buried || !here.Facts.Idle() {
		t.Fatalf("%+v, %v", here, err)
	}
	for attempt := 1; attempt <= 2; attempt++ {
		if err := release.Tombstone(k.runDir, "one", 5, attempt, release.LeaseEnded); err != nil {
			t.Fatal(err)
		}
		if here, err := k.Here("one"); err != nil || here.Buried != (attempt == 2) || here.Lease != here.Buried {
			t.Errorf("a tombstone of attempt %d: buried %t, lease %t, %v", attempt, here.Buried, here.Lease, err)
		}
	}
	if names, err := k.Services(); err != nil || len(names) != 1 || names[0] != "one" {
		t.Errorf("services %v, %v", names, err)
	}
	if err := os.WriteFile(filepath.Join(release.Dir(k.runDir, "one"), "record.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Here("one"); err == nil {
		t.Error("a broken record was taken for none")
	}
}

// cgroup2 is where the kernel's facts about cgroups are read.
func cgroup2(t *testing.T) string {
	t.Helper()
	for _, at := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var fs unix.Statfs_t
		if unix.Statfs(at, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
			return at
		}
	}
	t.Skip("no cgroup v2 is mounted: what is here can't be read")
	return ""
}

func TestKernelExited(t *testing.T) {
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	init, err := release.ProcessOf(child.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	exited, err := kernel{}.Exited(ctx, release.Record{Init: init})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-exited:
		t.Fatal("exited while it lives")
	default:
	}
	_ = child.Process.Kill()
	_ = child.Wait()
	select {
	case <-exited:
	case <-ctx.Done():
		t.Fatal("the end was not seen")
	}
	again, err := kernel{}.Exited(ctx, release.Record{Init: init})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-again:
	case <-ctx.Done():
		t.Fatal("one that is gone is not called so")
	}
}
