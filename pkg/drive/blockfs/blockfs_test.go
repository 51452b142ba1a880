package blockfs

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/keepone-ha/keepone/pkg/drive"
	"github.com/keepone-ha/keepone/pkg/worker"
)

func code(err error) worker.Code {
	var failure *worker.Failure
	if errors.As(err, &failure) {
		return failure.Code
	}
	return ""
}

func TestJudge(t *testing.T) {
	t.Parallel()
	for exit, want := range map[int]worker.Code{
		1: "", 2: worker.CodeFileSystem, 4: worker.CodeFileSystem, 5: worker.CodeFileSystem,
		8: worker.CodeFileSystem, 32: worker.CodeFileSystem, -1: worker.CodeFileSystem,
	} {
		err := judge(t.Context(), "/dev/x", &drive.Error{Program: "e2fsck", Code: exit, Err: errors.New("exit")})
		if code(err) != want || (want == "" && err != nil) {
			t.Errorf("exit %d: %v", exit, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := judge(ctx, "/dev/x", &drive.Error{Code: -1, Err: ctx.Err()}); code(err) != worker.CodeUnknown {
		t.Errorf("timed out: %v", err)
	}
}

func TestBounded(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	block := make(chan struct{})
	defer close(block)
	err := bounded(ctx, "unmount", func() error { <-block; return nil })
	if code(err) != worker.CodeUnknown {
		t.Fatalf("hang: %v", err)
	}
	want := errors.New("no")
	if err := bounded(t.Context(), "mount", func() error { return want }); !errors.Is(err, want) {
		t.Fatalf("error: %v", err)
	}
}

const mountinfo = `25 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
30 25 0:25 / /run rw shared:5 - tmpfs tmpfs rw
41 25 254:2 / /var/lib/keepone rw,relatime - ext4 /dev/vdb rw
42 41 254:3 / /var/lib/keepone/with\040space rw,relatime master:7 shared:9 - ext4 /dev/vdc rw
`

func TestSharedAt(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]bool{
		"/srv": true, "/run/x": true, "/running": true, "/var/lib/keepone/volumes": false,
		"/var/lib/keepone": false, "/var/lib/keepone/with space/x": true, "/var/lib/keeponex": true,
	} {
		if got := sharedAt(mountinfo, path); got != want {
			t.Errorf("%s: shared %v, want %v", path, got, want)
		}
	}
	if sharedAt("", "/x") || sharedAt("25 1 254:1 / / rw\n", "/x") {
		t.Error("shared by no mount at all")
	}
}

func TestUnknownFileSystem(t *testing.T) {
	t.Parallel()
	if err := Make(t.Context(), "/dev/none", "btrfs"); code(err) != worker.CodeFileSystem {
		t.Errorf("make: %v", err)
	}
	if err := Check(t.Context(), "/dev/none", "xfs"); err != nil {
		t.Errorf("check of xfs: %v", err)
	}
}
