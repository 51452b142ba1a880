package pacemaker

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tools puts programs that note how they were called, and end with code, in the place of Pacemaker's own.
func tools(t *testing.T, code string) (called func() string) {
	t.Helper()
	dir := t.TempDir()
	log := filepath.Join(dir, "called")
	script := "#!/bin/sh\necho \"${0##*/} $*\" >> " + log + "\necho 'in its own words' >&2\nexit " + code + "\n"
	for _, name := range []string{"attrd_updater", "crm_resource", "crm_attribute", "cibadmin", "crm_mon"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	return func() string {
		text, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(text))
	}
}

func TestVerbs(t *testing.T) {
	promoted := Role{Resource: "rbd-one-clone", Promoted: true}
	for want, verb := range map[string]func(context.Context) error{
		"attrd_updater --name keepone-one --update 1":  func(ctx context.Context) error { return SetAttribute(ctx, "keepone-one", "1") },
		"attrd_updater --name master-rbd-one --delete": func(ctx context.Context) error { return DeleteAttribute(ctx, "master-rbd-one") },
		"crm_resource --move --node b --resource one":  func(ctx context.Context) error { return Move(ctx, Role{Resource: "one"}, "b", 0) },
		"crm_resource --clear --resource one":          func(ctx context.Context) error { return Clear(ctx, Role{Resource: "one"}) },
		"crm_attribute --name maintenance-mode --update true": func(ctx context.Context) error {
			return MaintenanceMode(ctx, true)
		},
		"crm_attribute --node b --name standby --update off --lifetime forever": func(ctx context.Context) error {
			return Standby(ctx, "b", false)
		},
		"crm_resource --move --node b --resource rbd-one-clone --promoted --lifetime PT2S": func(ctx context.Context) error {
			return Move(ctx, promoted, "b", 1500*time.Millisecond)
		},
		"crm_resource --resource one --meta --set-parameter target-role --parameter-value Stopped": func(ctx context.Context) error {
			return Stop(ctx, "one")
		},
		"crm_resource --resource one --meta --delete-parameter target-role": func(ctx context.Context) error {
			return Start(ctx, "one")
		},
	} {
		called := tools(t, "0")
		if err := verb(t.Context()); err != nil || called() != want {
			t.Errorf("called %q, %v; want %q", called(), err, want)
		}
	}
}

func TestFailuresSayWhatToDo(t *testing.T) {
	for code, want := range map[string]error{"102": ErrNotRunning, "105": ErrUnknown, "106": ErrNoQuorum, "108": ErrAlready} {
		tools(t, code)
		err := Standby(t.Context(), "b", true)
		if !errors.Is(err, want) || !strings.Contains(err.Error(), "set standby of b on") || !strings.Contains(err.Error(), "in its own words") {
			t.Errorf("%s: %v", code, err)
		}
	}
	tools(t, "1")
	if _, err := ReadCIB(t.Context()); err == nil || !strings.Contains(err.Error(), "in its own words") {
		t.Errorf("err = %v", err)
	}
	if _, err := ReadStatus(t.Context()); err == nil || errors.Is(err, ErrNotRunning) {
		t.Errorf("err = %v", err)
	}
}

func TestStatusOfNoPacemaker(t *testing.T) {
	dir := t.TempDir()
	path, err := filepath.Abs("testdata/not-connected.xml")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "crm_mon"), []byte("#!/bin/sh\ncat "+path+"\nexit 102\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	if _, err := ReadStatus(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("err = %v", err)
	}
}
