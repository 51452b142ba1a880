// Package agents holds the resource agents as built against ocf-tester: real processes, the real kernel, and a made-up
// daemon behind its socket.
package agents

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/keepone-ha/keepone/pkg/api"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/op"
	"github.com/keepone-ha/keepone/pkg/release"
)

func TestOCFTester(t *testing.T) {
	for _, tool := range []string{"ocf-tester", "xmllint"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed (resource-agents, libxml2-utils)", tool)
		}
	}
	dir := build(t)
	for _, tt := range []struct {
		agent   string
		options []string
	}{
		{"rbd", []string{"-o", "service=one"}},
		{"container", []string{"-o", "service=one"}},
		{"controller", nil},
	} {
		t.Run(tt.agent, func(t *testing.T) {
			run := t.TempDir()
			(&daemon{run: run, cgroups: cgroupRoot(t)}).serve(t)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			args := append([]string{"-n", "x", "-o", "run_dir=" + run}, tt.options...)
			cmd := exec.CommandContext(ctx, "ocf-tester", append(args, filepath.Join(dir, tt.agent))...)
			cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// build makes the agents, and an attrd_updater that takes everything: there is no cluster.
func build(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, parent := range []string{dir, filepath.Dir(dir)} { // ocf-tester runs meta-data as nobody
		if err := os.Chmod(parent, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "build", "-o", dir+"/", "./rbd", "./container", "./controller")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.WriteFile(filepath.Join(dir, "attrd_updater"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// cgroupRoot is where cgroup v2 is mounted: only there the kernel can say that a cgroup is absent.
func cgroupRoot(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	mounts, err := release.ParseMounts(string(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mounts {
		if m.Type == "cgroup2" {
			return m.Path
		}
	}
	t.Skip("cgroup v2 is not mounted")
	return ""
}

// daemon grants everything at once. What it brings up is one process, which is mapper and init alike.
type daemon struct {
	run, cgroups string
	epoch        core.Epoch
	up           *exec.Cmd
}

func (d *daemon) serve(t *testing.T) {
	local := api.NewLocal(slog.New(slog.DiscardHandler))
	handle := func(method string, do func(body json.RawMessage) (any, error)) {
		local.Handle(method, api.AccessChange, func(_ context.Context, _ api.Caller, body json.RawMessage, _ func(any) error) (any, error) {
			return do(body)
		})
	}
	handle(op.MethodHealth, func(json.RawMessage) (any, error) {
		return op.Health{
			Healthy: true, Manager: core.ManagerPacemaker, Leader: "a", Quorum: true,
			Services: map[core.ServiceName]op.Able{"one": {OK: true, Score: 10}},
		}, nil
	})
	handle(op.MethodProbe, func(json.RawMessage) (any, error) { return op.Probed{OK: true}, nil })
	handle(op.MethodWake, func(json.RawMessage) (any, error) { return nil, nil })
	handle(op.MethodPublish, func(json.RawMessage) (any, error) { return nil, nil })
	handle(op.MethodClaim, d.claim)
	if err := local.Listen(filepath.Join(d.run, "keeponed.sock")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		local.Close()
		if d.up != nil {
			_ = d.up.Process.Kill()
			_ = d.up.Wait()
		}
	})
}

// The device is one that nothing is done to when it is let go of.
const device = "/dev/null"

func (d *daemon) claim(body json.RawMessage) (any, error) {
	var c op.Claim
	if err := json.Unmarshal(body, &c); err != nil {
		return nil, err
	}
	if r, err := release.Load(d.run, c.Service); err == nil {
		if f, err := release.Running(d.run, r); err != nil || f.Mapper {
			return op.Claimed{Epoch: r.Epoch, Device: device}, err
		}
	}
	if d.up != nil {
		_ = d.up.Wait() // the agent has killed it
	}
	d.up = exec.Command("sleep", "300")
	if err := d.up.Start(); err != nil {
		return nil, err
	}
	process, err := release.ProcessOf(d.up.Process.Pid)
	if err != nil {
		return nil, err
	}
	d.epoch++
	return op.Claimed{Epoch: d.epoch, Device: device}, d.record(c, process)
}

// record is what a starter and a mapper that ended well leave behind.
func (d *daemon) record(c op.Claim, process release.Process) error {
	group := filepath.Join(d.cgroups, "keepone-conformance", string(c.Service))
	r := release.Record{
		Service: c.Service, Epoch: d.epoch, Attempt: 1, Mapper: process,
		Cgroups: release.Cgroups{Run: filepath.Join(group, "run"), Map: filepath.Join(group, "map")},
		Storage: release.Storage{Kind: release.KindLoop, Device: device, FuseDir: release.FuseDir(d.run, c.Service)},
	}
	if c.Stage == core.StageRunning {
		r.Init = process
	}
	if err := r.Save(d.run); err != nil {
		return err
	}
	for name, v := range map[string]any{
		"mapper.json":      release.Mapper{Process: process, Device: device},
		"mapper-exit.json": release.MapperExit{Process: process, Flushed: true, Unlocked: true},
	} {
		text, err := json.Marshal(v)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(release.Dir(d.run, c.Service), name), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}
