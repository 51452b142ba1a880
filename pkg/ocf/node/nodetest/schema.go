package nodetest

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Schemas holds metadata against every schema that is installed here.
func Schemas(t *testing.T, metadata string) {
	t.Helper()
	lint, err := exec.LookPath("xmllint")
	if err != nil {
		t.Skip("xmllint is not installed (libxml2-utils)")
	}
	const dir = "/usr/share/resource-agents"
	for _, schema := range []struct {
		file string
		args []string
	}{
		{dir + "/ra-api-1.dtd", []string{"--noout", "--valid", "-"}}, // as ocf-tester does
		{dir + "/metadata.rng", []string{"--noout", "--relaxng", dir + "/metadata.rng", "-"}},
		{"/usr/share/pcs/data/ocf-1.1.rng", []string{"--noout", "--relaxng", "/usr/share/pcs/data/ocf-1.1.rng", "-"}},
	} {
		if _, err := os.Stat(schema.file); err != nil {
			t.Logf("not installed: %s", schema.file)
			continue
		}
		cmd := exec.CommandContext(t.Context(), lint, schema.args...)
		cmd.Dir = dir
		if _, err := os.Stat(dir); err != nil {
			cmd.Dir = ""
		}
		cmd.Stdin = strings.NewReader(metadata)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", schema.file, err, out)
		}
	}
}
