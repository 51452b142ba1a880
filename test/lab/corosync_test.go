package lab

import (
	"slices"
	"testing"
	"time"
)

func TestParseMembership(t *testing.T) {
	near := time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		line string
		at   time.Time
		left []string
		ok   bool
	}{
		{"Nov 21 08:05:14.633 [247] n1 corosync notice  [TOTEM ] A new membership (2.9) was formed. Members left: 1 3\n", near.Add(5*time.Minute + 14633*time.Millisecond), []string{"1", "3"}, true},
		{"Nov 21 08:05:14.633 [247] n1 corosync notice  [TOTEM ] A new membership (1.5) was formed. Members joined: 1\n", near.Add(5*time.Minute + 14633*time.Millisecond), nil, true},
		{"Nov 21 08:05:14.633 [247] n1 corosync notice  [QUORUM] Sync left[1]: 1\n", time.Time{}, nil, false},
		{"A new membership\n", time.Time{}, nil, false},
	} {
		at, left, ok := parseMembership(tt.line, near)
		if !at.Equal(tt.at) || !slices.Equal(left, tt.left) || ok != tt.ok {
			t.Errorf("%q: got %v %v %v", tt.line, at, left, ok)
		}
	}
}
