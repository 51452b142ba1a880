package config

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

func good(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile("testdata/good.toml")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestParseGood(t *testing.T) {
	spec, err := Parse(good(t), Options{File: "good.toml"})
	if err != nil {
		t.Fatal(err)
	}
	if spec.Timing != DefaultTiming() || spec.Manager != core.ManagerKeepone {
		t.Errorf("defaults are missing: %+v", spec)
	}
	b, front := spec.Node("b"), spec.Service("front")
	if b.BMC == nil || b.BMC.CipherSuite != 17 || b.BMC.Password != "secret-b" || len(b.Links) != 2 {
		t.Errorf("node b is %+v", b)
	}
	if front.Volume.Mapper != "krbd" || front.Volume.FS != "ext4" || front.StartLimit != time.Minute ||
		front.Restart != DefaultRestart() || front.Probes[0].Port != 2633 {
		t.Errorf("service front is %+v", front)
	}
	if front.Network.MAC != mac("demo", "front") || front.Network.MAC[1] != '2' && front.Network.MAC[1] != '6' &&
		front.Network.MAC[1] != 'a' && front.Network.MAC[1] != 'e' {
		t.Errorf("MAC %s is not derived or not locally administered", front.Network.MAC)
	}
}

// Each case changes the good document; want is the whole of what Parse says.
var badDocuments = []struct {
	name, old, with, want string
}{
	{"syntax", `lease = "3s"`, `lease = 3s"`, `c.toml:5:10: not valid TOML: strings must be quoted`},
	{"unknown key", `lease = "3s"`, `leas = "3s"`, `c.toml:5:1: unknown key timing.leas; did you mean lease?`},
	{"unknown table", `[timing]`, `[tuning]`, `c.toml:4:2: unknown key tuning; did you mean timing?`},
	{"unknown key of a node", "witness = true", "wittness = true", `c.toml:23:1: unknown key node.wittness; did you mean witness?`},
	{"duplicate key", `lease = "3s"`, "lease = \"3s\"\nlease = \"4s\"", `c.toml:6:1: lease is already set on line 5`},
	{"duplicate table", `[[node]]`, "[timing]\n[[node]]", `c.toml:7:2: [timing] is already there on line 4: merge the two`},
	{
		"duplicate inline key", `user = "admin", password = 'secret-b'`, `user = "a", user = "b", password = 'x'`,
		`c.toml:18:43: user is already set on line 18`,
	},
	{"wrong kind", `lease = "3s"`, `lease = 3`, `c.toml:5:1: timing.lease must be a duration in quotes, such as "3s" or "200ms"`},
	{"no unit", `lease = "3s"`, `lease = "3"`, `c.toml:5:1: timing.lease is "3": it must be a duration with its unit, such as "3s" or "200ms"`},
	{"negative", `lease = "3s"`, `lease = "-3s"`, `c.toml:5:1: timing.lease is -3s: it must be more than 0 and at most 24h`},
	{
		"suspect too short", `lease = "3s"`, `suspect = "500ms"`,
		`c.toml:5:1: timing: suspect is 500ms, heartbeat 200ms; suspect must be at least 3 × heartbeat, so that one lost datagram costs nothing`,
	},
	{
		"lease above down", `lease = "3s"`, `lease = "4s"`,
		`c.toml:4:2: timing: down is 3s, lease 4s; down must be at least lease, so that a holder has contained itself before it may be shot`,
	},
	{"lease not above suspect", `lease = "3s"`, `suspect = "3s"`, `c.toml:4:2: timing: lease is 3s, suspect 3s; lease must be more than suspect`},
	{
		"lease too short for an election", `lease = "3s"`, `lease = "1500ms"`,
		`c.toml:5:1: timing: lease is 1.5s, raft_election 400ms, heartbeat 200ms; lease must be at least 4 × raft_election + 2 × heartbeat, so that a healthy holder outlives a change of leader`,
	},
	{
		"margin", `lease = "3s"`, `lease_margin = "10ms"`,
		`c.toml:5:1: timing: lease_margin is 10ms; lease_margin must be at least 100ms: a guard needs time to contain`,
	},
	{
		"manager", `cluster = "demo"`, "cluster = \"demo\"\nmanager = \"heartbeat\"",
		`c.toml:3:1: manager is "heartbeat": it must be one of keepone, pacemaker`,
	},
	{
		"strict", `[timing]`, "[fencing]\npolicy = \"strict\"\n[timing]",
		`c.toml:5:1: fencing.policy = "strict" needs the watchdog proof, which this version does not have: use "default", or require and proofs`,
	},
	{
		"watchdog", `[timing]`, "[fencing]\nrequire = \"any\"\nproofs = [\"watchdog\"]\n[timing]",
		`c.toml:6:11: fencing.proofs: the watchdog proof is not in this version: use bmc-off, storage or both`,
	},
	{
		"human", `[timing]`, "[fencing]\nproofs = [\"storage\", \"human\"]\n[timing]",
		`c.toml:5:22: fencing.proofs: human is accepted always: leave it out`,
	},
	{
		"no proof", `[timing]`, "[fencing]\nproofs = []\n[timing]",
		`c.toml:5:1: fencing.proofs is empty: a service whose holder is lost could never go on`,
	},
	{
		"preset and proofs", `[timing]`, "[fencing]\npolicy = \"default\"\nproofs = [\"storage\"]\n[timing]",
		`c.toml:5:1: fencing.policy names a preset: leave out require and proofs, or leave out policy`,
	},
	{
		"bad name", `name = "b"`, `name = "B_1"`,
		`c.toml:16:1: node.name is "B_1": a name has lower-case letters, digits and, inside, hyphens alone (a DNS label)`,
	},
	{"long service", `name = "front"`, `name = "front-end-of-it"`, `c.toml:26:1: service.name is "front-end-of-it": it has 15 characters, at most 12 are allowed`},
	{"duplicate node", `name = "b"`, `name = "a"`, `c.toml:16:1: two nodes are named a: the other is on line 8`},
	{"duplicate address", `"10.0.0.2"`, `"10.0.0.1"`, `c.toml:17:10: address 10.0.0.1 of node b is also node a's, line 9`},
	{"address of a node", `10.0.2.10/24`, `10.0.1.2/16`, `c.toml:34:1: address 10.0.1.2 of service front is also node b's, line 17`},
	{"duplicate BMC", `10.0.9.2`, `10.0.9.1`, `c.toml:18:9: BMC address 10.0.9.1 of node b is also node a's, line 11`},
	{
		"no BMC password", `password = "secret-a" # of a`, ``,
		`c.toml:10:7: the BMC of node a has no password: password = "..." (it is sealed before it leaves this node)`,
	},
	{"cipher suite", `cipher_suite = 17`, `cipher_suite = 18`, `c.toml:18:70: node.bmc.cipher_suite is 18: it must lie from 0 to 17`},
	{
		"links differ", `["10.0.0.2", "10.0.1.2"]`, `["10.0.0.2"]`,
		`c.toml:17:1: node b has 1 link and node a has 2 links: every node has one address for each link`,
	},
	{"no address", `"10.0.0.2", "10.0.1.2"`, `"10.0.0.2", "node-b"`, "c.toml:17:1: node b has 1 link and node a has 2 links: every node has one address for each link\n" +
		`c.toml:17:22: node.links: "node-b" is no IP address`},
	{"unknown preferred node", `prefer = ["a"]`, `prefer = ["x"]`, `c.toml:27:11: prefer of service front names x, which is no node of this document`},
	{"witness preferred", `prefer = ["a"]`, `prefer = ["w"]`, `c.toml:27:11: prefer of service front names w, which is a witness and never holds a service`},
	{"no eligible node", `prefer = ["a"]`, `nodes = ["w"]`, "c.toml:27:1: service front has no node that may host it\n" +
		`c.toml:27:10: nodes of service front names w, which is a witness and never holds a service`},
	{
		"preferred but not eligible", `prefer = ["a"]`, "nodes = [\"b\"]\nprefer = [\"a\"]",
		`c.toml:28:11: prefer of service front names a, which is not among its nodes`,
	},
	{"no image", `image = "frontend"`, ``, `c.toml:29:10: service.volume.image is missing: image = "frontend"`},
	{"odd image", `image = "frontend"`, `image = "a/b@c"`, `c.toml:31:1: service.volume.image is "a/b@c": it must not hold /, @ or blanks`},
	{"mapper", `image = "frontend"`, "image = \"f\"\nmapper = \"nbd\"", `c.toml:32:1: service.volume.mapper is "nbd": it must be one of krbd, librbd`},
	{"file system", `image = "frontend"`, "image = \"f\"\nfs = \"btrfs\"", `c.toml:32:1: service.volume.fs is "btrfs": it must be one of ext4, xfs`},
	{"no bridge", `bridge = "br0"`, ``, `c.toml:32:10: service.network.bridge is missing: bridge = "br0"`},
	{"no prefix", `10.0.2.10/24`, `10.0.2.10`, `c.toml:34:14: service.network.addresses: "10.0.2.10" is no address with its prefix, such as "10.0.0.10/24"`},
	{"network's address", `10.0.2.10/24`, `10.0.2.0/24`, `c.toml:34:14: service.network.addresses: 10.0.2.0/24 is the address of a network, not of a container`},
	{"gateway", `gateway = "10.0.2.1"`, `gateway = "10.9.2.1"`, `c.toml:35:1: service.network.gateway is 10.9.2.1, which none of the addresses reaches`},
	{
		"group MAC", `bridge = "br0"`, "bridge = \"br0\"\nmac = \"03:00:00:00:00:01\"",
		`c.toml:34:1: service.network.mac is 03:00:00:00:00:01, a group address: the second digit must be even`,
	},
	{
		"probe kind", `kind = "opennebula"`, `kind = "icmp"`,
		`c.toml:37:1: service.probe.kind is "icmp": it must be one of tcp, http, opennebula, raftstatus, exec`,
	},
	{
		"probe without password", `password = "secret-one"`, ``,
		`c.toml:36:11: the opennebula probe of service front has no password: password = "..." (it is sealed before it leaves this node)`,
	},
	{
		"probe without port", "kind = \"opennebula\"\nuser = \"oneadmin\"\npassword = \"secret-one\"", `kind = "tcp"`,
		`c.toml:36:11: a tcp probe needs its port`,
	},
	{
		"all at once", `cluster = "demo"`, "cluster = \"demo\"\nmanger = \"x\"\nmanager = 1",
		"c.toml:3:1: unknown key manger; did you mean manager?\nc.toml:4:1: manager must be a text in quotes",
	},
}

func TestParseBad(t *testing.T) {
	base := good(t)
	for _, c := range badDocuments {
		t.Run(c.name, func(t *testing.T) {
			text := strings.Replace(base, c.old, c.with, 1)
			if text == base {
				t.Fatalf("the good document does not hold %q", c.old)
			}
			_, err := Parse(text, Options{File: "c.toml"})
			if err == nil {
				t.Fatalf("no problem, want\n%s", c.want)
			}
			if err.Error() != c.want {
				t.Errorf("got\n%v\nwant\n%s", err, c.want)
			}
			if strings.Contains(err.Error(), "secret-") {
				t.Errorf("a password is told: %v", err)
			}
		})
	}
}

func TestParseWhole(t *testing.T) {
	service := "\n[[service]]\nname = \"two\"\n[service.volume]\npool = \"rbd\"\nimage = \"frontend\"\n" +
		"[service.network]\nbridge = \"br0\"\naddresses = [\"10.0.2.11/24\"]\n"
	node := func(name, address string) string {
		return "\n[[node]]\nname = \"" + name + "\"\nlinks = [\"" + address + "\"]\n"
	}
	many := "cluster = \"c\"\n"
	for i := range 16 {
		many += node("n"+string(rune('a'+i)), "10.0.0."+string(rune('1'+i/10))+string(rune('0'+i%10)))
	}
	for _, c := range []struct{ name, text, want string }{
		{"two services on one volume", good(t) + service, "c.toml:45:1: volume rbd/frontend of service two is also service front's, line 31"},
		{
			"two nodes", "cluster = \"c\"\n" + node("a", "10.0.0.1") + node("b", "10.0.0.2"),
			"c.toml:8:1: two nodes can't tell a dead neighbour from a cut cable: add a third [[node]], which may be small and have witness = true",
		},
		{"16 nodes", many, "c.toml:64:1: 16 nodes: at most 15 are allowed"},
		{"no node", "cluster = \"c\"\n", "c.toml:1:1: no node: a cluster needs at least one [[node]]"},
		{"no cluster", node("a", "10.0.0.1"), `c.toml:1:1: cluster is missing: cluster = "a"`},
		{
			"bmc-off without a BMC", strings.Replace(good(t), "[timing]", "[fencing]\nproofs = [\"bmc-off\"]\n[timing]", 1) + node("c", "10.0.0.9"),
			"c.toml:27:3: service front needs the proof bmc-off, but node c has no [node.bmc]",
		},
		{"huge", strings.Repeat("#", maxText+1), "c.toml: the file has 1048577 bytes: at most 1048576 are read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse(c.text, Options{File: "c.toml"})
			if err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("got\n%v\nwant\n%s", err, c.want)
			}
		})
	}
}

func TestParseSealed(t *testing.T) {
	_, err := Parse(good(t), Options{File: "c.toml", Sealed: true})
	if err == nil || !strings.Contains(err.Error(), "c.toml:13:1: the BMC of node a has its password in clear") {
		t.Errorf("a password in clear passed: %v", err)
	}
	sealed, err := Seal(good(t), func(p string) (string, error) { return strings.ToUpper(p), nil })
	if err != nil {
		t.Fatal(err)
	}
	spec, err := Parse(sealed, Options{File: "c.toml", Sealed: true})
	if err != nil || spec.Node("a").BMC.Password != "sealed:SECRET-A" {
		t.Errorf("sealed document: %v, %+v", err, spec.Nodes)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(good(f))
	for _, c := range badDocuments {
		f.Add(strings.Replace(good(f), c.old, c.with, 1))
	}
	f.Fuzz(func(t *testing.T, text string) {
		spec, err := Parse(text, Options{File: "c.toml"})
		if err != nil {
			return
		}
		again, err := Parse(Effective(spec), Options{File: "effective"})
		if err != nil {
			t.Fatalf("what is shown does not parse: %v\n%s", err, Effective(spec))
		}
		if changes := Diff(withoutSecrets(spec), withoutSecrets(again)); len(changes) > 0 {
			t.Fatalf("what is shown differs: %v", changes)
		}
	})
}

func FuzzParseNode(f *testing.F) {
	f.Add("name = \"a\"\nlinks = [\"10.0.0.1\", \"10.1.0.1\"]\n")
	f.Add("name = \"a\"\nlinks = [\"fd00::1\"]\n[ports]\napi = 7480\n[ceph]\nuser = \"keepone\"\n[metrics]\nlisten = \"[::1]:9480\"\n[log]\nlevel = \"debug\"\n")
	f.Fuzz(func(t *testing.T, text string) {
		file, err := ParseNode(text, "node.toml")
		if err == nil && (file.Name == "" || len(file.Links) == 0 || file.RunDir == "" || file.DataDir == "") {
			t.Errorf("taken: %+v", file)
		}
	})
}
