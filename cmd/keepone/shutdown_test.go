package main

import (
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/release"
)

// TestShutdownUnitIsPatient: systemd must not cut the stop short that its own bounds end.
func TestShutdownUnitIsPatient(t *testing.T) {
	text, err := os.ReadFile("../../packaging/systemd/keepone-shutdown.service")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^TimeoutStopSec=(\d+)$`).FindSubmatch(text)
	if m == nil {
		t.Fatal("the unit has no TimeoutStopSec in seconds")
	}
	patience, err := time.ParseDuration(string(m[1]) + "s")
	if err != nil {
		t.Fatal(err)
	}
	const stopLimit = 2 * time.Minute // as the unit's comment says
	if need := (release.Options{Graceful: stopLimit}).Bound() + knownLimit; patience <= need {
		t.Errorf("systemd waits for %s, the stop may take %s", patience, need)
	}
}

func TestGranted(t *testing.T) {
	records := []release.Record{{Service: "front", Instance: "boot/a"}}
	for name, tt := range map[string]struct {
		grant *core.Grant
		want  bool
	}{
		"vacated":           {nil, false},
		"still ours":        {&core.Grant{Node: "a", Instance: "boot/a"}, true},
		"another node's":    {&core.Grant{Node: "b", Instance: "boot/b"}, false},
		"an earlier boot's": {&core.Grant{Node: "a", Instance: "boot/old"}, false},
	} {
		state := core.State{Services: map[core.ServiceName]core.Service{"front": {Grant: tt.grant}}}
		if got := granted(state, "a", records); got != tt.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
