//go:build lab

package watchdog

import (
	"os"
	"path/filepath"
	"testing"
)

// TestRealKeepsTheContract arms and stops the machine's own watchdog for a moment, where there is one that nobody runs
// and that can be stopped: in a virtual machine.
func TestRealKeepsTheContract(t *testing.T) {
	dirs, err := filepath.Glob(classDir + "/watchdog[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		name := filepath.Base(dir)
		nowayout, _ := linux{}.Attribute(name + "/nowayout")
		state, _ := linux{}.Attribute(name + "/state")
		if _, err := os.Stat("/dev/" + name); err == nil && nowayout == "0" && state == "inactive" {
			runContract(t, linux{}, "/dev/"+name, name)
			return
		}
	}
	t.Skipf("no watchdog that is inactive and can be stopped among the %d below %s", len(dirs), classDir)
}
