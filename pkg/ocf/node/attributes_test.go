package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keepone-ha/keepone/pkg/core"
)

// The program's arguments, its failure, and its absence.
func TestUpdater(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	script := "#!/bin/sh\nprintf '%s\\n' \"$*\" >>" + dir + "/log\n[ \"$2\" != bad ] || { echo 'no attrd'; exit 3; }\n"
	if err := os.WriteFile(filepath.Join(dir, "attrd_updater"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	n := Node{Attributes: updater{}}
	for _, score := range []Score{7, NoScore} {
		if err := n.SetScore(t.Context(), "vol", score); err != nil {
			t.Error(err)
		}
	}
	if err := n.Attributes.Delete(t.Context(), core.ElectionAttribute("one")); err != nil {
		t.Error(err)
	}
	if err := n.Attributes.Set(t.Context(), "bad", "1"); err == nil || !strings.Contains(err.Error(), "attrd_updater: exit status 3: no attrd") {
		t.Error(err)
	}
	log, err := os.ReadFile(filepath.Join(dir, "log"))
	if want := "-n master-vol -U 7\n-n master-vol -D\n-n keepone-one -D\n-n bad -U 1\n"; err != nil || string(log) != want {
		t.Errorf("%q %v", log, err)
	}
}
