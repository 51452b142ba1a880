package activate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/release"
	"github.com/keepone-ha/keepone/pkg/worker"
)

// stage is every part of an activation as a fake. It writes down what is done to it.
type stage struct {
	t      *testing.T
	plan   worker.Plan
	did    []string
	asked  int                   // how often the lease was asked for
	failAt map[string]error      // what fails
	before map[string]func()     // what happens right before an effect
	leases func(nth int) bool    // nil: always
	said   []worker.Progress     //
	goErr  error                 //
	krbd   bool                  //
	init   release.Process       // what runs
	full   bool                  //
	hold   func(context.Context) // in Map
}

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{t: t, failAt: map[string]error{}, before: map[string]func(){}}
	run := t.TempDir()
	s.plan = worker.Plan{
		Run: run, Service: "one", Epoch: 4, Instance: "boot/1", Attempt: 2, Limit: 5 * time.Second,
		Volume: worker.Volume{
			Spec: core.VolumeSpec{Pool: "rbd", Image: "one", FS: "ext4"}, Mount: run + "/mnt", RunDir: release.Dir(run, "one"),
		},
		Container: worker.Container{Name: "one", Link: "ko-one"},
		Cgroup:    run + "/cgroup/run", MapCgroup: run + "/cgroup/map",
	}
	return s
}

func (s *stage) do(what string) error {
	if before := s.before[what]; before != nil {
		before()
	}
	s.did = append(s.did, what)
	return s.failAt[what]
}

func (s *stage) Lease(_ context.Context, service core.ServiceName, epoch core.Epoch) (boottime.Time, bool, error) {
	if service != s.plan.Service || epoch != s.plan.Epoch {
		return 0, false, fmt.Errorf("asked for %s %d", service, epoch)
	}
	s.asked++
	ok := s.leases == nil || s.leases(s.asked)
	return boottime.Now().Add(time.Minute), ok, nil
}

func (s *stage) Map(ctx context.Context, _ worker.Plan) (worker.Mapped, error) {
	if s.hold != nil {
		s.hold(ctx)
		if ctx.Err() != nil {
			return worker.Mapped{}, ctx.Err()
		}
	}
	m := worker.Mapped{PID: os.Getpid(), Address: "10.0.0.1:0/7", File: "/fuse/image"}
	if s.krbd {
		m = worker.Mapped{Address: "10.0.0.1:0/7", Device: "/dev/rbd0"}
	}
	return m, s.do("map")
}

func (s *stage) Unmap(context.Context, worker.Plan, worker.Mapped) error { return s.do("unmap") }
func (s *stage) Attach(_ context.Context, file string) (Loop, error) {
	return fakeLoop{s}, s.do("attach " + file)
}

type fakeLoop struct{ s *stage }

func (fakeLoop) Name() string                                          { return "/dev/loop7" }
func (l fakeLoop) Keep() error                                         { return l.s.do("keep loop") }
func (l fakeLoop) Drop() error                                         { return l.s.do("drop loop") }
func (l fakeLoop) Release() error                                      { return l.s.do("release loop") }
func (l fakeLoop) Cleared(context.Context) error                       { return l.s.do("cleared") }
func (s *stage) Full(context.Context, string) bool                     { return s.full }
func (s *stage) Carries(context.Context, string, release.Record) error { return s.do("carries") }

func (s *stage) Check(_ context.Context, device, fs string) error {
	return s.do("check " + device + " " + fs)
}
func (s *stage) Mount(context.Context, string, string, string) error { return s.do("mount") }
func (s *stage) Unmount(context.Context, string) error               { return s.do("unmount") }

func (s *stage) Start(context.Context, worker.Plan) (int, int, error) {
	return os.Getpid(), 10, s.do("start")
}

func (s *stage) Kill(_ context.Context, init release.Process) error {
	s.init = init
	return s.do("kill")
}

func (s *stage) Report(p worker.Progress) error {
	s.said = append(s.said, p)
	return s.do("say " + string(p.Step))
}
func (s *stage) AwaitGo(context.Context) error { return s.goErr }

func (s *stage) run() *worker.Failure {
	err := Run(s.t.Context(), s.plan, Parts{Lease: s, Mapper: s, Disk: s, Container: s, Caller: s})
	var failure *worker.Failure
	if err != nil && !errors.As(err, &failure) {
		s.t.Fatalf("run: %v is no failure", err)
	}
	return failure
}

func (s *stage) want(did ...string) {
	s.t.Helper()
	if !slices.Equal(s.did, did) {
		s.t.Errorf("did\n  %s\nwant\n  %s", strings.Join(s.did, ", "), strings.Join(did, ", "))
	}
}

func TestOrder(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	if failure := s.run(); failure != nil {
		t.Fatal(failure)
	}
	s.want("say lease", "map", "attach /fuse/image", "say mapped", "check /dev/loop7 ext4", "mount", "release loop", "say mounted", "start", "say started")
	rec, err := release.Load(s.plan.Run, "one")
	if err != nil {
		t.Fatal(err)
	}
	if rec.Epoch != 4 || rec.Attempt != 2 || rec.Storage.Device != "/dev/loop7" || rec.Storage.Address != "10.0.0.1:0/7" ||
		rec.Mapper.PID != os.Getpid() || rec.Init.PID != os.Getpid() || rec.HaltSignal != 10 || rec.Network.Links[0] != "ko-one" {
		t.Errorf("record %+v", rec)
	}
	unlock, err := release.Lock(t.Context(), s.plan.Run, "one")
	if err != nil {
		t.Fatalf("the lock stays: %v", err)
	}
	unlock()
}

// promotedStage is one whose plan ends at the device.
func promotedStage(t *testing.T) *stage {
	t.Helper()
	s := newStage(t)
	s.plan.Stage = core.StagePromoted
	return s
}

func TestPromotedOrder(t *testing.T) {
	t.Parallel()
	s := promotedStage(t)
	if failure := s.run(); failure != nil {
		t.Fatal(failure)
	}
	s.want("say lease", "map", "attach /fuse/image", "say mapped", "keep loop", "say promoted", "release loop")
	if rec, err := release.Load(s.plan.Run, "one"); err != nil || !rec.Storage.Kept || rec.Storage.Device != "/dev/loop7" || rec.Init.PID != 0 {
		t.Errorf("record %+v, %v", rec, err)
	}
	s = promotedStage(t)
	s.krbd, s.plan.Volume.Spec.Mapper = true, "krbd"
	if failure := s.run(); failure != nil {
		t.Fatal(failure)
	}
	s.want("say lease", "map", "say mapped", "say promoted")
	if rec, err := release.Load(s.plan.Run, "one"); err != nil || !rec.Storage.Kept || rec.Storage.Device != "/dev/rbd0" {
		t.Errorf("record %+v, %v", rec, err)
	}
}

// TestPromotedUndo: a device that was kept is dropped before anything below it goes.
func TestPromotedUndo(t *testing.T) {
	t.Parallel()
	for at, undone := range map[string][]string{
		"say mapped":   {"release loop", "cleared", "unmap"},
		"keep loop":    {"drop loop", "release loop", "cleared", "unmap"},
		"say promoted": {"drop loop", "release loop", "cleared", "unmap"},
	} {
		s := promotedStage(t)
		s.failAt[at] = fail(worker.CodeUnknown, "broken")
		if failure := s.run(); failure == nil {
			t.Errorf("%s: no failure", at)
			continue
		}
		i := slices.Index(s.did, at)
		if got := s.did[i+1:]; !slices.Equal(got, append(undone, "say failed")) {
			t.Errorf("%s: undone %v, want %v", at, got, undone)
		}
	}
	s := promotedStage(t)
	s.failAt["say promoted"], s.failAt["drop loop"] = fail(worker.CodeUnknown, "broken"), errors.New("busy")
	if failure := s.run(); failure == nil || !strings.Contains(failure.Message, "busy") || slices.Contains(s.did, "unmap") {
		t.Errorf("a device that stays loses its mapper: %v, %v", failure, s.did)
	}
}

// TestPromotedAsks lease, tombstone and the committed client before the device is kept (I4, I6, I7).
func TestPromotedAsks(t *testing.T) {
	t.Parallel()
	steps := []string{"say lease", "map", "attach /fuse/image", "keep loop"}
	for n, next := range steps {
		s := promotedStage(t)
		s.leases = func(nth int) bool { return nth <= n }
		if failure := s.run(); failure == nil || failure.Code != worker.CodeLease || slices.Contains(s.did, next) {
			t.Errorf("%s without a lease: %v, %v", next, failure, s.did)
		}
	}
	for i, next := range steps[1:] {
		s := promotedStage(t)
		s.before[steps[i]] = func() {
			if err := release.Tombstone(s.plan.Run, "one", 4, 2, "by hand"); err != nil {
				t.Error(err)
			}
		}
		if failure := s.run(); failure == nil || failure.Code != worker.CodeTombstone || slices.Contains(s.did, next) {
			t.Errorf("%s after a stop: %v, %v", next, failure, s.did)
		}
	}
	s := promotedStage(t)
	s.goErr = errors.New("the caller is gone")
	if failure := s.run(); failure == nil || slices.Contains(s.did, "keep loop") || !slices.Contains(s.did, "unmap") {
		t.Errorf("kept without a committed client: %v, %v", failure, s.did)
	}
}

// TestStoppedWhileKept: the stop that came while the device was being kept may have looked for it too early.
func TestStoppedWhileKept(t *testing.T) {
	t.Parallel()
	s := promotedStage(t)
	s.before["keep loop"] = func() { _ = release.Tombstone(s.plan.Run, "one", 4, 2, "by hand") }
	if failure := s.run(); failure == nil || failure.Code != worker.CodeTombstone || !slices.Contains(s.did, "drop loop") {
		t.Errorf("it was stopped, and the device stays: %v, %v", failure, s.did)
	}
}

// TestRaiseSaysWhatIsMissing: whoever mounts the volume is told so, in words.
func TestRaiseSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	before := release.Record{Storage: release.Storage{Kept: true, Device: "/dev/loop7", Mount: "/v/one"}}
	plan := worker.Plan{Service: "one", Restart: true}
	err := mayFollow(plan, before, release.Facts{Mapper: true})
	if err == nil || !strings.Contains(err.Error(), "/dev/loop7 is not mounted at /v/one") {
		t.Errorf("%v", err)
	}
	if err := mayFollow(plan, before, release.Facts{Mapper: true, Mounted: true}); err != nil {
		t.Error(err)
	}
	if err := mayFollow(worker.Plan{Service: "one"}, before, release.Facts{Mapper: true}); err == nil {
		t.Error("a second activation beside a volume that is kept")
	}
}

func TestKernelMapping(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.krbd, s.plan.Volume.Spec.Mapper = true, "krbd"
	s.failAt["mount"] = fail(worker.CodeFileSystem, "broken")
	if failure := s.run(); failure == nil || failure.Code != worker.CodeFileSystem {
		t.Fatal(failure)
	}
	s.want("say lease", "map", "say mapped", "check /dev/rbd0 ext4", "mount", "unmount", "unmap", "say failed")
}

// TestUndo fails at each place: what was brought up is taken down in reverse, and the failure is the last word.
func TestUndo(t *testing.T) {
	t.Parallel()
	broken := fail(worker.CodeContainerConfig, "broken")
	for at, undone := range map[string][]string{
		"map":                   {},
		"attach /fuse/image":    {"unmap"},
		"say mapped":            {"release loop", "cleared", "unmap"},
		"check /dev/loop7 ext4": {"release loop", "cleared", "unmap"},
		"mount":                 {"unmount", "release loop", "cleared", "unmap"},
		"start":                 {"unmount", "release loop", "cleared", "unmap"},
		"say started":           {"kill", "unmount", "release loop", "cleared", "unmap"},
	} {
		s := newStage(t)
		s.failAt[at] = broken
		failure := s.run()
		if failure == nil || failure.Code != broken.Code {
			t.Errorf("%s: %v", at, failure)
			continue
		}
		i := slices.Index(s.did, at)
		if got := s.did[i+1:]; !slices.Equal(got, append(undone, "say failed")) {
			t.Errorf("%s: undone %v, want %v", at, got, undone)
		}
		if _, err := release.Load(s.plan.Run, "one"); err != nil {
			t.Errorf("%s: no record: %v", at, err)
		}
	}
}

// TestUndoStops leaves the device under a mount that does not go, and says so.
func TestUndoStops(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.failAt["start"] = fail(worker.CodeContainerStart, "no init")
	s.failAt["unmount"] = errors.New("busy")
	failure := s.run()
	if failure == nil || failure.Code != worker.CodeContainerStart || !strings.Contains(failure.Message, "busy") {
		t.Fatal(failure)
	}
	if slices.Contains(s.did, "unmap") || slices.Contains(s.did, "cleared") {
		t.Errorf("did %v", s.did)
	}
}

var effects = []string{"map", "attach /fuse/image", "check /dev/loop7 ext4", "mount", "start"}

// TestPausedStarter is I7: a starter that was paused before a step, and wakes after a stop, does not take it.
func TestPausedStarter(t *testing.T) {
	t.Parallel()
	// The stop comes while the effect before is under way, or before the first.
	for i, next := range effects {
		s := newStage(t)
		during := "say lease"
		if i > 0 {
			during = effects[i-1]
		}
		s.before[during] = func() {
			if err := release.Tombstone(s.plan.Run, "one", 4, 2, "by hand"); err != nil {
				t.Error(err)
			}
		}
		if failure := s.run(); failure == nil || failure.Code != worker.CodeTombstone {
			t.Errorf("%s: %v", next, failure)
		}
		if slices.Contains(s.did, next) {
			t.Errorf("%s was done after a stop: %v", next, s.did)
		}
	}
	s := newStage(t)
	s.before["start"] = func() { _ = release.Tombstone(s.plan.Run, "one", 4, 2, "by hand") }
	if failure := s.run(); failure == nil || failure.Code != worker.CodeTombstone || !slices.Contains(s.did, "kill") || s.init.PID != os.Getpid() {
		t.Errorf("a container that started during a stop lives on: %v, %v", failure, s.did)
	}
	s = newStage(t)
	if err := release.Tombstone(s.plan.Run, "one", 4, 1, "the attempt before"); err != nil {
		t.Fatal(err)
	}
	if failure := s.run(); failure != nil {
		t.Errorf("an older tombstone stops a newer attempt: %v", failure)
	}
}

// TestTombstoneUnreadable: a starter that can't tell whether it was stopped does nothing (I7).
func TestTombstoneUnreadable(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	if err := os.MkdirAll(filepath.Join(release.Dir(s.plan.Run, "one"), "tombstone"), 0o700); err != nil {
		t.Fatal(err)
	}
	if failure := s.run(); failure == nil || failure.Code != worker.CodeTombstone {
		t.Errorf("got %v", failure)
	}
	s.want("say failed")
}

// TestGuardAway: a starter whose guard does not answer does nothing (I4).
func TestGuardAway(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	err := Ready(t.Context(), deafGuard{}, s.plan)
	var failure *worker.Failure
	if !errors.As(err, &failure) || failure.Code != worker.CodeLease {
		t.Errorf("got %v", err)
	}
}

// deafGuard answers with an error, and with what would do if that were not looked at.
type deafGuard struct{}

func (deafGuard) Lease(context.Context, core.ServiceName, core.Epoch) (boottime.Time, bool, error) {
	return boottime.Now().Add(time.Hour), true, errors.New("no answer")
}

// TestLeaseBeforeEachStep is I4: with the nth answer no, the step behind it is not taken.
func TestLeaseBeforeEachStep(t *testing.T) {
	t.Parallel()
	all := append([]string{"say lease"}, effects...)
	for n, next := range all {
		s := newStage(t)
		s.leases = func(nth int) bool { return nth <= n }
		if failure := s.run(); failure == nil || failure.Code != worker.CodeLease {
			t.Errorf("%s: %v", next, failure)
		}
		if slices.Contains(s.did, next) {
			t.Errorf("%s was done without a lease", next)
		}
	}
}

func TestNotCommitted(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.goErr = errors.New("the caller is gone")
	if failure := s.run(); failure == nil || !strings.Contains(failure.Message, "gone") {
		t.Fatal(failure)
	}
	if slices.Contains(s.did, "check /dev/loop7 ext4") || !slices.Contains(s.did, "unmap") { // I6
		t.Errorf("did %v", s.did)
	}
}

func TestTimeIsUnknown(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.plan.Limit = 10 * time.Millisecond
	s.hold = func(ctx context.Context) { <-ctx.Done() }
	if failure := s.run(); failure == nil || failure.Code != worker.CodeUnknown {
		t.Fatal(failure)
	}
}

func TestVolumeFull(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.full = true
	s.failAt["start"] = fail(worker.CodeContainerStart, "No space left on device")
	if failure := s.run(); failure == nil || failure.Code != worker.CodeVolumeFull {
		t.Fatal(failure)
	}
}

func TestMayFollow(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		restart bool
		facts   release.Facts
		may     bool
	}{
		{false, release.Facts{}, true},
		{false, release.Facts{Populated: true}, true}, // this helper
		{false, release.Facts{Init: true}, false},
		{false, release.Facts{Mounted: true}, false},
		{false, release.Facts{Mapper: true}, false},
		{false, release.Facts{MapGroup: true}, false},
		{true, release.Facts{Mounted: true, Mapper: true, MapGroup: true, Populated: true}, true},
		{true, release.Facts{Mounted: true, Mapper: true, Init: true}, false},
		{true, release.Facts{Mounted: true}, false},
		{true, release.Facts{}, false},
	} {
		err := mayFollow(worker.Plan{Restart: test.restart}, release.Record{}, test.facts)
		if (err == nil) != test.may {
			t.Errorf("restart %v after %+v: %v", test.restart, test.facts, err)
		}
	}
}

// TestContainerOnItsVolumeAlone: what another mounted, or mounted a while ago, may be something else by now.
func TestContainerOnItsVolumeAlone(t *testing.T) {
	t.Parallel()
	for _, restart := range []bool{false, true} {
		s := newStage(t)
		s.failAt["carries"] = errors.New("another device is there")
		s.plan.Restart = restart
		r := &run{Parts: Parts{s, s, s, s, s}, plan: s.plan, last: time.Now(), record: release.Record{Service: s.plan.Service}}
		err := r.container(t.Context())
		if restart && (err == nil || slices.Contains(s.did, "start")) {
			t.Errorf("started on something else: %v, %v", err, s.did)
		}
		if !restart && err != nil {
			t.Errorf("what it has just mounted itself: %v", err)
		}
	}
}

// TestSecond runs beside the first, whose init is this process.
func TestSecond(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	if failure := s.run(); failure != nil {
		t.Fatal(failure)
	}
	again := newStage(t)
	again.plan.Run, again.plan.Attempt = s.plan.Run, 3
	if failure := again.run(); failure == nil {
		t.Error("a second activation beside the first")
	}
	again.want("say failed")
	again = newStage(t)
	again.plan.Restart = true
	if failure := again.run(); failure == nil {
		t.Error("a restart of nothing")
	}
	again.want("say failed")
}

func TestStream(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]bool{"{\"Go\":true}\n": true, "{\"Go\":false}\n": false, "": false, "{\"Go\":true": false} {
		var out strings.Builder
		s := NewStream(strings.NewReader(in), &out)
		if err := s.AwaitGo(t.Context()); (err == nil) != want {
			t.Errorf("%q: %v", in, err)
		}
		if err := s.Report(worker.Progress{Step: worker.StepLease}); err != nil || out.String() != "{\"Step\":\"lease\",\"Took\":0}\n" {
			t.Errorf("report: %q, %v", out.String(), err)
		}
	}
}
