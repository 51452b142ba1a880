package pacemaker

import (
	"strings"
	"testing"
)

func TestOnlyOurs(t *testing.T) {
	// n2 holds the service; its file system is a stock agent's, and named. n1 runs a resource of somebody else.
	for _, c := range []struct {
		node  string
		named []string
		want  bool
		words string
	}{
		{"n2", []string{"fs-one"}, true, ""},
		{"n2", nil, false, "fs-one (ocf:heartbeat:Dummy) is on n2"},
		{"n1", []string{"fs-one"}, false, "other (ocf:heartbeat:Dummy) is on n1"},
		{"n3", nil, true, ""},
		{"n4", nil, false, "knows no node n4"},
	} {
		got, why := OnlyOurs(status(t, "well.xml"), c.node, c.named...)
		if got != c.want || !strings.Contains(why, c.words) {
			t.Errorf("%s %v: %v %q, want %v %q", c.node, c.named, got, why, c.want, c.words)
		}
	}
}

func TestOnlyOursWithoutQuorum(t *testing.T) {
	for _, change := range []func(*Status){func(s *Status) { s.DC = "" }, func(s *Status) { s.Quorate = false }} {
		s := status(t, "well.xml")
		change(&s)
		if ok, why := OnlyOurs(s, "n3"); ok || why == "" {
			t.Errorf("%v %q", ok, why)
		}
	}
}

// TestOnlyOursHistory: a resource that Pacemaker shows nowhere may still be there, if the last thing that the node did
// for it was not to stop it.
func TestOnlyOursHistory(t *testing.T) {
	for _, c := range []struct {
		name string
		ran  []Operation
		want bool
	}{
		{"never there", []Operation{{"alien", 3, "monitor", "", ocfNotRunning}}, true},
		{"stopped", []Operation{{"alien", 8, "stop", "", 0}, {"alien", 5, "monitor", "10s", 0}, {"alien", 4, "start", "", 0}}, true},
		{"stop failed", []Operation{{"alien", 4, "start", "", 0}, {"alien", 8, "stop", "", 1}}, false},
		{"started again", []Operation{{"alien", 8, "stop", "", 0}, {"alien", 9, "start", "", 0}}, false},
		{"start goes on", []Operation{{"alien", 8, "stop", "", 0}, {"alien", -1, "start", "", 193}}, false},
		{"an orphan with a known name", []Operation{{"fs-one", 4, "start", "", 0}}, true},
		{"keepone's", []Operation{{"rbd-one:0", 4, "promote", "", 1}}, true},
	} {
		s := status(t, "well.xml")
		s.Ran["n3"] = c.ran
		if got, why := OnlyOurs(s, "n3", "fs-one"); got != c.want {
			t.Errorf("%s: %v %q", c.name, got, why)
		}
	}
}
