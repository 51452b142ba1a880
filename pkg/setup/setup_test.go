package setup

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

func node(name core.NodeName, links ...string) core.NodeSpec {
	n := core.NodeSpec{Name: name, BMC: &core.BMCSpec{Address: "10.1.0.10" + string(name[1:]), User: "keepone", CipherSuite: 17}}
	for _, l := range links {
		n.Links = append(n.Links, netip.MustParseAddr(l))
	}
	return n
}

func service(name core.ServiceName) core.ServiceSpec {
	return core.ServiceSpec{
		Name: name, Volume: core.VolumeSpec{FS: "ext4"}, StartLimit: 2 * time.Minute, StopLimit: 30 * time.Second,
		Restart: core.RestartSpec{Failures: 3, Window: 10 * time.Minute},
	}
}

// garage is three nodes, one service.
func garage() core.Spec {
	return core.Spec{
		Cluster: "garage", Timing: core.Timing{Suspect: time.Second, Lease: 3 * time.Second, Down: 3 * time.Second},
		Nodes:    []core.NodeSpec{node("n1", "10.0.0.1", "10.1.0.1"), node("n2", "10.0.0.2", "10.1.0.2"), node("n3", "10.0.0.3", "10.1.0.3")},
		Services: []core.ServiceSpec{service("one")},
	}
}

// barn is two nodes, a witness without a BMC, two services that differ, IPv6.
func barn() core.Spec {
	s := core.Spec{
		Cluster: "barn", Timing: core.Timing{Suspect: 2 * time.Second, Lease: 10 * time.Second, Down: 12 * time.Second},
		Nodes:    []core.NodeSpec{node("n1", "fd00:0::1", "fd00:1::1"), node("n2", "fd00:0::2", "fd00:1::2"), node("w3", "fd00:0::3", "fd00:1::3")},
		Services: []core.ServiceSpec{service("one"), service("two")},
	}
	s.Nodes[1].BMC.Address = "[fd00:9::2]:1623"
	s.Nodes[2].Witness, s.Nodes[2].BMC = true, nil
	s.Services[0].Prefer = []core.NodeName{"n2", "n1"}
	s.Services[1].Nodes, s.Services[1].Volume.FS = []core.NodeName{"n1"}, "xfs"
	s.Services[1].StartLimit, s.Services[1].StopLimit = 10*time.Minute, 2*time.Minute
	return s
}

func options(style Style) Options {
	return Options{Style: style, Run: "/run/keepone", Volumes: "/var/lib/keepone/volumes"}
}

// setups are those that the goldens show.
func setups() map[string]Setup {
	several := options(StylePromotable)
	several.PerNode, several.PasswordScript = true, "/etc/keepone/bmc password"
	return map[string]Setup{
		"promotable":   New(garage(), options(StylePromotable)),
		"one":          New(garage(), options(StyleOne)),
		"two-services": New(barn(), options(StylePromotable)),
		"two-ones":     New(barn(), options(StyleOne)),
		"per-node":     New(garage(), several),
	}
}

func TestGolden(t *testing.T) {
	for name, s := range setups() {
		golden(t, name+".xml", s.XML())
		golden(t, name+".pcs", s.PCS())
	}
	golden(t, "garage.conf", New(garage(), options(StyleOne)).Corosync.Text())
	golden(t, "barn.conf", New(barn(), options(StyleOne)).Corosync.Text())
}

// golden compares with testdata; GOLDEN=write in the environment writes it, to be read before it is kept.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("GOLDEN") == "write" {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

// TestPacemakerTakesIt has Pacemaker's own checker read every setup.
func TestPacemakerTakesIt(t *testing.T) {
	if _, err := exec.LookPath("crm_verify"); err != nil {
		t.Skip("crm_verify is not installed: apt-get install pacemaker-cli-utils")
	}
	for name, s := range setups() {
		file := filepath.Join(t.TempDir(), "cib.xml")
		if err := os.WriteFile(file, []byte(s.XML()), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), "crm_verify", "-V", "-x", file).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}
