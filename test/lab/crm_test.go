package lab

import (
	"encoding/xml"
	"os"
	"testing"
)

// TestParseCRM reads what crm_mon of Pacemaker 2.1.5 printed while a cluster was starting its last fence device.
func TestParseCRM(t *testing.T) {
	text, err := os.ReadFile("testdata/crm_mon.xml")
	if err != nil {
		t.Fatal(err)
	}
	v, err := parseCRM(string(text))
	if err != nil {
		t.Fatal(err)
	}
	if v.DC != "n1" || !v.Quorate || len(v.Nodes) != 3 || !v.IsOnline("n3") || v.IsOnline("n4") {
		t.Errorf("got %+v", v)
	}
	for resource, want := range map[string]string{"one": "n1", "fence-n1": "n2", "fence-n3": "", "absent": ""} {
		if got := v.Holder(resource); got != want {
			t.Errorf("holder of %s: got %q, want %q", resource, got, want)
		}
	}
	if _, err := parseCRM("crm_mon: Connection to cluster failed"); err == nil {
		t.Error("words passed as an answer")
	}
}

func TestIsOnline(t *testing.T) {
	v := CRMView{Nodes: []CRMNode{{Name: "a", Online: true, Pending: true}, {Name: "b", Online: true, Unclean: true}, {Name: "c"}}}
	for _, name := range []string{"a", "b", "c"} {
		if v.IsOnline(name) {
			t.Errorf("%s counts as online", name)
		}
	}
}

func TestSeedCIB(t *testing.T) {
	b := &BMC{Address: "10.78.0.101", User: "admin", Password: `a"<b`, node: &Node{Name: "n1"}}
	var cib struct {
		Options []struct {
			Name  string `xml:"name,attr"`
			Value string `xml:"value,attr"`
		} `xml:"configuration>crm_config>cluster_property_set>nvpair"`
		Params []struct {
			Name  string `xml:"name,attr"`
			Value string `xml:"value,attr"`
		} `xml:"configuration>resources>primitive>instance_attributes>nvpair"`
	}
	if err := xml.Unmarshal([]byte(SeedCIB(map[string]string{"dc-deadtime": "2s"}, b.FenceDevice(), "")), &cib); err != nil {
		t.Fatal(err)
	}
	if len(cib.Options) != 1 || cib.Options[0].Value != "2s" {
		t.Errorf("options: got %+v", cib.Options)
	}
	for _, p := range cib.Params {
		if p.Name == "password" && p.Value != b.Password {
			t.Errorf("password: got %q", p.Value)
		}
	}
}
