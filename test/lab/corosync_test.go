package lab

import (
	"testing"
	"time"
)

func TestParseStackLine(t *testing.T) {
	near := time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)
	at := near.Add(5*time.Minute + 14633*time.Millisecond)
	for _, tt := range []struct {
		line, text string
		ok         bool
	}{
		{"Nov 21 08:05:14.633 [247] n1 corosync notice  [TOTEM ] A new membership (2.9) was formed. Members left: 1 3\n", "[247] n1 corosync notice  [TOTEM ] A new membership (2.9) was formed. Members left: 1 3", true},
		{"Nov 21 08:05:14.633 n2 pacemaker-controld  [44] (do_dc_takeover) \tinfo: Taking over\n", "n2 pacemaker-controld  [44] (do_dc_takeover) \tinfo: Taking over", true},
		{"a line that goes on from the one before\n", "", false},
		{"Nov 21\n", "", false},
	} {
		l, ok := parseStackLine(tt.line, near)
		if ok != tt.ok || ok && (l.Text != tt.text || !l.At.Equal(at)) {
			t.Errorf("%q: got %+v %v", tt.line, l, ok)
		}
	}
}
