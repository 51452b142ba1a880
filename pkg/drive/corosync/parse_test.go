package corosync

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

// The fixtures are what corosync 3.1.7 printed in a cluster of three nodes with two links.
func fixture(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestParseQuorum(t *testing.T) {
	for name, want := range map[string]Quorum{
		"quorum.txt": {
			Quorate: true, NodeID: 1, RingID: "1.d", Expected: 3, Total: 3, Needed: 2,
			Members: []Member{{1, 1, "n1", true}, {2, 1, "n2", false}, {3, 1, "n3", false}},
		},
		"quorum-lost.txt": {NodeID: 1, RingID: "1.11", Expected: 3, Total: 1, Needed: 2, Members: []Member{{1, 1, "n1", true}}},
	} {
		got, err := ParseQuorum(fixture(t, name))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v\nwant %+v", name, got, err, want)
		}
	}
	device := "Quorate: Yes\n  Nodeid  Votes  Qdevice Name\n 1 1 A,V,NMW n1 (local)\n 0 1 Qdevice\n"
	if got, err := ParseQuorum([]byte(device)); err != nil || len(got.Members) != 1 {
		t.Errorf("a quorum device counts as a member: %+v, %v", got, err)
	}
	if q, err := ParseQuorum([]byte("Cannot initialize CMAP service\n")); err == nil {
		t.Errorf("words passed as %+v", q)
	}
}

func TestParseTotem(t *testing.T) {
	got, err := ParseTotem(fixture(t, "cmap.txt"))
	if err != nil || got != (Totem{Token: time.Second, Consensus: 1200 * time.Millisecond}) {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := ParseTotem([]byte("totem.token (u32) = 1000\n")); err == nil {
		t.Error("the file's words passed as the timing that runs")
	}
}

// tool puts a program that prints text and ends with code in the place of a real one.
func tool(t *testing.T, name, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":/usr/bin:/bin")
}

func TestNotQuorateIsAnAnswer(t *testing.T) {
	path, err := filepath.Abs("testdata/quorum-lost.txt")
	if err != nil {
		t.Fatal(err)
	}
	tool(t, "corosync-quorumtool", "cat "+path+"; exit 2")
	if q, err := ReadQuorum(t.Context()); err != nil || q.Quorate || q.Total != 1 {
		t.Errorf("got %+v, %v", q, err)
	}
	tool(t, "corosync-quorumtool", "echo 'Cannot initialize CMAP service'; exit 1")
	if _, err := ReadQuorum(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("err = %v", err)
	}
}

func TestHangingCorosyncIsLeft(t *testing.T) {
	tool(t, "corosync-quorumtool", "sleep 100")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := ReadQuorum(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("err = %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"quorum.txt", "quorum-lost.txt", "cmap.txt"} {
		f.Add(fixture(f, name))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if q, err := ParseQuorum(text); err == nil {
			for _, m := range q.Members {
				if m.ID == 0 || m.Name == "" || m.Votes < 0 {
					t.Errorf("member %+v", m)
				}
			}
		}
		if totem, err := ParseTotem(text); err == nil && (totem.Token <= 0 || totem.Consensus <= 0) {
			t.Errorf("timing %+v", totem)
		}
	})
}
