// Package imports keeps the project's one direction: imports point down, and cgo stands in two rooms alone.
package imports

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/keepone-ha/keepone/"

// pkg is what `go list -json` says of a package.
type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
	CgoFiles   []string
}

// may says what each room may import of the project. A room that is not named here is a mistake: name it.
var may = map[string][]string{
	"pkg/core":            {},
	"pkg/boottime":        {},
	"pkg/clock":           {},
	"pkg/version":         {},
	"pkg/wire":            {"pkg/core"},
	"pkg/pki":             {"pkg/core"},
	"pkg/op":              {"pkg/core"},
	"pkg/worker":          {"pkg/core"},
	"pkg/config":          {"pkg/core"},
	"pkg/release":         {"pkg/core"},
	"pkg/guard":           {"pkg/core", "pkg/boottime", "pkg/release"},
	"pkg/api":             {"pkg/core", "pkg/pki"},
	"pkg/replica":         {"pkg/core", "pkg/boottime", "pkg/wire"},
	"pkg/observe":         {"pkg/core", "pkg/boottime", "pkg/guard"},
	"pkg/agent":           {"pkg/clock", "pkg/core", "pkg/release", "pkg/worker"},
	"pkg/fence":           {"pkg/clock", "pkg/core", "pkg/boottime", "pkg/drive/ipmi", "pkg/worker"},
	"pkg/managed":         {"pkg/api", "pkg/boottime", "pkg/clock", "pkg/core", "pkg/drive/ipmi", "pkg/op", "pkg/release"},
	"pkg/fence/relay":     {"pkg/api", "pkg/clock", "pkg/core", "pkg/op"},
	"pkg/setup":           {"pkg/core", "pkg/release"},
	"pkg/report":          {"pkg/core", "pkg/op", "pkg/whatif"},
	"pkg/whatif":          {"pkg/core"},
	"pkg/drive":           {},
	"pkg/drive/corosync":  {"pkg/drive"},
	"pkg/drive/ipmi":      {"pkg/boottime", "pkg/drive"},
	"pkg/drive/pacemaker": {"pkg/drive"},
	"pkg/drive/netif":     {"pkg/core", "pkg/drive"},
	"pkg/drive/probe":     {"pkg/core", "pkg/drive"},
	"pkg/drive/blockfs":   {"pkg/drive", "pkg/worker"},
	"pkg/drive/watchdog":  {},
	"pkg/ocf":             {"pkg/clock"},
	"pkg/ocf/node":        {"pkg/api", "pkg/clock", "pkg/core", "pkg/ocf", "pkg/op", "pkg/release"},
	"pkg/ocf/rbd":         {"pkg/clock", "pkg/core", "pkg/ocf", "pkg/ocf/node", "pkg/op", "pkg/version"},
	"pkg/ocf/container":   {"pkg/core", "pkg/ocf", "pkg/ocf/node", "pkg/op", "pkg/version"},
	"pkg/ocf/controller":  {"pkg/clock", "pkg/core", "pkg/ocf", "pkg/ocf/node", "pkg/op", "pkg/version"},

	// The simulator is for tests: nothing of the product imports it.
	"pkg/sim": {
		"pkg/activate/takeover", "pkg/agent", "pkg/api", "pkg/boottime", "pkg/clock", "pkg/core", "pkg/drive/ipmi", "pkg/fence", "pkg/fence/relay",
		"pkg/guard", "pkg/managed", "pkg/observe", "pkg/ocf", "pkg/ocf/container", "pkg/ocf/controller", "pkg/ocf/node", "pkg/ocf/rbd", "pkg/op",
		"pkg/release", "pkg/setup", "pkg/wire", "pkg/worker",
	},
	"fencing/fence_keepone": {
		"pkg/api", "pkg/config", "pkg/core", "pkg/drive", "pkg/drive/ipmi", "pkg/fence", "pkg/fence/relay", "pkg/op", "pkg/pki",
		"pkg/version",
	},
}

func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-e", "-json=ImportPath,Imports,Deps,CgoFiles"}, args...)...)
	cmd.Dir = "../.."
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var all []pkg
	for d := json.NewDecoder(out); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestImportsPointDown(t *testing.T) {
	for _, p := range list(t, "./pkg/...", "./fencing/...") {
		room := strings.TrimPrefix(p.ImportPath, module)
		allowed, named := may[room]
		if !named {
			if exempt(room) {
				continue
			}
			t.Errorf("%s is a new room: say in this test what it may import", room)
			continue
		}
		for _, i := range p.Imports {
			if inside, ok := strings.CutPrefix(i, module); ok && !slices.Contains(allowed, inside) {
				t.Errorf("%s imports %s, which is not below it", room, inside)
			}
		}
	}
}

// exempt are the rooms that wire others together, those that bind C, and helpers of tests.
func exempt(room string) bool {
	for _, prefix := range []string{"pkg/app", "pkg/activate", "pkg/drive/rbd", "pkg/drive/lxc"} {
		if strings.HasPrefix(room, prefix) {
			return true
		}
	}
	return strings.HasSuffix(room, "test") || strings.HasSuffix(room, "pipenet")
}

func TestDriversNeverImportEachOther(t *testing.T) {
	for _, p := range list(t, "./pkg/drive/...") {
		room := strings.TrimPrefix(p.ImportPath, module)
		own := strings.Join(strings.Split(room, "/")[:min(3, strings.Count(room, "/")+1)], "/")
		for _, i := range p.Imports {
			inside, ok := strings.CutPrefix(i, module+"pkg/drive/")
			if ok && !strings.HasPrefix("pkg/drive/"+inside, own) {
				t.Errorf("driver %s imports driver %s", room, inside)
			}
		}
	}
}

func TestRaftIsKnownToReplicaAlone(t *testing.T) {
	for _, p := range list(t, "./...") {
		room := strings.TrimPrefix(p.ImportPath, module)
		for _, i := range p.Imports {
			if strings.HasPrefix(i, "github.com/hashicorp/raft") && room != "pkg/replica" {
				t.Errorf("%s imports %s", room, i)
			}
		}
	}
}

// TestResourceAgentsKnowLittle keeps them from needing more than a socket, the kernel and the records.
func TestResourceAgentsKnowLittle(t *testing.T) {
	allowed := []string{
		"pkg/ocf", "pkg/api", "pkg/clock", "pkg/op", "pkg/release", "pkg/core", "pkg/version",
		"pkg/ocf/node", "pkg/ocf/rbd", "pkg/ocf/container", "pkg/ocf/controller",
	}
	for _, p := range list(t, "./resource-agents/...", "./pkg/ocf/...") {
		for _, i := range p.Imports {
			if inside, ok := strings.CutPrefix(i, module); ok && !slices.Contains(allowed, inside) {
				t.Errorf("%s imports %s", strings.TrimPrefix(p.ImportPath, module), inside)
			}
		}
		if len(p.CgoFiles) > 0 {
			t.Errorf("%s binds C", p.ImportPath)
		}
	}
}

// TestSmallProgramsStaySmall keeps what must not fail, or must answer in milliseconds, free of what costs memory
// and start time.
func TestSmallProgramsStaySmall(t *testing.T) {
	heavy := []string{"net/http", "github.com/hashicorp/raft", "github.com/ceph/go-ceph", "github.com/lxc/go-lxc", "github.com/prometheus/"}
	for program, more := range map[string][]string{
		"./cmd/keepone":           nil,
		"./cmd/keepone-guard":     {"crypto/tls", "github.com/vishvananda/netlink", "github.com/spf13/cobra"},
		"./resource-agents/...":   {"github.com/vishvananda/netlink", "github.com/spf13/cobra"},
		"./fencing/fence_keepone": {"github.com/spf13/cobra"},
	} {
		for _, p := range list(t, program) {
			for _, d := range p.Deps {
				for _, h := range append(slices.Clone(heavy), more...) {
					if strings.HasPrefix(d, h) {
						t.Errorf("%s links %s", program, d)
					}
				}
			}
		}
	}
}

// TestSimulatorIsForTests keeps it out of what is installed.
func TestSimulatorIsForTests(t *testing.T) {
	for _, p := range list(t, "./pkg/...", "./cmd/...", "./resource-agents/...", "./fencing/...") {
		if slices.Contains(p.Imports, module+"pkg/sim") {
			t.Errorf("%s imports pkg/sim", strings.TrimPrefix(p.ImportPath, module))
		}
	}
}

func TestCoreIsPure(t *testing.T) {
	for _, p := range list(t, "./pkg/core") {
		for _, i := range p.Imports {
			switch i {
			case "cmp", "errors", "fmt", "maps", "net/netip", "reflect", "slices", "strings", "time":
			default:
				t.Errorf("pkg/core imports %s", i)
			}
		}
	}
}
