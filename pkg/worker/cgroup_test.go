package worker

import (
	"os"
	"path/filepath"
	"testing"
)

// On a plain directory the calls are the same: nested ones go, the path is there anew.
func TestFreshCgroup(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "svc", "run")
	for range 2 {
		group, err := FreshCgroup(path)
		if err != nil {
			t.Fatal(err)
		}
		_ = group.Close()
		if entries, err := os.ReadDir(path); err != nil || len(entries) != 0 {
			t.Errorf("not fresh: %v, %v", entries, err)
		}
		if err := os.MkdirAll(filepath.Join(path, "lxc.payload.svc", "deep"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(path, "lxc.payload.svc", "busy"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := FreshCgroup(path); err == nil {
		t.Error("one that can't be removed is taken for fresh")
	}
}
