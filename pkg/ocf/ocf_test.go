package ocf

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// try runs one agent with parameters of every type, whose monitor does as told.
func try(t *testing.T, do func(context.Context, Call) (Code, error), vars map[string]string, args ...string) (Code, string, string) {
	t.Helper()
	var text Text
	var name Name
	var path Path
	var wait Seconds
	mode := Choice{Of: []string{"x", "y"}}
	a := Agent{
		Name: "test", Version: "1", Short: "a <b> & c", Long: "long",
		Params: []Param{
			{Name: "name", Required: true, Unique: true, Value: &name, Short: "its name"},
			{Name: "text", Value: &text},
			{Name: "path", Value: &path},
			{Name: "mode", Default: "x", Value: &mode},
			{Name: "wait", Default: "3", Value: &wait},
		},
		Actions: []Action{
			{Verb: Monitor, Timeout: 20 * time.Second, Interval: 10 * time.Second, Do: do},
			{Verb: Monitor, Timeout: 30 * time.Second, Interval: 11 * time.Second, Depth: 10, Role: Promoted},
			{Verb: ValidateAll, Timeout: time.Second},
			{Verb: MetaData, Timeout: time.Second},
		},
	}
	var out, said bytes.Buffer
	code := a.Run(t.Context(), Env{Args: args, Getenv: func(n string) string { return vars[n] }, Out: &out, Err: &said})
	return code, out.String(), said.String()
}

func TestExitCodesAndReasons(t *testing.T) {
	named := map[string]string{"OCF_RESKEY_name": "n"}
	for _, tt := range []struct {
		code Code
		err  error
		want Code
		said string
	}{
		{Success, nil, Success, ""},
		{NotRunning, nil, NotRunning, ""},
		{RunningPromoted, nil, RunningPromoted, ""},
		{Success, errors.New("two\nlines"), ErrGeneric, "ocf-exit-reason:two lines\n"},
		{Success, fmt.Errorf("start: %w", Fail(ErrInstalled, "no %s", "disk")), ErrInstalled, "ocf-exit-reason:start: no disk\n"},
	} {
		code, _, said := try(t, func(context.Context, Call) (Code, error) { return tt.code, tt.err }, named, "monitor")
		if code != tt.want || said != tt.said {
			t.Errorf("%v %v: %v %q", tt.code, tt.err, code, said)
		}
	}
	for want, args := range map[Code][]string{ErrArgs: {}, ErrUnimplemented: {"reload"}, Success: {"usage"}} {
		if code, _, _ := try(t, nil, nil, args...); code != want {
			t.Errorf("%q: %v, want %v", args, code, want)
		}
	}
	if code, _, _ := try(t, nil, nil, "start", "now"); code != ErrArgs {
		t.Error(code)
	}
	if FailedPromoted.String() != "OCF_FAILED_PROMOTED" || Code(77).String() != "exit code 77" || CodeOf(nil) != Success {
		t.Error("names of codes")
	}
}

func TestParameters(t *testing.T) {
	for _, tt := range []struct{ name, value, reason string }{
		{"name", "", "name is missing: its name"},
		{"name", "a/b", "no slash"},
		{"name", ".a", "no leading dot"},
		{"text", "a\nb", "control character"},
		{"path", "etc", "no absolute path"},
		{"mode", "z", "none of: x, y"},
		{"wait", "1.5", "number of seconds"},
		{"wait", "-1", "number of seconds"},
		{"wait", "99999999", "number of seconds"},
	} {
		vars := map[string]string{"OCF_RESKEY_name": "n"}
		vars["OCF_RESKEY_"+tt.name] = tt.value
		code, _, said := try(t, nil, vars, "validate-all")
		if code != ErrConfigured || !strings.Contains(said, tt.reason) {
			t.Errorf("%s=%q: %v %q", tt.name, tt.value, code, said)
		}
	}
	good := map[string]string{
		"OCF_RESKEY_name": "n", "OCF_RESKEY_text": "any text", "OCF_RESKEY_path": "/a//b", "OCF_RESKEY_mode": "y", "OCF_RESKEY_wait": "0",
	}
	if code, _, said := try(t, nil, good, "validate-all"); code != Success || said != "" {
		t.Errorf("%v %q", code, said)
	}
}

func TestCall(t *testing.T) {
	vars := map[string]string{
		"OCF_RESKEY_name": "n", "OCF_RESOURCE_INSTANCE": "vol:12", "OCF_CHECK_LEVEL": "20",
		"OCF_RESKEY_CRM_meta_interval": "10000",
	}
	code, _, said := try(t, func(_ context.Context, c Call) (Code, error) {
		if c.Instance != "vol" || c.Depth != 20 || c.Interval != 10*time.Second || c.Probe() {
			t.Errorf("%+v", c)
		}
		c.Note("one\nline")
		return Success, nil
	}, vars, "monitor")
	if code != Success || said != "keepone monitor: one line\n" {
		t.Errorf("%v %q", code, said)
	}
	vars["OCF_RESKEY_CRM_meta_interval"] = "0"
	try(t, func(_ context.Context, c Call) (Code, error) {
		if !c.Probe() {
			t.Error("no probe")
		}
		return Success, nil
	}, vars, "monitor")
}

// An action ends before Pacemaker's own timeout.
func TestBound(t *testing.T) {
	for ms, want := range map[string]time.Duration{
		"": 18 * time.Second, "nonsense": 18 * time.Second, "100": 50 * time.Millisecond, "1000": 800 * time.Millisecond,
		"10000": 9 * time.Second, "300000": 297 * time.Second,
	} {
		synctest.Test(t, func(t *testing.T) {
			vars := map[string]string{"OCF_RESKEY_name": "n", "OCF_RESKEY_CRM_meta_timeout": ms}
			try(t, func(ctx context.Context, _ Call) (Code, error) {
				deadline, _ := ctx.Deadline()
				if left := time.Until(deadline); left != want {
					t.Errorf("timeout %q: %v, want %v", ms, left, want)
				}
				return Success, nil
			}, vars, "monitor")
		})
	}
}

// Metadata need no parameter, and what people wrote comes out as XML.
func TestMetadata(t *testing.T) {
	code, out, said := try(t, nil, nil, "meta-data")
	for _, want := range []string{
		`<resource-agent name="test" version="1">`, "<version>1.1</version>", "a &lt;b&gt; &amp; c",
		`<parameter name="name" unique="1" required="1">`, `<content type="integer" default="3"/>`,
		`<action name="monitor" depth="10" timeout="30s" interval="11s" role="Promoted"/>`,
		`<action name="validate-all" timeout="1s"/>`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %s in\n%s", want, out)
		}
	}
	if code != Success || said != "" {
		t.Errorf("%v %q", code, said)
	}
}

// FuzzEnvironment: whatever Pacemaker's environment says, an agent's call has a bound, and its parameters end up in names
// and paths that can be used.
func FuzzEnvironment(f *testing.F) {
	f.Add("monitor", "one:0", "10", "20000", "10000", "one", "/run/keepone")
	f.Add("start", "", "", "", "", "", "")
	f.Add("stop", ":", "-1", "9223372036854775807", "9223372036854775807", "one", "/run/../..")
	f.Add("promote", "x", "99999999999999999999", "-5", "1.5", "../x", "run")
	f.Fuzz(func(t *testing.T, verb, instance, level, timeout, interval, name, path string) {
		var service Name
		var dir Path
		var got Call
		do := func(ctx context.Context, c Call) (Code, error) {
			got = c
			if _, bounded := ctx.Deadline(); !bounded || ctx.Err() != nil {
				t.Errorf("timeout %q: the action has no time, or no end", timeout)
			}
			return Success, nil
		}
		a := Agent{
			Name: "fuzz",
			Params: []Param{
				{Name: "service", Required: true, Value: &service}, {Name: "dir", Default: "/run/keepone", Value: &dir},
			},
			Actions: []Action{{Verb: Start, Timeout: time.Minute, Do: do}, {Verb: Stop, Timeout: time.Minute, Do: do}, {Verb: Monitor, Timeout: time.Minute, Do: do}},
		}
		env := map[string]string{
			"OCF_RESOURCE_INSTANCE": instance, "OCF_CHECK_LEVEL": level, "OCF_RESKEY_CRM_meta_timeout": timeout,
			"OCF_RESKEY_CRM_meta_interval": interval, "OCF_RESKEY_service": name, "OCF_RESKEY_dir": path,
		}
		code := a.Run(t.Context(), Env{Args: []string{verb}, Getenv: func(k string) string { return env[k] }, Out: io.Discard, Err: io.Discard})
		if got.Verb == "" {
			return
		}
		if code != Success || got.Interval < 0 || strings.ContainsAny(string(service), "/ \n") || (dir != "" && !filepath.IsAbs(string(dir))) {
			t.Errorf("%s of %q in %q: %s, %+v", verb, service, dir, code, got)
		}
	})
}
