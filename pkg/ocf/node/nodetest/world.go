// Package nodetest is a made-up node for the tests of resource agents: kernel facts that a test sets, a daemon that says
// what a test wants, in memory or behind a real socket, and node attributes that are kept in a map.
package nodetest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keepone-ha/keepone/pkg/api"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/ocf"
	"github.com/keepone-ha/keepone/pkg/ocf/node"
	"github.com/keepone-ha/keepone/pkg/op"
	"github.com/keepone-ha/keepone/pkg/release"
)

// World is the node. Its fields are set between actions.
type World struct {
	RunDir   string
	Facts    release.Facts
	Blind    error          // the kernel can't be asked
	Result   release.Result // of the next stop
	Graceful []string       // what each stop gave the container

	Away    bool      // no daemon
	Back    time.Time // no daemon until then
	Health  op.Health
	Claim   func(ctx context.Context, c op.Claim, send func(op.Progress)) (op.Claimed, error)
	Probed  op.Probed
	NoProbe error

	Attributes map[string]string
	NoCluster  error

	mu   sync.Mutex
	did  []string
	real *api.Local
}

// New returns a node on which all is well and nothing of service one is here.
func New(t *testing.T) *World {
	t.Helper()
	return &World{
		RunDir: t.TempDir(), Attributes: map[string]string{}, Probed: op.Probed{OK: true},
		Result: release.Result{Contained: true, Vacated: true},
		Health: op.Health{
			Healthy: true, Node: "a", Manager: core.ManagerPacemaker, Leader: "b", Quorum: true,
			Services: map[core.ServiceName]op.Able{"one": {OK: true, Score: 100}},
		},
	}
}

// Serve puts the daemon behind a real socket for the rest of the test.
func (w *World) Serve(t *testing.T) {
	t.Helper()
	w.real = api.NewLocal(slog.New(slog.DiscardHandler))
	for _, method := range []string{op.MethodClaim, op.MethodWake, op.MethodHealth, op.MethodProbe, op.MethodPublish} {
		w.real.Handle(method, api.AccessChange, func(ctx context.Context, _ api.Caller, body json.RawMessage, send func(any) error) (any, error) {
			return w.serve(ctx, method, body, func(p op.Progress) { _ = send(p) })
		})
	}
	if err := w.real.Listen(w.socket()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.real.Close() })
}

func (w *World) socket() string { return filepath.Join(w.RunDir, "keeponed.sock") }

// Activate records service one as mapped, mounted and running.
func (w *World) Activate(t *testing.T) release.Record {
	t.Helper()
	r := release.Record{
		Service: "one", Epoch: 3, Attempt: 1,
		Storage: release.Storage{Kind: release.KindLoop, Mount: "/v/one", Device: "/dev/loop7"},
	}
	if err := r.Save(w.RunDir); err != nil {
		t.Fatal(err)
	}
	w.Facts = release.Facts{Init: true, Populated: true, Mounted: true, Mapper: true, MapGroup: true}
	return r
}

// Did returns what was asked of daemon, kernel and cluster since the last time, in order. Questions are left out.
func (w *World) Did() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	said := strings.Join(w.did, ", ")
	w.did = nil
	return said
}

func (w *World) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.did = append(w.did, fmt.Sprintf(format, args...))
}

// Outcome is what an agent's process would have come to.
type Outcome struct {
	Code   ocf.Code
	Reason string
	Log    string
	Out    string
}

// Run does one action of the agent on this node. More of the environment is given as NAME=value.
func (w *World) Run(ctx context.Context, agent func(open func(runDir, socket string) node.Node) *ocf.Agent, verb ocf.Verb, env ...string) Outcome {
	vars := map[string]string{
		"OCF_RESKEY_service": "one", "OCF_RESKEY_run_dir": w.RunDir, "OCF_RESOURCE_INSTANCE": "vol:0",
		"OCF_RESKEY_CRM_meta_timeout": "20000", "OCF_RESKEY_CRM_meta_interval": "10000",
	}
	for _, pair := range env {
		name, value, _ := strings.Cut(pair, "=")
		maps.Copy(vars, map[string]string{name: value})
	}
	var out, said bytes.Buffer
	code := agent(w.open).Run(ctx, ocf.Env{
		Args: []string{string(verb)}, Getenv: func(name string) string { return vars[name] }, Out: &out, Err: &said,
	})
	o := Outcome{Code: code, Log: said.String(), Out: out.String()}
	for line := range strings.Lines(o.Log) {
		if reason, ok := strings.CutPrefix(line, ocf.ReasonPrefix); ok {
			o.Reason = strings.TrimSpace(reason)
		}
	}
	return o
}

func (w *World) open(runDir, _ string) node.Node {
	n := node.Open(runDir, "")
	n.Kernel, n.Daemon, n.Attributes = kernel{w}, daemon{w}, attributes{w}
	if w.real != nil {
		n.Daemon = node.Socket(w.socket())
	}
	return n
}

type kernel struct{ w *World }

func (kernel) Record(runDir string, service core.ServiceName) (release.Record, error) {
	return release.Load(runDir, service)
}

func (kernel) Device(string, core.ServiceName) string { return "" }

func (k kernel) Running(string, release.Record) (release.Facts, error) { return k.w.Facts, k.w.Blind }

func (k kernel) Stop(_ context.Context, runDir string, r release.Record, o release.Options) release.Result {
	k.w.note("stop")
	return k.end(runDir, r, o, release.Facts{})
}

func (k kernel) StopContainer(_ context.Context, runDir string, r release.Record, o release.Options) release.Result {
	k.w.note("stop container")
	left := k.w.Facts
	left.Init, left.Populated = false, false
	res := k.end(runDir, r, o, left)
	res.Vacated = false
	return res
}

func (k kernel) end(runDir string, r release.Record, o release.Options, left release.Facts) release.Result {
	res := k.w.Result
	k.w.Graceful = append(k.w.Graceful, o.Graceful.String())
	mark := release.MarkContained
	if res.Vacated && left.Idle() {
		mark = release.MarkVacated
	}
	if res.Contained {
		k.w.Facts = left
		if err := release.Mark(runDir, r.Service, r.Epoch, r.Attempt, mark, o.Reason); err != nil {
			res.Reasons = append(res.Reasons, err.Error())
		}
	}
	return res
}

type daemon struct{ w *World }

// Call carries a call as the socket would: everything goes through JSON.
func (d daemon) Call(ctx context.Context, method string, req any, onLine func(json.RawMessage), resp any) error {
	if d.w.Away || time.Now().Before(d.w.Back) {
		return fmt.Errorf("open socket: %w: %w", api.ErrNoDaemon, fs.ErrNotExist)
	}
	body, err := json.Marshal(req)
	if err != nil {
		return err
	}
	answer, err := d.w.serve(ctx, method, body, func(p op.Progress) {
		text, err := json.Marshal(p)
		if err == nil && onLine != nil {
			onLine(text)
		}
	})
	if err != nil || resp == nil {
		return err
	}
	text, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, resp)
}

func (w *World) serve(ctx context.Context, method string, body json.RawMessage, send func(op.Progress)) (any, error) {
	switch method {
	case op.MethodHealth:
		return w.Health, nil
	case op.MethodProbe:
		return w.Probed, w.NoProbe
	case op.MethodWake:
		w.note("wake")
		return nil, nil
	case op.MethodPublish:
		var p op.Publish
		if err := json.Unmarshal(body, &p); err != nil {
			return nil, err
		}
		w.note("publish %s", strings.TrimSpace(fmt.Sprintf("%s %s off=%t", p.Service, p.Promotion, p.Off)))
		return nil, nil
	case op.MethodClaim:
		var c op.Claim
		if err := json.Unmarshal(body, &c); err != nil {
			return nil, err
		}
		w.note("claim %s %q", c.Service, c.Stage)
		return w.Claim(ctx, c, send)
	}
	return nil, api.Refuse("unknown method %s", method)
}

type attributes struct{ w *World }

func (a attributes) Set(_ context.Context, name, value string) error {
	a.w.note("set %s=%s", name, value)
	if a.w.NoCluster == nil {
		a.w.Attributes[name] = value
	}
	return a.w.NoCluster
}

func (a attributes) Delete(_ context.Context, name string) error {
	a.w.note("delete %s", name)
	if a.w.NoCluster == nil {
		delete(a.w.Attributes, name)
	}
	return a.w.NoCluster
}

// Golden compares text with a file of the test's testdata. GOLDEN=write writes it, to be read before it is kept.
func Golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("GOLDEN") == "write" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; with GOLDEN=write it becomes:\n%s", path, got)
	}
}
