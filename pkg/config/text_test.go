package config

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

func TestSealKeepsLayout(t *testing.T) {
	var got []string
	sealed, err := Seal(good(t), func(p string) (string, error) {
		got = append(got, p)
		return "x" + p[len(p)-1:], nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := strings.NewReplacer(`"secret-a"`, `"sealed:xa"`, `'secret-b'`, `"sealed:xb"`, `"secret-one"`, `"sealed:xe"`).Replace(good(t))
	if sealed != want {
		t.Errorf("got\n%s\nwant\n%s", sealed, want)
	}
	if strings.Join(got, " ") != "secret-a secret-b secret-one" {
		t.Errorf("sealed %v", got)
	}
	again, err := Seal(sealed, func(string) (string, error) { return "", errors.New("asked for a sealed password") })
	if err != nil || again != sealed {
		t.Errorf("sealing twice: %v", err)
	}
	refused := errors.New("no key")
	if _, err := Seal(good(t), func(string) (string, error) { return "", refused }); !errors.Is(err, refused) {
		t.Errorf("the sealer's error is lost: %v", err)
	}
}

// TestSealLong: a password in another of TOML's notations is found as well.
func TestSealLong(t *testing.T) {
	text := strings.Replace(good(t), `"secret-a"`, "\"\"\"\nsecret-a\"\"\"", 1)
	sealed, err := Seal(text, func(string) (string, error) { return "dark", nil })
	if err != nil || strings.Contains(sealed, "secret-") || strings.Count(sealed, SealedPrefix+"dark") != 3 || !strings.Contains(sealed, "# of a") {
		t.Errorf("%v:\n%s", err, sealed)
	}
}

func TestEffectiveParses(t *testing.T) {
	spec, err := Parse(good(t), Options{File: "c.toml"})
	if err != nil {
		t.Fatal(err)
	}
	shown := Effective(spec)
	again, err := Parse(shown, Options{File: "shown"})
	if err != nil {
		t.Fatalf("%v\n%s", err, shown)
	}
	if changes := Diff(withoutSecrets(spec), withoutSecrets(again)); len(changes) > 0 {
		t.Errorf("differs: %v", changes)
	}
	for _, want := range []string{"1s     suspect", "3s     lease", "3s     down", `mapper = "krbd"`, `mac = "`} {
		if !strings.Contains(shown, want) {
			t.Errorf("%q is missing in\n%s", want, shown)
		}
	}
	if strings.Contains(shown, "secret-") {
		t.Error("a password is shown")
	}
}

// withoutSecrets returns a spec that differs in its passwords alone.
func withoutSecrets(spec core.Spec) core.Spec {
	for i := range spec.Nodes {
		if spec.Nodes[i].BMC != nil {
			bmc := *spec.Nodes[i].BMC
			bmc.Password = ""
			spec.Nodes[i].BMC = &bmc
		}
	}
	for i := range spec.Services {
		for j := range spec.Services[i].Probes {
			spec.Services[i].Probes[j].Password = ""
		}
	}
	return spec
}

func TestDiff(t *testing.T) {
	for _, c := range []struct{ name, old, with, want string }{
		{"none", "# of a", "# of A", ""},
		{"cluster", `cluster = "demo"`, `cluster = "demo2"`, "cluster demo → demo2 (refused): the name is in every certificate\n" +
			"service front: MAC " + mac("demo", "front") + " → " + mac("demo2", "front") + " (at the next start of the service)"},
		{
			"lease", `lease = "3s"`, "lease = \"2s\"\ndown = \"2s\"",
			"timing: lease 3s → 2s (needs maintenance): holders still hold leases of the old length\ntiming: down 3s → 2s (at once)",
		},
		{
			"election", `lease = "3s"`, `raft_election = "500ms"`,
			"timing: raft_election 400ms → 500ms (when each daemon is restarted; containers go on)",
		},
		{"image", `image = "frontend"`, `image = "other"`, "service front: volume rbd/frontend → rbd/other (needs the service stopped)"},
		{"address", `10.0.2.10/24`, `10.0.2.11/24`, "service front: addresses 10.0.2.10/24 → 10.0.2.11/24 (at the next start of the service)"},
		{"password", `secret-a`, `secret-b`, "node a: BMC password changed (at once)"},
		{
			"policy of candidates", `[timing]`, "[fencing]\nfenceable_only = true\n[timing]",
			"fencing any of bmc-off, storage → any of bmc-off, storage, for nodes that can be fenced only (at once): also for fences that are open now",
		},
		{
			"policy", `[timing]`, "[fencing]\nproofs = [\"storage\"]\n[timing]",
			"fencing any of bmc-off, storage → any of storage (at once): also for fences that are open now",
		},
		{
			"node goes", "\n[[node]]\nname = \"w\"\nlinks = [\"10.0.0.3\", \"10.0.1.3\"]\nwitness = true",
			"\n[[node]]\nname = \"c\"\nlinks = [\"10.0.0.3\", \"10.0.1.3\"]",
			"node w goes (at once): a member must be removed with `keepone node remove` first\n" +
				"node c is new (at once): `keepone node add c` makes its token",
		},
		{"no gateway", `gateway = "10.0.2.1"`, ``, "service front: gateway 10.0.2.1 → (none) (at the next start of the service)"},
		{
			"service renamed", `name = "front"`, `name = "back"`,
			"service front goes (needs the service stopped): its volume stays as it is\nservice back is new (at once): it is started",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			old, err := Parse(good(t), Options{})
			if err != nil {
				t.Fatal(err)
			}
			text := strings.Replace(good(t), c.old, c.with, 1)
			if text == good(t) {
				t.Fatalf("the good document does not hold %q", c.old)
			}
			changed, err := Parse(text, Options{})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, change := range Diff(old, changed) {
				got = append(got, change.String())
			}
			if strings.Join(got, "\n") != c.want {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), c.want)
			}
		})
	}
}

func TestNodeFile(t *testing.T) {
	node, err := ParseNode("name = \"a\"\nlinks = [\"10.0.0.1\"]\ndata_dir = \"/d\"\n[metrics]\nlisten = \"127.0.0.1:9480\"\n[watchdog]\ndevice = \"/dev/watchdog0\"\n[log]\nlevel = \"debug\"\n", "node.toml")
	if err != nil {
		t.Fatal(err)
	}
	if node.Watchdog != (Watchdog{"/dev/watchdog0", 30 * time.Second}) {
		t.Errorf("watchdog %+v", node.Watchdog)
	}
	if node.Ports != DefaultPorts() || node.VolumesDir != "/d/volumes" || node.RunDir != "/run/keepone" || node.Log != slog.LevelDebug {
		t.Errorf("node file is %+v", node)
	}
	again, err := ParseNode(node.Text(), "text")
	if err != nil || again.Text() != node.Text() {
		t.Errorf("text does not read back: %v\n%s", err, node.Text())
	}
	for _, c := range []struct{ text, want string }{
		{"name = \"a\"", "node.toml:1:1: a node needs the address of at least one link: links = [\"10.0.0.1\"]"},
		{"name = \"a\"\nlinks = [\"10.0.0.1\"]\nport = 1", "node.toml:3:1: unknown key port; did you mean ports?"},
		{"name = \"a\"\nlinks = [\"10.0.0.1\"]\ndata_dir = \"d\"", `node.toml:3:1: data_dir is "d": it must be an absolute path`},
		{"name = \"a\"\nlinks = [\"10.0.0.1\"]\n[ports]\nguard = 7481", "node.toml:4:1: heartbeat and guard are both UDP port 7481: they need one each"},
		{"name = \"a\"\nlinks = [\"10.0.0.1\"]\n[metrics]\nlisten = \"9480\"", `node.toml:4:1: "9480" is no address with a port, such as "10.0.0.1:9480"`},
		{"name = \"a\"\nlinks = [\"10.0.0.1\"]\n[watchdog]\ntimeout = \"20s\"", `node.toml:4:1: watchdog.timeout is set and no device: name one, device = "/dev/watchdog0"`},
		{"name = \"a\"\nlinks = [\"10.0.0.1\"]\n[watchdog]\ndevice = \"/dev/watchdog\"", `node.toml:4:1: watchdog.device is "/dev/watchdog": it must be one with a number, such as "/dev/watchdog0"; ls /sys/class/watchdog`},
		{"name = \"a\"\nlinks = [\"10.0.0.1\"]\n[watchdog]\ndevice = \"/dev/watchdog1\"\ntimeout = \"5s\"", "node.toml:5:1: watchdog.timeout is 5s: it must be whole seconds, from 10s to 1m"},
		{"name = \"a\"\nlinks = [\"10.0.0.1\"]\n[log]\nlevel = \"loud\"", `node.toml:4:1: log.level is "loud": it must be one of debug, info, warn, error`},
	} {
		if _, err := ParseNode(c.text, "node.toml"); err == nil || err.Error() != c.want {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
}
