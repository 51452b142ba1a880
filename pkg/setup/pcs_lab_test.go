//go:build lab

package setup

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestPCSMakesTheSame runs the commands on an empty CIB: nothing may differ from the setup that they were made from.
func TestPCSMakesTheSame(t *testing.T) {
	if _, err := exec.LookPath("pcs"); err != nil {
		t.Skip("pcs is not installed: apt-get install pcs")
	}
	for _, name := range []string{"per-node", "two-ones"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, dir := setups()[name], t.TempDir()
			runPCS(t, s, dir)
			text, err := os.ReadFile(filepath.Join(dir, cibFile))
			if err != nil {
				t.Fatal(err)
			}
			cib, err := ParseCIB(text)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range s.Differs(cib) {
				t.Error(d)
			}
		})
	}
}

func runPCS(t *testing.T, s Setup, dir string) {
	t.Helper()
	empty := `<cib crm_feature_set="3.16.1" validate-with="pacemaker-3.9" admin_epoch="0" epoch="1" num_updates="0"><configuration><crm_config/>` +
		`<nodes><node id="1" uname="n1"/><node id="2" uname="n2"/><node id="3" uname="n3"/></nodes><resources/><constraints/></configuration><status/></cib>`
	if err := os.WriteFile(filepath.Join(dir, cibFile), []byte(empty), 0o600); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(s.PCS()) {
		if !strings.HasPrefix(line, "pcs -f ") {
			continue
		}
		line = strings.TrimSpace(line)
		if strings.Contains(line, " create ") { // keepone's agents need not be installed here
			line += " --force"
		}
		cmd := exec.CommandContext(t.Context(), "sh", "-c", line)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", line, err, out)
		}
	}
}
