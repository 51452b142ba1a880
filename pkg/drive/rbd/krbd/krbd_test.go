package krbd

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/drive"
	"github.com/keepone-ha/keepone/pkg/worker"
)

func TestArgv(t *testing.T) {
	t.Parallel()
	v := worker.Volume{
		Ceph: worker.Ceph{Conf: "/etc/ceph/ceph.conf", Keyring: "/etc/ceph/k", User: "keepone"},
		Spec: core.VolumeSpec{Pool: "rbd", Namespace: "one", Image: "front"},
	}
	want := "rbd --conf /etc/ceph/ceph.conf --id keepone --keyring /etc/ceph/k device map --options " +
		"exclusive,noshare,lock_timeout=5,osd_request_timeout=60 rbd/one/front"
	if got := strings.Join(argv(v), " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestClientAddress(t *testing.T) {
	t.Parallel()
	sys := t.TempDir()
	dir := filepath.Join(sys, "bus/rbd/devices/3")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := clientAddress(sys, "/dev/rbd3"); err == nil {
		t.Error("an address of nothing")
	}
	if err := os.WriteFile(filepath.Join(dir, "client_addr"), []byte("10.0.0.1:0/42\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := clientAddress(sys, "/dev/rbd3"); err != nil || got != "10.0.0.1:0/42" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestMapFailure(t *testing.T) {
	t.Parallel()
	for output, want := range map[string]worker.Code{
		"rbd: error opening image x: (2) No such file or directory":            worker.CodeImageMissing,
		"rbd: sysfs write failed\nrbd: map failed: (30) Read-only file system": worker.CodeImageStranger,
		"modinfo: ERROR: Module rbd not found.":                                worker.CodeCephConfig,
		"rbd: map failed: (110) Connection timed out":                          worker.CodeUnknown,
	} {
		err := mapFailure(t.Context(), &drive.Error{Program: "rbd", Code: 1, Output: output, Err: errors.New("exit status 1")})
		var failure *worker.Failure
		if !errors.As(err, &failure) || failure.Code != want {
			t.Errorf("%s: %v", output, err)
		}
	}
}
