package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/keepone-ha/keepone/pkg/api"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"keepone": func() { os.Exit(execute()) }})
}

// script is what the fake daemon says to one method.
type script struct {
	Lines  []json.RawMessage `json:"lines"`
	Answer json.RawMessage   `json:"answer"`
	Error  *api.Error        `json:"error"`
}

// serve is the fake daemon: the real socket with answers from a file. It keeps the last request of each method
// beside the file, as asked-METHOD.json.
func serve(ts *testscript.TestScript, _ bool, args []string) {
	var scripts map[string]script
	if err := json.Unmarshal([]byte(ts.ReadFile(args[0])), &scripts); err != nil {
		ts.Fatalf("read answers: %v", err)
	}
	run := ts.MkAbs("run")
	ts.Check(os.MkdirAll(run, 0o755))
	local := api.NewLocal(slog.New(slog.NewTextHandler(io.Discard, nil)))
	for method, s := range scripts {
		local.Handle(method, api.AccessRead, func(_ context.Context, _ api.Caller, body json.RawMessage, send func(any) error) (any, error) {
			if err := os.WriteFile(ts.MkAbs("asked-"+method+".json"), body, 0o600); err != nil {
				return nil, err
			}
			for _, line := range s.Lines {
				if err := send(line); err != nil {
					return nil, err
				}
			}
			if s.Error != nil {
				return nil, s.Error
			}
			return s.Answer, nil
		})
	}
	ts.Check(local.Listen(filepath.Join(run, "keeponed.sock")))
	ts.Defer(func() { _ = local.Close() })
}

// code runs a command and wants one exit code of it.
func code(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:  "testdata",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"daemon": serve, "code": code},
		Setup: func(env *testscript.Env) error {
			env.Setenv("TZ", "UTC")
			return os.WriteFile(filepath.Join(env.WorkDir, "node.toml"), []byte(strings.NewReplacer("DIR", env.WorkDir).Replace(
				"name = \"a\"\nlinks = [\"10.0.0.1\"]\nrun_dir = \"DIR/run\"\ndata_dir = \"DIR/data\"\n")), 0o600)
		},
	})
}

// leaving is a daemon whose caller presses ctrl-C after the first line.
type leaving struct{ leave context.CancelFunc }

func (d leaving) Call(ctx context.Context, _ string, _ any, onLine func(json.RawMessage), _ any) error {
	onLine(json.RawMessage(`{"Request": 7, "After": 1500000000, "Text": "told a to stop"}`))
	d.leave()
	return ctx.Err()
}

func TestInterruptGoesOn(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out, errs bytes.Buffer
	c := &cli{stdio: stdio{in: strings.NewReader(""), out: &out, err: &errs}, daemon: leaving{cancel}}
	if code := c.run(ctx, []string{"switchover", "front"}); code != exitUnknown {
		t.Errorf("exit code %d, want %d", code, exitUnknown)
	}
	if want := "   1.50 s  told a to stop\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	want := "keepone: goes on without you: request 7 is not taken back by leaving; watch it with: keepone status --watch, keepone history\n"
	if errs.String() != want {
		t.Errorf("got %q, want %q", errs.String(), want)
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]uint64{"512M": 512 << 20, "20G": 20 << 30, "1t": 1 << 40, "20GiB": 20 << 30, "20GB": 20 << 30} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%s is %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "G", "0G", "-1G", "1.5G", "20", "99999999999999999999G", "18446744073709551615T"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q passed as %d", text, got)
		}
	}
}
