// Package packaging holds what a distribution needs besides the programs.
package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestUnits has systemd read every unit. The programs need not be installed for it.
func TestUnits(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	units, err := filepath.Glob("systemd/*.service")
	if err != nil || len(units) == 0 {
		t.Fatalf("units %v, %v", units, err)
	}
	dir := t.TempDir()
	args := []string{"verify", "--man=no"}
	for _, path := range units {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		present := regexp.MustCompile(`/usr/sbin/keepone\S*`).ReplaceAll(text, []byte("/bin/true"))
		copied := filepath.Join(dir, filepath.Base(path))
		if err := os.WriteFile(copied, present, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, copied)
	}
	// What it says of other units of the machine is none of ours.
	out, err := exec.Command("systemd-analyze", args...).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "keepone") {
			t.Errorf("systemd-analyze: %s", line)
		}
	}
	if err != nil && !t.Failed() {
		t.Logf("systemd-analyze: %v: %s", err, out)
	}
}
