package rbd

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepone-ha/keepone/pkg/api"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/ocf"
	"github.com/keepone-ha/keepone/pkg/ocf/node/nodetest"
	"github.com/keepone-ha/keepone/pkg/op"
	"github.com/keepone-ha/keepone/pkg/release"
)

func TestMetadata(t *testing.T) {
	w := nodetest.New(t)
	o := w.Run(t.Context(), New, ocf.MetaData, "OCF_RESKEY_service=")
	if o.Code != ocf.Success {
		t.Fatal(o)
	}
	nodetest.Golden(t, "metadata.xml", o.Out)
	nodetest.Schemas(t, o.Out)
}

// expect runs a verb and compares its exit code, a part of its reason, and what it did.
func expect(t *testing.T, w *nodetest.World, verb ocf.Verb, code ocf.Code, reason, did string, env ...string) {
	t.Helper()
	o := w.Run(t.Context(), New, verb, env...)
	if o.Code != code || !strings.Contains(o.Reason, reason) || (reason == "") != (o.Reason == "") {
		t.Errorf("%s: %v %q, want %v %q", verb, o.Code, o.Reason, code, reason)
	}
	if got := w.Did(); got != did {
		t.Errorf("%s did %q, want %q", verb, got, did)
	}
}

// maps lets every claim succeed, with the volume mapped.
func maps(t *testing.T, w *nodetest.World) {
	w.Claim = func(context.Context, op.Claim, func(op.Progress)) (op.Claimed, error) {
		w.Activate(t)
		w.Facts = release.Facts{Mapper: true, MapGroup: true}
		return op.Claimed{Epoch: 3, Stage: core.StagePromoted, Device: "/dev/loop7"}, nil
	}
}

// TestLife goes through a whole life, against a daemon behind a real socket. Each verb is said twice: all of them are
// idempotent, and a monitor that finds nothing new does nothing.
func TestLife(t *testing.T) {
	w := nodetest.New(t)
	w.Serve(t)
	maps(t, w)
	link := filepath.Join(w.RunDir, "dev", "one")
	const started = "set master-vol=100, publish one master-vol off=false"
	expect(t, w, ocf.ValidateAll, ocf.Success, "", "")
	expect(t, w, ocf.Monitor, ocf.NotRunning, "", "", "OCF_RESKEY_CRM_meta_interval=0")
	expect(t, w, ocf.Start, ocf.Success, "", started)
	expect(t, w, ocf.Start, ocf.Success, "", started)
	expect(t, w, ocf.Monitor, ocf.Success, "", "")
	expect(t, w, ocf.Demote, ocf.Success, "", "")
	expect(t, w, ocf.Promote, ocf.Success, "", `claim one "promoted"`)
	expect(t, w, ocf.Promote, ocf.Success, "", `claim one "promoted"`)
	if to, err := os.Readlink(link); err != nil || to != "/dev/loop7" {
		t.Errorf("link: %q %v", to, err)
	}
	expect(t, w, ocf.Monitor, ocf.RunningPromoted, "", "")
	expect(t, w, ocf.Notify, ocf.Success, "", "")
	expect(t, w, ocf.ReloadAgent, ocf.Success, "", "publish one master-vol off=false")
	expect(t, w, ocf.Demote, ocf.Success, "", "stop, wake")
	if _, err := os.Lstat(link); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("link after demote: %v", err)
	}
	expect(t, w, ocf.Demote, ocf.Success, "", "")
	expect(t, w, ocf.Monitor, ocf.Success, "", "")
	expect(t, w, ocf.Stop, ocf.Success, "", "publish one master-vol off=true")
	expect(t, w, ocf.Stop, ocf.Success, "", "publish one master-vol off=true")
	expect(t, w, ocf.Monitor, ocf.NotRunning, "", "")
	expect(t, w, "migrate_to", ocf.ErrUnimplemented, "", "")
}

// Demote and stop need no daemon (I7), and a promoted volume stays promoted without one.
func TestWithoutDaemon(t *testing.T) {
	w := nodetest.New(t)
	maps(t, w)
	expect(t, w, ocf.Start, ocf.Success, "", "set master-vol=100, publish one master-vol off=false")
	expect(t, w, ocf.Promote, ocf.Success, "", `claim one "promoted"`)
	w.Away = true
	expect(t, w, ocf.Monitor, ocf.RunningPromoted, "", "")
	expect(t, w, ocf.Stop, ocf.Success, "", "stop, delete master-vol")
	expect(t, w, ocf.Monitor, ocf.NotRunning, "", "")
	if len(w.Attributes) > 0 {
		t.Errorf("left: %v", w.Attributes)
	}
}

func TestMonitorSaysWhatIsWrong(t *testing.T) {
	mapped := release.Facts{Mapper: true, MapGroup: true}
	for name, tt := range map[string]struct {
		facts  release.Facts
		blind  error
		probed op.Probed
		code   ocf.Code
		reason string
	}{
		"mapped":          {facts: mapped, probed: op.Probed{OK: true}, code: ocf.RunningPromoted},
		"nothing":         {code: ocf.NotRunning},
		"blocklisted":     {facts: mapped, probed: op.Probed{Why: "its client is blocklisted"}, code: ocf.FailedPromoted, reason: "blocklisted"},
		"mapper died":     {facts: release.Facts{Mounted: true}, code: ocf.FailedPromoted, reason: "mount there, mapping gone"},
		"kernel is blind": {blind: errors.New("no cgroup v2"), code: ocf.ErrGeneric, reason: "no cgroup v2"},
	} {
		t.Run(name, func(t *testing.T) {
			w := nodetest.New(t)
			w.Activate(t)
			w.Facts, w.Blind, w.Probed = tt.facts, tt.blind, tt.probed
			expect(t, w, ocf.Monitor, tt.code, tt.reason, "")
		})
	}
}

// The score goes with the daemon's word, is set on a change alone, and never leaves a volume that is here.
func TestScoreFollows(t *testing.T) {
	w := nodetest.New(t)
	maps(t, w)
	w.Run(t.Context(), New, ocf.Start)
	w.Did()
	able := func(a op.Able) { w.Health.Services["one"] = a }
	expect(t, w, ocf.Monitor, ocf.Success, "", "set master-vol=100", "OCF_RESKEY_CRM_meta_interval=0")
	able(op.Able{OK: true, Score: 7})
	expect(t, w, ocf.Monitor, ocf.Success, "", "set master-vol=7")
	expect(t, w, ocf.Monitor, ocf.Success, "", "")
	able(op.Able{Reason: "can't open the image"})
	w.NoCluster = errors.New("no attrd")
	expect(t, w, ocf.Monitor, ocf.Success, "", "delete master-vol")
	w.NoCluster = nil
	expect(t, w, ocf.Monitor, ocf.Success, "", "delete master-vol") // it was not taken: again
	expect(t, w, ocf.Monitor, ocf.Success, "", "")
	able(op.Able{OK: true, Score: 7})
	expect(t, w, ocf.Promote, ocf.Success, "", `claim one "promoted"`)
	expect(t, w, ocf.Monitor, ocf.RunningPromoted, "", "set master-vol=7")
	able(op.Able{})
	expect(t, w, ocf.Monitor, ocf.RunningPromoted, "", "")
	w.Health.Quorum = false
	able(op.Able{OK: true, Score: 9})
	expect(t, w, ocf.Monitor, ocf.RunningPromoted, "", "")
}

// What waiting does not mend fails the start at once.
func TestStartFails(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*nodetest.World)
		code   ocf.Code
		reason string
	}{
		"not its node":    {func(w *nodetest.World) { w.Health.Services["one"] = op.Able{Reason: "a witness", Barred: true} }, ocf.ErrInstalled, "a witness"},
		"no service":      {func(w *nodetest.World) { delete(w.Health.Services, "one") }, ocf.ErrArgs, `no service "one"`},
		"not pacemaker's": {func(w *nodetest.World) { w.Health.Manager = core.ManagerKeepone }, ocf.ErrConfigured, "manager"},
	} {
		t.Run(name, func(t *testing.T) {
			w := nodetest.New(t)
			tt.change(w)
			expect(t, w, ocf.Start, tt.code, tt.reason, "")
			expect(t, w, ocf.Monitor, ocf.NotRunning, "", "")
		})
	}
}

// The rest is waited for, not long, and then goes on without a score: a monitor sets it as soon as there is one.
func TestStartWithoutScore(t *testing.T) {
	const kept = "publish one master-vol off=false"
	for name, tt := range map[string]struct {
		change func(*nodetest.World)
		did    string
		then   string // by the first monitor after it was mended
	}{
		"no daemon": {func(w *nodetest.World) { w.Away = true }, "", kept + ", set master-vol=100"},
		"no quorum": {func(w *nodetest.World) { w.Health.Quorum = false }, kept, "set master-vol=100"},
		"not able":  {func(w *nodetest.World) { w.Health.Services["one"] = op.Able{Reason: "image out of reach"} }, kept, "set master-vol=100"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := nodetest.New(t)
				well := w.Health
				well.Services = map[core.ServiceName]op.Able{"one": {OK: true, Score: 100}}
				tt.change(w)
				began := time.Now()
				expect(t, w, ocf.Start, ocf.Success, "", tt.did)
				if took := time.Since(began); took < 4*time.Second || took > 9*time.Second {
					t.Errorf("took %v", took)
				}
				expect(t, w, ocf.Monitor, ocf.Success, "", "")
				w.Away, w.Health = false, well
				expect(t, w, ocf.Monitor, ocf.Success, "", tt.then)
				expect(t, w, ocf.Monitor, ocf.Success, "", "")
			})
		})
	}
}

// A daemon that restarts while it promotes is asked again; one that refuses is not.
func TestPromoteWaits(t *testing.T) {
	lost := &api.Error{Code: api.CodeUnknown, Message: "no answer from keeponed"}
	for name, tt := range map[string]struct {
		answers []error // of one claim after the other; the last one stays
		change  func(*nodetest.World)
		code    ocf.Code
		reason  string
	}{
		"restart":   {answers: []error{lost, api.ErrNoDaemon, nil}, code: ocf.Success},
		"no quorum": {answers: []error{&api.Error{Code: api.CodeNoQuorum, Message: "no leader"}}, code: ocf.ErrGeneric, reason: "no leader"},
		"refused":   {answers: []error{api.Refuse("maintenance")}, code: ocf.ErrGeneric, reason: "refused: maintenance"},
		"no access": {answers: []error{api.ErrNoAccess}, code: ocf.ErrPerm, reason: "only root"},
		"not its node": {
			answers: []error{api.Refuse("a may not have one")}, code: ocf.ErrInstalled, reason: "may not have",
			change: func(w *nodetest.World) { w.Health.Services["one"] = op.Able{Barred: true} },
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := nodetest.New(t)
				asked := 0
				w.Claim = func(context.Context, op.Claim, func(op.Progress)) (op.Claimed, error) {
					err := tt.answers[min(asked, len(tt.answers)-1)]
					asked++
					return op.Claimed{Device: "/dev/loop7"}, err
				}
				if tt.change != nil {
					tt.change(w)
				}
				o := w.Run(t.Context(), New, ocf.Promote)
				if o.Code != tt.code || !strings.Contains(o.Reason, tt.reason) {
					t.Errorf("%v %q", o.Code, o.Reason)
				}
			})
		})
	}
}

// When the bound ends, the last line that was heard says what it hung on, and the daemon sees the caller hang up.
func TestPromoteSaysWhatItWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := nodetest.New(t)
		hungUp := false
		w.Claim = func(ctx context.Context, _ op.Claim, send func(op.Progress)) (op.Claimed, error) {
			send(op.Progress{Text: "waiting for the fence of b"})
			<-ctx.Done()
			hungUp = true
			return op.Claimed{}, ctx.Err()
		}
		o := w.Run(t.Context(), New, ocf.Promote)
		if o.Code != ocf.ErrGeneric || !strings.Contains(o.Reason, "waiting for the fence of b") || !hungUp {
			t.Errorf("%v %q, hung up %t", o.Code, o.Reason, hungUp)
		}
	})
}

// A stop that can't make sure says so, and one that could not let go of the volume is done all the same.
func TestStopIsHonest(t *testing.T) {
	w := nodetest.New(t)
	w.Activate(t)
	w.Result = release.Result{Reasons: []string{"contain: pid 7 in state D"}}
	expect(t, w, ocf.Demote, ocf.ErrGeneric, "pid 7 in state D", "stop")
	expect(t, w, ocf.Stop, ocf.ErrGeneric, "may still run here", "stop")
	w.Result = release.Result{Contained: true, Reasons: []string{"sync: EIO"}}
	o := w.Run(t.Context(), New, ocf.Demote)
	if o.Code != ocf.Success || !strings.Contains(o.Log, "next holder cuts it off (sync: EIO)") {
		t.Errorf("%+v", o)
	}
	if err := os.WriteFile(filepath.Join(release.Dir(w.RunDir, "one"), "record.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.Did()
	expect(t, w, ocf.Stop, ocf.ErrGeneric, "can't be told", "")
	expect(t, w, ocf.Monitor, ocf.ErrGeneric, "can't be told", "")
}

func TestDeviceIsNeverAnother(t *testing.T) {
	w := nodetest.New(t)
	maps(t, w)
	mine := filepath.Join(w.RunDir, "mine")
	if err := os.WriteFile(mine, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	device := "OCF_RESKEY_device=" + mine
	expect(t, w, ocf.Promote, ocf.ErrInstalled, "no symbolic link", "", device)
	expect(t, w, ocf.Stop, ocf.Success, "", "publish one master-vol off=true", device)
	if _, err := os.Stat(mine); err != nil {
		t.Error(err)
	}
}

// Somebody's own mapping of an image that this node let go of is not ours to take down.
func TestForeignMappingIsLeftAlone(t *testing.T) {
	w := nodetest.New(t)
	r := w.Activate(t)
	r.Storage.Kind = release.KindKRBD
	if err := errors.Join(r.Save(w.RunDir), release.Mark(w.RunDir, "one", 3, 1, release.MarkVacated, "test")); err != nil {
		t.Fatal(err)
	}
	w.Facts = release.Facts{Mapper: true}
	expect(t, w, ocf.Monitor, ocf.NotRunning, "", "")
	expect(t, w, ocf.Stop, ocf.Success, "", "publish one master-vol off=true")
}

func TestParameters(t *testing.T) {
	w := nodetest.New(t)
	for _, tt := range []struct{ env, reason string }{
		{"OCF_RESKEY_service=", "service is missing"},
		{"OCF_RESKEY_service=../x", "no name"},
		{"OCF_RESKEY_device=dev/x", "no absolute path"},
		{"OCF_RESKEY_run_dir=run", "no absolute path"},
	} {
		expect(t, w, ocf.ValidateAll, ocf.ErrConfigured, tt.reason, "", tt.env)
	}
}
