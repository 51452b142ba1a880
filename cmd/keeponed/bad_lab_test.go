//go:build lab

package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/drive/rbd/cephtest"
	"github.com/keepone-ha/keepone/pkg/release"
	"github.com/keepone-ha/keepone/pkg/worker"
)

func rbdTool(t *testing.T, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second) // also for clean-ups
	defer cancel()
	if out, err := cluster.Run(ctx, "rbd", args...); err != nil {
		t.Fatalf("rbd %v: %v %s", args, err, out)
	}
}

// TestBad breaks one thing at a time: each is told by its code and in words, in bounded time, and nothing stays.
func TestBad(t *testing.T) {
	good := newVolume(t)
	path := cephtest.Pool + "/" + good.Image
	for _, test := range []struct {
		name   string
		code   worker.Code
		words  string
		change func(t *testing.T, n *node, plan *worker.Plan)
	}{
		{"image missing", worker.CodeImageMissing, "keepone volume create", func(_ *testing.T, _ *node, p *worker.Plan) {
			p.Volume.Spec.Image = "none"
		}},
		{"image of size 0", worker.CodeImageEmpty, "size 0", func(t *testing.T, _ *node, p *worker.Plan) {
			p.Volume.Spec.Image = "empty"
			rbdTool(t, "create", "--size", "0", "rbd/empty")
		}},
		{"no file system", worker.CodeFileSystem, "damaged", func(t *testing.T, _ *node, p *worker.Plan) {
			p.Volume.Spec.Image = "blank"
			rbdTool(t, "create", "--size", "32M", "rbd/blank")
		}},
		{"keyring missing", worker.CodeCephConfig, "/no/keyring", func(_ *testing.T, _ *node, p *worker.Plan) {
			p.Volume.Ceph.Keyring = "/no/keyring"
		}},
		{"epoch ahead", worker.CodeEpochAhead, "carries epoch 9", func(t *testing.T, _ *node, _ *worker.Plan) {
			rbdTool(t, "image-meta", "set", path, "keepone.epoch", "9")
			t.Cleanup(func() { rbdTool(t, "image-meta", "remove", path, "keepone.epoch") })
		}},
		{"unsafe setting", worker.CodeCephConfig, "rbd_blocklist_on_break_lock", func(t *testing.T, _ *node, _ *worker.Plan) {
			rbdTool(t, "image-meta", "set", path, "conf_rbd_blocklist_on_break_lock", "false")
			t.Cleanup(func() { rbdTool(t, "image-meta", "remove", path, "conf_rbd_blocklist_on_break_lock") })
		}},
		{"locked by a stranger", worker.CodeImageStranger, "127.0.0.1:0/", func(t *testing.T, _ *node, _ *worker.Plan) {
			other := newNode(t)
			mustActivate(t, other.plan(good, 1))
			t.Cleanup(func() { mustVacate(t, other) })
		}},
		{"no lease", worker.CodeLease, "no live lease", func(_ *testing.T, n *node, _ *worker.Plan) {
			n.leases.Store(false)
		}},
		{"tombstone", worker.CodeTombstone, "by hand", func(t *testing.T, n *node, _ *worker.Plan) {
			if err := release.Tombstone(n.run, "svc", 1, 1, "by hand"); err != nil {
				t.Fatal(err)
			}
		}},
		{"another activation", worker.CodeBusy, "at work", func(t *testing.T, n *node, _ *worker.Plan) {
			unlock, err := release.Lock(t.Context(), n.run, "svc")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(unlock)
		}},
		{"bridge missing", worker.CodeContainerStart, "nobridge", func(_ *testing.T, _ *node, p *worker.Plan) {
			p.Container.Network.Bridge, p.Container.Link = "nobridge", "ko-svc"
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := newNode(t)
			plan := n.plan(good, 1)
			test.change(t, n, &plan)
			begin := time.Now()
			done := activateHere(t, plan, nil)
			if done.failure == nil || done.failure.Code != test.code || !strings.Contains(done.failure.Message, test.words) {
				t.Errorf("failure %+v, want %s with %q", done.failure, test.code, test.words)
			}
			t.Logf("after %v: %+v", time.Since(begin).Round(time.Millisecond), done.failure)
			wantNothing(t, n)
		})
	}
	n := newNode(t)
	mustActivate(t, n.plan(good, 1)) // none of it harmed the volume
	mustVacate(t, n)
}

// TestLeaseEndsOnTheWay loses the lease between mapping and mounting: nothing touches the file system.
func TestLeaseEndsOnTheWay(t *testing.T) {
	n := newNode(t)
	plan := n.plan(newVolume(t), 1)
	done := activateHere(t, plan, func(p worker.Progress) {
		if p.Step == worker.StepMapped {
			n.leases.Store(false)
		}
	})
	if done.failure == nil || done.failure.Code != worker.CodeLease {
		t.Errorf("failure %+v", done.failure)
	}
	if _, ok := done.steps[worker.StepMounted]; ok {
		t.Error("it mounted without a lease")
	}
	wantNothing(t, n)
}

func TestCreateVolume(t *testing.T) {
	v := spec()
	empty := t.TempDir()
	wantCode(t, makeVolume(t, v, 32<<20, empty), worker.CodeContainerConfig)
	big := filepath.Join(t.TempDir(), "big")
	if err := os.MkdirAll(big, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(big, "config"), make([]byte, 40<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	wantCode(t, makeVolume(t, v, 32<<20, big), worker.CodeVolumeFull)
	wantCode(t, makeVolume(t, v, 32<<20, "/no/such.tar"), worker.CodeContainerConfig)
	if err := makeVolume(t, v, 64<<20, source); err != nil { // nothing was left behind by those before
		t.Fatal(err)
	}
	wantCode(t, makeVolume(t, v, 64<<20, source), worker.CodeImageExists)
}

func TestClaim(t *testing.T) {
	v, old := newVolume(t), newNode(t)
	plan := old.plan(v, 1)
	mustActivate(t, plan)
	job := worker.VolumeJob{Volume: plan.Volume, Claim: &worker.ClaimVolume{Epoch: 2}, Limit: 10 * time.Second}
	if err := helpers(t).Volume(t.Context(), job, func(p worker.VolumeProgress) { t.Log(p.Step) }); err != nil {
		t.Fatal(err)
	}
	next := newNode(t)
	mustActivate(t, next.plan(v, 2))
	mustVacate(t, next)
	rec, err := release.Load(old.run, "svc")
	if err != nil {
		t.Fatal(err)
	}
	if result := release.Stop(t.Context(), old.run, rec, release.Options{Reason: "test"}); result.Vacated {
		t.Error("a volume that was claimed away counts as vacated")
	}
}

func wantCode(t *testing.T, err error, want worker.Code) {
	t.Helper()
	var failure *worker.Failure
	if !errors.As(err, &failure) || failure.Code != want {
		t.Errorf("error %v, want code %s", err, want)
	}
}

// TestControlCephAway stops Ceph under the warm connection: each request is answered in its bound, the helper
// ends where a call hangs, and all is well once Ceph is back.
func TestControlCephAway(t *testing.T) {
	v, c := newVolume(t), control(t, "ha")
	look := worker.Request{Limit: time.Second, Inspect: &worker.Inspect{Volume: v}}
	if _, err := request(t, c, look); err != nil {
		t.Fatal(err)
	}
	if err := cluster.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		begin := time.Now()
		_, err := request(t, c, look)
		if !errors.Is(err, worker.ErrControl) { // the helper was about to end
			wantCode(t, err, worker.CodeCephAway)
		}
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("answered after %v", took)
		}
	}
	if err := cluster.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "an answer", func() bool {
		_, err := request(t, c, look)
		return err == nil
	})
}

func TestControlCheck(t *testing.T) {
	v := newVolume(t)
	check := worker.Request{Limit: 10 * time.Second, Check: &worker.Check{Volume: v}}
	got, err := request(t, control(t, "ha"), check)
	if err != nil || got.Checked.FSID != cluster.FS {
		t.Errorf("check: %+v, %v", got.Checked, err)
	}
	_, err = request(t, control(t, "weak"), check)
	wantCode(t, err, worker.CodeNoCap)
	cut := worker.Request{Limit: 10 * time.Second, CutOff: &worker.CutOff{
		Volume: core.VolumeSpec{Pool: cephtest.Pool, Image: v.Image}, Epoch: 1, Addresses: []string{"192.0.2.9:0/9"},
	}}
	_, err = request(t, control(t, "weak"), cut)
	wantCode(t, err, worker.CodeNoCap)
}
