package container

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/keepone-ha/keepone/pkg/api"
	"github.com/keepone-ha/keepone/pkg/ocf"
	"github.com/keepone-ha/keepone/pkg/ocf/node/nodetest"
	"github.com/keepone-ha/keepone/pkg/op"
	"github.com/keepone-ha/keepone/pkg/release"
)

func TestMetadata(t *testing.T) {
	o := nodetest.New(t).Run(t.Context(), New, ocf.MetaData, "OCF_RESKEY_service=")
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

const only = "OCF_RESKEY_mode=container"

// The whole of a service as one resource, against a daemon behind a real socket, each verb twice.
func TestWholeLife(t *testing.T) {
	w := nodetest.New(t)
	w.Serve(t)
	w.Claim = func(context.Context, op.Claim, func(op.Progress)) (op.Claimed, error) {
		w.Activate(t)
		return op.Claimed{Epoch: 3}, nil
	}
	expect(t, w, ocf.ValidateAll, ocf.Success, "", "")
	expect(t, w, ocf.Monitor, ocf.NotRunning, "", "", "OCF_RESKEY_CRM_meta_interval=0")
	expect(t, w, ocf.Start, ocf.Success, "", `claim one ""`)
	expect(t, w, ocf.Start, ocf.Success, "", "")
	for _, depth := range []string{"0", "10", "20"} {
		expect(t, w, ocf.Monitor, ocf.Success, "", "", "OCF_CHECK_LEVEL="+depth)
	}
	expect(t, w, ocf.ReloadAgent, ocf.Success, "", "")
	expect(t, w, ocf.Stop, ocf.Success, "", "stop, wake")
	expect(t, w, ocf.Stop, ocf.Success, "", "")
	expect(t, w, ocf.Monitor, ocf.NotRunning, "", "")
	for _, verb := range []ocf.Verb{ocf.Promote, ocf.Demote, ocf.Notify, "migrate_to"} {
		expect(t, w, verb, ocf.ErrUnimplemented, "", "")
	}
}

// The container alone, between a volume that is mapped and mounted by others and stays so.
func TestContainerLife(t *testing.T) {
	w := nodetest.New(t)
	w.Claim = func(context.Context, op.Claim, func(op.Progress)) (op.Claimed, error) {
		w.Activate(t)
		return op.Claimed{Epoch: 3}, nil
	}
	expect(t, w, ocf.Start, ocf.ErrGeneric, "not mapped here", "", only)
	r := w.Activate(t)
	w.Facts = release.Facts{Mapper: true, MapGroup: true}
	expect(t, w, ocf.Start, ocf.ErrGeneric, "not mounted at /v/one", "", only)
	w.Facts.Mounted = true
	expect(t, w, ocf.Monitor, ocf.NotRunning, "", "", only)
	expect(t, w, ocf.Start, ocf.Success, "", `wake, claim one ""`, only)
	expect(t, w, ocf.Monitor, ocf.Success, "", "", only)
	expect(t, w, ocf.Stop, ocf.Success, "", "stop container, wake", only)
	expect(t, w, ocf.Stop, ocf.Success, "", "", only)
	expect(t, w, ocf.Monitor, ocf.NotRunning, "", "", only)
	if !w.Facts.Mounted || !w.Facts.Mapper {
		t.Error("the volume did not stay")
	}
	r.Attempt++ // a later run of the same grant is not taken for the one that was stopped
	if err := r.Save(w.RunDir); err != nil {
		t.Fatal(err)
	}
	expect(t, w, ocf.Stop, ocf.Success, "", "stop container, wake", only)
}

func TestMonitor(t *testing.T) {
	alive := release.Facts{Init: true, Populated: true, Mounted: true, Mapper: true, MapGroup: true}
	volume := release.Facts{Mounted: true, Mapper: true, MapGroup: true}
	lostVolume := release.Facts{Init: true, Populated: true, Mapper: true}
	for name, tt := range map[string]struct {
		facts  release.Facts
		blind  error
		depth  string
		mode   string
		probed op.Probed
		mute   error // the daemon answers a probe with this
		code   ocf.Code
		reason string
	}{
		"alive":                     {facts: alive, code: ocf.Success},
		"level 0 does not ask":      {facts: alive, probed: op.Probed{Why: "sick"}, code: ocf.Success},
		"level 10":                  {facts: alive, depth: "10", probed: op.Probed{Why: "blocklisted"}, code: ocf.ErrGeneric, reason: "blocklisted"},
		"level 20":                  {facts: alive, depth: "20", probed: op.Probed{Why: "oned does not answer"}, code: ocf.ErrGeneric, reason: "oned"},
		"level 20, well":            {facts: alive, depth: "20", probed: op.Probed{OK: true}, code: ocf.Success},
		"no daemon":                 {facts: alive, depth: "20", mute: errors.New("gone"), code: ocf.Success},
		"no daemon, no mount":       {facts: lostVolume, depth: "10", mute: errors.New("gone"), code: ocf.ErrGeneric, reason: "went away"},
		"no daemon, no mount, 0":    {facts: lostVolume, code: ocf.Success},
		"nothing":                   {code: ocf.NotRunning},
		"container ended":           {facts: volume, code: ocf.ErrGeneric, reason: "container gone, processes gone, mount there"},
		"volume is another's":       {facts: volume, mode: modeContainer, code: ocf.NotRunning},
		"a process survived":        {facts: release.Facts{Populated: true}, mode: modeContainer, code: ocf.ErrGeneric, reason: "processes there"},
		"the kernel can't be asked": {facts: alive, blind: errors.New("no cgroup v2"), code: ocf.ErrGeneric, reason: "no cgroup v2"},
	} {
		t.Run(name, func(t *testing.T) {
			w := nodetest.New(t)
			w.Activate(t)
			w.Facts, w.Blind, w.Probed, w.NoProbe = tt.facts, tt.blind, tt.probed, tt.mute
			expect(t, w, ocf.Monitor, tt.code, tt.reason, "", "OCF_CHECK_LEVEL="+tt.depth, "OCF_RESKEY_mode="+tt.mode)
		})
	}
}

// A stop needs no daemon and never says stopped of what may run (I7).
func TestStopIsHonest(t *testing.T) {
	for _, mode := range []string{modeWhole, modeContainer} {
		w := nodetest.New(t)
		w.Away = true
		w.Activate(t)
		w.Result = release.Result{Reasons: []string{"contain: pid 7 in state D"}}
		o := w.Run(t.Context(), New, ocf.Stop, "OCF_RESKEY_mode="+mode)
		if o.Code != ocf.ErrGeneric || !strings.Contains(o.Reason, "pid 7 in state D") {
			t.Errorf("%s: %+v", mode, o)
		}
		w.Result = release.Result{Contained: true, Reasons: []string{"sync: EIO"}}
		o = w.Run(t.Context(), New, ocf.Stop, "OCF_RESKEY_mode="+mode)
		if o.Code != ocf.Success || !strings.Contains(o.Log, "EIO") {
			t.Errorf("%s: %+v", mode, o)
		}
	}
}

// The container gets its own time to shut down, and the rest of the stop still fits the action's timeout.
func TestGraceFitsTheTimeout(t *testing.T) {
	for _, tt := range []struct{ timeout, mode, want string }{
		{"120000", modeWhole, "30s"},
		{"90000", modeWhole, "30s"},
		{"60000", modeWhole, "19s"},
		{"20000", modeWhole, "6s"},
		{"60000", modeContainer, "30s"},
		{"20000", modeContainer, "8s"},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := nodetest.New(t)
			r := w.Activate(t)
			r.StopLimit = 30e9
			if err := r.Save(w.RunDir); err != nil {
				t.Fatal(err)
			}
			w.Run(t.Context(), New, ocf.Stop, "OCF_RESKEY_CRM_meta_timeout="+tt.timeout, "OCF_RESKEY_mode="+tt.mode)
			if got := strings.Join(w.Graceful, " "); got != tt.want {
				t.Errorf("%s of %s ms: %s, want %s", tt.mode, tt.timeout, got, tt.want)
			}
		})
	}
}

// A claim is asked again while the daemon restarts, and the last line that was heard is the reason when time is up.
func TestStartWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := nodetest.New(t)
		asked := 0
		w.Claim = func(_ context.Context, _ op.Claim, send func(op.Progress)) (op.Claimed, error) {
			asked++
			send(op.Progress{Text: "fsck"})
			return op.Claimed{}, &api.Error{Code: api.CodeUnknown, Message: "keeponed went away"}
		}
		o := w.Run(t.Context(), New, ocf.Start)
		if o.Code != ocf.ErrGeneric || !strings.Contains(o.Reason, "keeponed went away") || asked < 10 {
			t.Errorf("%v %q, asked %d times", o.Code, o.Reason, asked)
		}
	})
}

func TestParameters(t *testing.T) {
	w := nodetest.New(t)
	expect(t, w, ocf.ValidateAll, ocf.ErrConfigured, "none of: whole, container", "", "OCF_RESKEY_mode=half")
	expect(t, w, ocf.Monitor, ocf.ErrConfigured, "service is missing", "", "OCF_RESKEY_service=")
}
