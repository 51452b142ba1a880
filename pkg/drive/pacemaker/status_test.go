package pacemaker

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// The fixtures are what crm_mon of Pacemaker 2.1.5 printed of a cluster of three nodes.
func fixture(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func status(t *testing.T, name string) Status {
	t.Helper()
	s, err := Parse(fixture(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func find(t *testing.T, s Status, id, node string) Resource {
	t.Helper()
	for _, r := range s.Resources {
		if r.ID == id && (node == "" && len(r.Nodes) == 0 || slices.Contains(r.Nodes, node)) {
			return r
		}
	}
	t.Fatalf("no %s on %q in %+v", id, node, s.Resources)
	return Resource{}
}

func TestParseWell(t *testing.T) {
	s := status(t, "well.xml")
	if s.DC != "n1" || !s.Quorate || !strings.HasPrefix(s.Version, "2.1.5") || len(s.Nodes) != 3 || len(s.Resources) != 10 {
		t.Errorf("got %+v", s)
	}
	if want := (Options{StonithEnabled: true, NoQuorumPolicy: "stop"}); s.Options != want {
		t.Errorf("options %+v", s.Options)
	}
	if n := s.Node("n3"); n == nil || !n.Online || !n.Standby || n.Unclean || s.Node("n4") != nil {
		t.Errorf("n3 is %+v", n)
	}
	holder := find(t, s, "rbd-one", "n2")
	want := Resource{
		ID: "rbd-one", Agent: "ocf:keepone:rbd", Role: "Promoted", Managed: true, Nodes: []string{"n2"}, Parents: []string{"rbd-one-clone"},
	}
	if !reflect.DeepEqual(holder, want) {
		t.Errorf("got %+v", holder)
	}
	if r := find(t, s, "rbd-one", ""); r.Role != "Stopped" {
		t.Errorf("the instance of n3: %+v", r)
	}
	if r := find(t, s, "container-one", "n2"); r.Role != "Started" || !slices.Equal(r.Parents, []string{"one"}) {
		t.Errorf("got %+v", r)
	}
	if s.Attributes["n1"]["keepone-one"] != "1" || s.Attributes["n2"]["master-rbd-one"] != "10" {
		t.Errorf("attributes %v", s.Attributes)
	}
	if want := []Banned{{ID: "cli-ban-other-on-n2", Resource: "other", Node: "n2"}}; !slices.Equal(s.Bans, want) {
		t.Errorf("bans %+v", s.Bans)
	}
}

func TestParseFencing(t *testing.T) {
	s := status(t, "fencing.xml")
	if n := s.Node("n3"); n.Online || !n.Unclean {
		t.Errorf("n3 is %+v", n)
	}
	if len(s.Fencing) != 1 || s.Fencing[0].Target != "n3" || s.Fencing[0].Status != "pending" {
		t.Errorf("fencing %+v", s.Fencing)
	}
	if r := find(t, s, "container-one", "n2"); r.Managed {
		t.Errorf("got %+v", r)
	}
}

func TestParseTrouble(t *testing.T) {
	s := status(t, "trouble.xml")
	if r := find(t, s, "fs-one", "n2"); !r.Failed {
		t.Errorf("got %+v", r)
	}
	want := Failure{Operation: "fs-one_monitor_10000", Node: "n2", Status: "not running", Reason: "No process state file found"}
	if len(s.Failures) != 1 || s.Failures[0] != want {
		t.Errorf("failures %+v", s.Failures)
	}
	if len(s.Fencing) != 2 || s.Fencing[1].Status != "success" || s.Fencing[1].Delegate != "a human" {
		t.Errorf("fencing %+v", s.Fencing)
	}
}

func TestParseNoAnswer(t *testing.T) {
	if _, err := Parse(fixture(t, "not-connected.xml")); !errors.Is(err, ErrNotRunning) {
		t.Errorf("err = %v", err)
	}
	whole := fixture(t, "well.xml")
	for _, text := range []string{
		"", "crm_mon: Connection to cluster failed", string(whole[:len(whole)/2]), "<pacemaker-result/>", "<other><status code=\"0\"/></other>",
		`<pacemaker-result><status code="1" message="Error"/></pacemaker-result>`,
	} {
		if s, err := Parse([]byte(text)); err == nil {
			t.Errorf("%q passed as %+v", text, s)
		}
	}
}

// TestBundles: what runs in a bundle is on its host, too.
func TestBundles(t *testing.T) {
	s, err := Parse([]byte(`<pacemaker-result><resources><bundle id="web"><replica id="0">
		<resource id="web-docker-0" resource_agent="ocf:heartbeat:docker" managed="true"><node name="n1"/></resource></replica></bundle>
		<clone id="c"><group id="g:0"><resource id="x:0" resource_agent="ocf:x:y"/></group></clone>
		</resources><status code="0"/></pacemaker-result>`))
	if err != nil || len(s.Resources) != 2 {
		t.Fatalf("got %+v, %v", s.Resources, err)
	}
	if r := find(t, s, "web-docker-0", "n1"); !slices.Equal(r.Parents, []string{"web"}) {
		t.Errorf("got %+v", r)
	}
	if r := find(t, s, "x:0", ""); !slices.Equal(r.Parents, []string{"c", "g:0"}) {
		t.Errorf("got %+v", r)
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"well.xml", "fencing.xml", "trouble.xml", "not-connected.xml"} {
		f.Add(fixture(f, name))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := Parse(text)
		if err != nil {
			return
		}
		if s.DC == "" {
			if ok, why := OnlyOurs(s, "n1"); ok || why == "" {
				t.Error("without a DC something counts as known")
			}
		}
		for _, n := range s.Nodes {
			_, _ = OnlyOurs(s, n.Name)
		}
	})
}
