package core

import "testing"

// TestLeases: a grant's lease is renewed for as long as it is to run, and never once anything counts on its end (I3, I5).
func TestLeases(t *testing.T) {
	ofContained := fenceOver // a fence that takes in another service only
	ofContained.Targets = []Target{{Service: "two", Epoch: 1, LeaseOver: true}}
	for name, c := range map[string]struct {
		more []Command
		want bool
	}{
		"running":               {nil, true},
		"to be released":        {[]Command{release}, true},
		"down, nothing ordered": {[]Command{downB}, true},
		"contained":             {[]Command{contained}, false},
		"being fenced":          {[]Command{fenceB}, false},
		"fenced for another":    {[]Command{ofContained}, true},
		"proven off":            {[]Command{evidence}, false},
		"of an earlier life":    {[]Command{Boot{Node: "b", Instance: "b2"}}, false},
	} {
		s := bed(t, c.more...)
		if got := s.Renewed("one"); got != c.want {
			t.Errorf("%s: renewed %t", name, got)
		}
		if got := len(s.Leases("b1")) == 1; got != c.want {
			t.Errorf("%s: named in an ack %t", name, got)
		}
	}
}
