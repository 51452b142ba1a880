package controller

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/ocf"
	"github.com/keepone-ha/keepone/pkg/ocf/node/nodetest"
	"github.com/keepone-ha/keepone/pkg/op"
	"github.com/keepone-ha/keepone/pkg/release"
)

func TestMetadata(t *testing.T) {
	o := nodetest.New(t).Run(t.Context(), New, ocf.MetaData)
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

const (
	published = "publish off=false"
	withdrawn = "publish off=true"
)

// A whole life against a daemon behind a real socket, each verb twice.
func TestLife(t *testing.T) {
	w := nodetest.New(t)
	w.Serve(t)
	expect(t, w, ocf.ValidateAll, ocf.Success, "", "")
	expect(t, w, ocf.Monitor, ocf.NotRunning, "", "", "OCF_RESKEY_CRM_meta_interval=0")
	expect(t, w, ocf.Start, ocf.Success, "", published)
	expect(t, w, ocf.Start, ocf.Success, "", published)
	expect(t, w, ocf.Monitor, ocf.Success, "", "")
	expect(t, w, ocf.ReloadAgent, ocf.Success, "", published)
	expect(t, w, ocf.Stop, ocf.Success, "", withdrawn)
	expect(t, w, ocf.Stop, ocf.Success, "", withdrawn)
	expect(t, w, ocf.Monitor, ocf.NotRunning, "", "")
	expect(t, w, ocf.Promote, ocf.ErrUnimplemented, "", "")
}

func TestProbeWithoutDaemon(t *testing.T) {
	w := nodetest.New(t)
	w.Away = true
	expect(t, w, ocf.Monitor, ocf.NotRunning, "", "", "OCF_RESKEY_CRM_meta_interval=0")
	expect(t, w, ocf.Stop, ocf.Success, "", "")
}

func TestStartNeedsTheElection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := nodetest.New(t)
		w.Health.Quorum = false
		expect(t, w, ocf.Start, ocf.ErrGeneric, "not sure of its quorum", "")
		w.Health.Manager = core.ManagerKeepone
		expect(t, w, ocf.Start, ocf.ErrConfigured, "manager", "")
	})
}

// A daemon that is away at the start fails it, soon: Pacemaker does nothing else meanwhile. Once it is back a monitor
// has it publish what the start could not.
func TestStartWithoutDaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := nodetest.New(t)
		w.Away = true
		began := time.Now()
		expect(t, w, ocf.Start, ocf.ErrGeneric, "not ready in time", "")
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("the start took %s", took)
		}
		expect(t, w, ocf.Monitor, ocf.ErrGeneric, "keeponed is dead", "")
		w.Away, w.Health.Quorum = false, false
		expect(t, w, ocf.Monitor, ocf.Success, "", "")
		w.Health.Quorum = true
		expect(t, w, ocf.Monitor, ocf.Success, "", published)
		expect(t, w, ocf.Monitor, ocf.Success, "", "")
		expect(t, w, ocf.Stop, ocf.Success, "", withdrawn)
		expect(t, w, ocf.Monitor, ocf.NotRunning, "", "")
	})
}

// A leader may be away for the grace, counted from the first monitor that missed it, and anew after each return.
func TestGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := nodetest.New(t)
		expect(t, w, ocf.Start, ocf.Success, "", published)
		for range 2 {
			w.Health.Quorum, w.Health.Healthy, w.Health.Why = false, false, "no leader"
			expect(t, w, ocf.Monitor, ocf.Success, "", "")
			time.Sleep(10 * time.Second)
			expect(t, w, ocf.Monitor, ocf.Success, "", "")
			time.Sleep(5 * time.Second)
			expect(t, w, ocf.Monitor, ocf.ErrGeneric, "no leader with a quorum for 15s", "")
			expect(t, w, ocf.Monitor, ocf.Success, "", "", "OCF_RESKEY_grace=30")
			w.Health.Quorum, w.Health.Healthy = true, true
			expect(t, w, ocf.Monitor, ocf.Success, "", "")
		}
		w.Health.Healthy, w.Health.Why = false, "disk is full"
		expect(t, w, ocf.Monitor, ocf.ErrGeneric, "disk is full", "")
	})
}

// A daemon that restarts is waited for; one that is dead fails the monitor, and its attributes go where nothing runs.
func TestDeadDaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := nodetest.New(t)
		w.Health.Services["two"] = op.Able{OK: true, Score: 1}
		expect(t, w, ocf.Start, ocf.Success, "", published)
		w.Attributes["keepone-one"], w.Attributes["keepone-two"] = "1", "1"
		w.Activate(t) // service one runs here
		w.Back = time.Now().Add(2 * time.Second)
		expect(t, w, ocf.Monitor, ocf.Success, "", "")
		w.Away, w.NoCluster = true, errors.New("no attrd")
		expect(t, w, ocf.Monitor, ocf.ErrGeneric, "keeponed is dead", "delete keepone-two")
		w.NoCluster = nil // it was not taken: again
		expect(t, w, ocf.Monitor, ocf.ErrGeneric, "systemctl status keeponed", "delete keepone-two")
		expect(t, w, ocf.Monitor, ocf.ErrGeneric, "keeponed is dead", "") // once is enough
		if w.Attributes["keepone-one"] != "1" {
			t.Error("a service that runs here lost its attribute")
		}
		w.Facts = release.Facts{}
		expect(t, w, ocf.Monitor, ocf.ErrGeneric, "keeponed is dead", "delete keepone-one")
		expect(t, w, ocf.Monitor, ocf.ErrGeneric, "keeponed is dead", "")
		w.Activate(t)
		w.Away = false
		expect(t, w, ocf.Monitor, ocf.Success, "", "")
		w.Away = true
		expect(t, w, ocf.Monitor, ocf.ErrGeneric, "keeponed is dead", "delete keepone-two")
		w.Blind = errors.New("no cgroup v2") // then nothing is known of one either
		expect(t, w, ocf.Stop, ocf.Success, "", "delete keepone-two")
		expect(t, w, ocf.Monitor, ocf.NotRunning, "", "")
	})
}

func TestParameters(t *testing.T) {
	expect(t, nodetest.New(t), ocf.ValidateAll, ocf.ErrConfigured, "number of seconds", "", "OCF_RESKEY_grace=soon")
}
