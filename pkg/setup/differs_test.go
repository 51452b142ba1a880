package setup

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func live(t *testing.T, edits ...string) CIB {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "live.xml"))
	if err != nil {
		t.Fatal(err)
	}
	edited := string(text)
	for e := range slices.Chunk(edits, 2) {
		if !strings.Contains(edited, e[0]) {
			t.Fatalf("the CIB has no %q", e[0])
		}
		edited = strings.Replace(edited, e[0], e[1], 1)
	}
	cib, err := ParseCIB([]byte(edited))
	if err != nil {
		t.Fatal(err)
	}
	return cib
}

// TestDiffers looks at a CIB that `cibadmin --query` printed after the setup was loaded into a cluster.
func TestDiffers(t *testing.T) {
	s := New(garage(), options(StylePromotable))
	for _, c := range []struct {
		name  string
		edits []string
		want  []string
	}{
		{"the same", nil, nil},
		{"an operator's own additions", []string{
			`name="migration-threshold" value="3"`, `name="is-managed" value="true"/><nvpair id="x" name="migration-threshold" value="3"`,
		}, nil},
		{"a longer timeout", []string{`name="promote" interval="0s" timeout="180s"`, `name="promote" interval="0s" timeout="4min"`}, nil},
		{"a shorter one", []string{`name="promote" interval="0s" timeout="180s"`, `name="promote" interval="0s" timeout="179s"`}, []string{
			"resource rbd-one: operation promote has timeout 179s, which is too small: it needs at least 180s",
		}},
		{"none", []string{`name="demote" interval="0s" timeout="120s"`, `name="demote" interval="0s"`}, []string{
			"resource rbd-one: operation demote has no timeout, and Pacemaker's default is too small: it needs at least 120s",
		}},
		{"an old word for a role", []string{`timeout="20s" role="Promoted"`, `timeout="20s" role="Master"`}, nil},
		{"no monitor of the holder", []string{`timeout="20s" role="Promoted"`, `timeout="20s" role="Slave"`}, []string{
			"resource rbd-one: operation monitor of the role Promoted is missing: it needs interval 10s, timeout 20s",
		}},
		{"no monitor that asks the probes", []string{`name="OCF_CHECK_LEVEL" value="20"`, `name="OCF_CHECK_LEVEL" value="10"`}, []string{
			"resource container-one: operation monitor with OCF_CHECK_LEVEL=20 is missing: it needs interval 30s, timeout 20s",
		}},
		{"a controller that Pacemaker restarts", []string{`timeout="20s" on-fail="ignore"`, `timeout="20s"`}, []string{
			"resource keepone-controller: operation start has no on-fail=ignore",
		}},
		{"a parameter", []string{`name="service" value="one"`, `name="service" value="two"`}, []string{
			"resource container-one: parameter service is two: it must be one",
		}},
		{"a property", []string{`name="start-failure-is-fatal" value="false"`, `name="start-failure-is-fatal" value="true"`}, []string{
			"cluster: property start-failure-is-fatal is true: it must be false",
		}},
		{"another agent", []string{`provider="heartbeat" type="Filesystem"`, `provider="heartbeat" type="ZFS"`}, []string{
			"resource fs-one is a ocf:heartbeat:ZFS: it must be a ocf:heartbeat:Filesystem",
		}},
		{"the rule is for one role", []string{`-rule" score="-INFINITY"`, `-rule" role="Promoted" score="-INFINITY"`}, []string{
			"constraint is missing: rbd-one-clone has score -INFINITY where node attribute keepone-one is not defined or less than 1",
		}},
		{"half of a rule", []string{`boolean-op="or"`, `boolean-op="and"`}, []string{
			"constraint is missing: rbd-one-clone has score -INFINITY where node attribute keepone-one is not defined or less than 1",
		}},
		{"an id of its own", []string{`rsc_colocation id="colocation-group-one"`, `rsc_colocation id="colocation_set_1"`}, nil},
		{"a weak colocation", []string{`with-rsc-role="Promoted" score="INFINITY"`, `with-rsc-role="Promoted" score="100"`}, []string{
			"constraint is missing: group-one where rbd-one-clone is promoted, score INFINITY",
		}},
		{"an order", []string{`first-action="promote" then="group-one"`, `first-action="start" then="group-one"`}, []string{
			"constraint is missing: promote rbd-one-clone, then start group-one (Mandatory)",
		}},
		{"a level", []string{`target="n2" index="1" devices="fence-keepone"`, `target="n2" index="1" devices="bmc"`}, []string{
			"fencing level 1 of n2 is bmc: it must be fence-keepone",
		}},
		{"a move is left", []string{`<constraints>`, `<constraints><rsc_location id="cli-prefer-group-one" rsc="group-one" node="n1" score="INFINITY"/>`}, []string{
			"constraint cli-prefer-group-one is left from a move or a ban: `pcs resource clear group-one` ends it",
		}},
		{"a move of something else", []string{`<constraints>`, `<constraints><rsc_location id="cli-prefer-x" rsc="x" node="n1" score="INFINITY"/>`}, nil},
	} {
		if got := s.Differs(live(t, c.edits...)); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q\nwant %q", c.name, got, c.want)
		}
	}
}

func TestDiffersFromNothing(t *testing.T) {
	for name, s := range setups() {
		if got := s.Differs(s.CIB); len(got) > 0 {
			t.Errorf("%s differs from itself: %q", name, got)
		}
		parsed, err := ParseCIB([]byte(s.XML()))
		if got := s.Differs(parsed); err != nil || len(got) > 0 {
			t.Errorf("%s differs from its own XML: %q, %v", name, got, err)
		}
		all := s.Differs(CIB{})
		if len(all) < len(s.CIB.Primitives())+len(s.CIB.Constraints.Orders)+len(s.CIB.Levels) {
			t.Errorf("%s: an empty CIB lacks only %q", name, all)
		}
	}
	if _, err := ParseCIB([]byte("Call cib_query failed")); err == nil {
		t.Error("words passed as a CIB")
	}
}

func TestCorosyncDiffers(t *testing.T) {
	c := New(garage(), options(StyleOne)).Corosync
	for _, test := range []struct {
		name     string
		old, new string
		want     []string
	}{
		{"the same", "", "", nil},
		{"Debian's timing", "\ttoken: 1000\n\t# The default", "\t# The default", []string{"corosync.conf: totem token is not set: it must be 1000"}},
		{"slow", "consensus: 1200", "consensus: 4380", []string{"corosync.conf: totem consensus is 4380: it must be 1200"}},
		{"clear", "crypto_hash: sha256", "crypto_hash: none", []string{"corosync.conf: totem crypto_hash is not set: whoever is on the links could speak for a node"}},
		{"a link", "ring1_addr: 10.1.0.2", "ring1_addr: 10.1.0.7", []string{"corosync.conf: node n2 has ring1_addr 10.1.0.7: it must be 10.1.0.2"}},
		{"one link", "\t\tring1_addr: 10.1.0.2\n", "", []string{"corosync.conf: node n2 has no ring1_addr: it must be 10.1.0.2"}},
		{"another node", "name: n3", "name: n4", []string{"corosync.conf: node n3 is missing", "corosync.conf: node n4 is no node of the cluster document"}},
		{"another number", "nodeid: 3", "nodeid: 7", nil},
	} {
		conf, err := ParseConf([]byte(strings.Replace(c.Text(), test.old, test.new, 1)))
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Differs(conf); !slices.Equal(got, test.want) {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
	if got := c.Runs(time.Second, 1200*time.Millisecond); got != nil {
		t.Errorf("got %q", got)
	}
	if got := c.Runs(3650*time.Millisecond, 4380*time.Millisecond); len(got) != 1 || !strings.Contains(got[0], "corosync-cfgtool -R") {
		t.Errorf("got %q", got)
	}
}

// TestTotem: corosync's timing lies between a silence that keepone forgives and one that it acts on.
func TestTotem(t *testing.T) {
	for _, spec := range []struct{ suspect, down, token, lost time.Duration }{
		{time.Second, 3 * time.Second, time.Second, 2200 * time.Millisecond},
		{2 * time.Second, 12 * time.Second, 2 * time.Second, 11200 * time.Millisecond},
		{300 * time.Millisecond, 3 * time.Second, time.Second, 2200 * time.Millisecond},
	} {
		s := garage()
		s.Timing.Suspect, s.Timing.Down = spec.suspect, spec.down
		c := newCorosync(s)
		if c.Token != spec.token || c.Token+c.Consensus != spec.lost || c.Consensus < c.Token*6/5 {
			t.Errorf("suspect %s, down %s: token %s, consensus %s", spec.suspect, spec.down, c.Token, c.Consensus)
		}
	}
}

func TestParseConf(t *testing.T) {
	conf, err := ParseConf([]byte("# x\ntotem {\n interface {\n  linknumber: 0\n }\n token: 1000\n}\n"))
	if totem := conf.section("totem"); err != nil || totem.Values["token"] != "1000" || totem.section("interface").Values["linknumber"] != "0" {
		t.Errorf("got %+v, %v", conf, err)
	}
	for _, text := range []string{"}", "totem {", "token 1000", strings.Repeat("a {\n", 20)} {
		if _, err := ParseConf([]byte(text)); err == nil || !strings.Contains(err.Error(), "corosync.conf") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(New(garage(), options(StyleOne)).Corosync.Text()))
	f.Add([]byte(New(garage(), options(StylePromotable)).XML()))
	s := New(garage(), options(StylePromotable))
	f.Fuzz(func(_ *testing.T, text []byte) {
		if conf, err := ParseConf(text); err == nil {
			_ = s.Corosync.Differs(conf)
		}
		if cib, err := ParseCIB(text); err == nil {
			_ = s.Differs(cib)
		}
	})
}

func TestParseSpan(t *testing.T) {
	for text, want := range map[string]time.Duration{"20": 20 * time.Second, "20s": 20 * time.Second, "2min": 2 * time.Minute, "500ms": 500 * time.Millisecond, "1h": time.Hour} {
		if got, ok := parseSpan(text); !ok || got != want {
			t.Errorf("%s is %s, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "s", "-1s", "PT20S", "20 s", "99999999999s", "3parsecs"} {
		if got, ok := parseSpan(text); ok {
			t.Errorf("%q passed as %s", text, got)
		}
	}
}
