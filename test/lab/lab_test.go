package lab

import (
	"flag"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseMounts(t *testing.T) {
	text := `24 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
90 24 0:57 / /run/keepone/services/one/fuse rw,nosuid - fuse.librbd keepone rw,user_id=0
91 24 7:3 / /mnt/with\040blank rw - ext4 /dev/loop3 rw
not a mount
`
	want := []mount{
		{254, 0, "/", "ext4", "/dev/vda"},
		{0, 57, "/run/keepone/services/one/fuse", "fuse.librbd", "keepone"},
		{7, 3, "/mnt/with blank", "ext4", "/dev/loop3"},
	}
	got := parseMounts(text)
	if !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	if got[0].isFUSE() || !got[1].isFUSE() {
		t.Error("FUSE mounts are not told apart")
	}
}

func TestSplitFlags(t *testing.T) {
	own := flag.NewFlagSet("", flag.ContinueOnError)
	own.String("bin", "", "")
	own.Bool("keep", false, "")
	common, rest := splitFlags(own, strings.Fields("-keep up -bin build -n 3 --bin=b"))
	if got := strings.Join(common, " "); got != "-keep -bin build --bin=b" {
		t.Errorf("common: %q", got)
	}
	if got := strings.Join(rest, " "); got != "up -n 3" {
		t.Errorf("rest: %q", got)
	}
}

func TestMergeReplacesByName(t *testing.T) {
	got := mergeCases([]Result{{Name: "a"}, {Name: "b"}}, []Result{{Name: "b", OK: true}, {Name: "c", OK: true}})
	want := []Result{{Name: "a"}, {Name: "b", OK: true}, {Name: "c", OK: true}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestGapAround(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	c := &Client{acked: []ack{{1, at(0)}, {2, at(10)}, {3, at(20)}, {5, at(2020)}, {6, at(2030)}}}
	if got := c.GapAround(at(25)).Length(); got != 2*time.Second {
		t.Errorf("gap: got %v", got)
	}
	if got := c.GapAround(at(3000)).Length(); got != 0 {
		t.Errorf("gap without an end: got %v", got)
	}
}

func TestParseVersion(t *testing.T) {
	const form = "<methodResponse><params><param><value><array><data><value><boolean>%</boolean></value><value><string>6.10.0</string>" +
		"</value><value><i4>0</i4></value></data></array></value></param></params></methodResponse>"
	if v, err := parseVersion(strings.NewReader(strings.ReplaceAll(form, "%", "1"))); err != nil || v != "6.10.0" {
		t.Errorf("got %q, %v", v, err)
	}
	if _, err := parseVersion(strings.NewReader(strings.ReplaceAll(form, "%", "0"))); err == nil {
		t.Error("a refusal passed as an answer")
	}
	if _, err := parseVersion(strings.NewReader("")); err == nil {
		t.Error("nothing passed as an answer")
	}
}

func TestBelow(t *testing.T) {
	for _, c := range []struct {
		path, dir string
		want      bool
	}{{"/a/b", "/a", true}, {"/a", "/a", true}, {"/ab", "/a", false}, {"/a", "/", false}, {"/a", "/a/b", false}} {
		if got := below(c.path, c.dir); got != c.want {
			t.Errorf("below(%q, %q) = %v", c.path, c.dir, got)
		}
	}
}

func TestEveryToolIsNamedOnce(t *testing.T) {
	seen := map[string]bool{}
	for _, tool := range tools {
		if seen[tool.name] || tool.pkg == "" || filepath.Base(tool.name) != tool.name {
			t.Errorf("tool %q", tool.name)
		}
		seen[tool.name] = true
	}
}
