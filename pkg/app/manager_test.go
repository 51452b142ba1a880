package app

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/config"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/managed"
	"github.com/keepone-ha/keepone/pkg/op"
	"github.com/keepone-ha/keepone/pkg/release"
)

func TestClaims(t *testing.T) {
	c := managed.NewClaims()
	closed := func(changed <-chan struct{}) bool {
		select {
		case <-changed:
			return true
		default:
			return false
		}
	}
	is, changed := c.Claimed("one")
	if is || closed(changed) || c.All() != nil {
		t.Error("claimed from the start")
	}
	first := c.Add("one", core.StagePromoted)
	if is, _ := c.Claimed("one"); !is || !closed(changed) {
		t.Error("a claim is not told")
	}
	second, third, other := c.Add("one", core.StageRunning), c.Add("one", core.StagePromoted), c.Add("two", core.StagePromoted)
	want := func(all map[core.ServiceName]core.Stage) {
		t.Helper()
		if got := c.All(); !maps.Equal(got, all) {
			t.Errorf("%v, want %v", got, all)
		}
	}
	want(map[core.ServiceName]core.Stage{"one": core.StageRunning, "two": core.StagePromoted})
	second()
	want(map[core.ServiceName]core.Stage{"one": core.StagePromoted, "two": core.StagePromoted})
	other()
	first()
	if is, changed = c.Claimed("one"); !is || closed(changed) {
		t.Error("one of two left, and none is")
	}
	third()
	if is, _ := c.Claimed("one"); is || !closed(changed) || c.All() != nil {
		t.Error("all left, and one is")
	}
}

// TestClaimEndsWithItsCaller: nothing is started for an agent that waits no more.
func TestClaimEndsWithItsCaller(t *testing.T) {
	c, gone := managed.NewClaims(), errors.New("its caller hung up")
	_, err := c.During("one", core.StageRunning, func() (any, error) {
		if is, _ := c.Claimed("one"); !is {
			t.Error("not claimed while its caller waits")
		}
		return nil, gone
	})
	if is, _ := c.Claimed("one"); is || !errors.Is(err, gone) {
		t.Errorf("claimed %t, %v", is, err)
	}
}

func TestMayClaim(t *testing.T) {
	spec := core.Spec{Manager: core.ManagerPacemaker, Services: []core.ServiceSpec{{Name: "one"}}}
	for ask, words := range map[op.Claim]string{
		{Service: "one"}: "",
		{Service: "one", Stage: core.StagePromoted}: "",
		{Service: "two"}:                   `no service "two"`,
		{Service: "one", Stage: "dancing"}: "different versions",
	} {
		if err := managed.MayClaim(spec, ask); (err == nil) != (words == "") || err != nil && !strings.Contains(err.Error(), words) {
			t.Errorf("%+v: %v", ask, err)
		}
	}
	spec.Manager = core.ManagerKeepone
	if err := managed.MayClaim(spec, op.Claim{Service: "one"}); err == nil || !strings.Contains(err.Error(), `manager = "keepone"`) {
		t.Errorf("without a cluster manager: %v", err)
	}
}

// standing is a node a (a1) with a record of what is here.
func standing(t *testing.T, rec *release.Record) *App {
	t.Helper()
	a := &App{file: config.NodeFile{Name: "a", RunDir: t.TempDir()}, instance: "boot/a1"}
	if rec != nil {
		if err := rec.Save(a.file.RunDir); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

func TestWaitingFor(t *testing.T) {
	grant := func(phase core.Phase) *core.Grant {
		return &core.Grant{Node: "a", Instance: "boot/a1", Epoch: 5, Run: 1, Phase: phase}
	}
	for name, c := range map[string]struct {
		svc  core.Service
		on   bool // maintenance
		text string
	}{
		"no grant":       {core.Service{}, false, "waiting for the grant"},
		"blocked":        {core.Service{Blocked: "a: standby"}, false, "waiting for the grant: a: standby"},
		"in maintenance": {core.Service{Blocked: "a: standby"}, true, "waiting for the grant: maintenance: nothing is granted until it ends"},
		"another's":      {core.Service{Grant: &core.Grant{Node: "b", Instance: "boot/b1", Phase: core.PhaseRunning}}, false, "waiting for the grant: b still has it (running)"},
		"another life's": {core.Service{Grant: &core.Grant{Node: "a", Instance: "boot/a0", Phase: core.PhaseRunning}}, false, "waiting for the grant: a still has it (running)"},
		"starting":       {core.Service{Grant: grant(core.PhaseStarting)}, false, "granted at epoch 5, starting"},
		"promoted":       {core.Service{Grant: grant(core.PhasePromoted)}, false, "granted at epoch 5, promoted"},
		"releasing":      {core.Service{Grant: grant(core.PhaseReleasing)}, false, "granted at epoch 5, releasing"},
		"not here":       {core.Service{Grant: grant(core.PhaseRunning)}, false, "waiting for the end of what was stopped here at epoch 5"},
	} {
		a := standing(t, nil)
		s := core.State{
			Services:    map[core.ServiceName]core.Service{"one": c.svc},
			Maintenance: core.Maintenance{On: c.on},
			// A failure of long ago says nothing of what is waited for now.
			History: []core.Event{{ID: 7, Kind: core.EventFailed, Service: "one", Node: "a", Reason: "of long ago"}},
		}
		if met, text := a.waitingFor(s, op.Claim{Service: "one"}); met || text != c.text {
			t.Errorf("%s: met %t, %q", name, met, text)
		}
	}
}

// TestStands: State still has the grant for up, and a stop has ended it here already: a start right after the stop must
// not be called done (I7).
func TestStands(t *testing.T) {
	mark := func(kinds ...release.MarkKind) func(*testing.T, string) {
		return func(t *testing.T, run string) {
			t.Helper()
			if err := release.Tombstone(run, "one", 5, 2, "stopped"); err != nil {
				t.Fatal(err)
			}
			for _, kind := range kinds {
				if err := release.Mark(run, "one", 5, 2, kind, "stopped"); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	ended := mark(release.MarkContained)
	for name, c := range map[string]struct {
		phase  core.Phase
		staged bool
		stage  core.Stage
		change func(*release.Record)
		then   func(*testing.T, string)
		met    bool
	}{
		"runs":                              {phase: core.PhaseRunning, met: true},
		"runs, raised":                      {phase: core.PhaseRunning, staged: true, met: true},
		"runs, its volume is asked for":     {phase: core.PhaseRunning, staged: true, stage: core.StagePromoted, met: true},
		"promoted":                          {phase: core.PhasePromoted, staged: true, stage: core.StagePromoted, met: true},
		"an older run":                      {phase: core.PhaseRunning, change: func(r *release.Record) { r.Attempt = 1 }},
		"an older epoch":                    {phase: core.PhaseRunning, change: func(r *release.Record) { r.Epoch = 4 }},
		"another life":                      {phase: core.PhaseRunning, change: func(r *release.Record) { r.Instance = "boot/a0" }},
		"being stopped":                     {phase: core.PhaseRunning, then: mark()},
		"being stopped, volume asked":       {phase: core.PhaseRunning, stage: core.StagePromoted, then: mark()},
		"stopped":                           {phase: core.PhaseRunning, then: mark(release.MarkVacated)},
		"container stopped":                 {phase: core.PhaseRunning, staged: true, then: ended},
		"container stopped, volume":         {phase: core.PhaseRunning, staged: true, stage: core.StagePromoted, then: ended, met: true},
		"promoted again":                    {phase: core.PhasePromoted, staged: true, stage: core.StagePromoted, then: ended, met: true},
		"promoted, stopped":                 {phase: core.PhasePromoted, staged: true, stage: core.StagePromoted, then: mark(release.MarkVacated)},
		"promoted, not cleanly stopped":     {phase: core.PhasePromoted, staged: true, stage: core.StagePromoted, then: mark(release.MarkDirty)},
		"raised, volume stopped too":        {phase: core.PhaseRunning, staged: true, stage: core.StagePromoted, then: mark(release.MarkVacated)},
		"promoted, container is waited for": {phase: core.PhasePromoted, staged: true},
	} {
		t.Run(name, func(t *testing.T) {
			rec := release.Record{Service: "one", Epoch: 5, Instance: "boot/a1", Attempt: 2}
			if c.change != nil {
				c.change(&rec)
			}
			a := standing(t, &rec)
			if c.then != nil {
				c.then(t, a.file.RunDir)
			}
			g := &core.Grant{Node: "a", Instance: "boot/a1", Epoch: 5, Run: 2, Phase: c.phase, Staged: c.staged}
			s := core.State{Services: map[core.ServiceName]core.Service{"one": {Grant: g}}}
			if met, text := a.waitingFor(s, op.Claim{Service: "one", Stage: c.stage}); met != c.met || met == (text != "") {
				t.Errorf("met %t, %q", met, text)
			}
		})
	}
}

func TestAbilities(t *testing.T) {
	held := &core.Grant{Node: "a", Instance: "boot/a1", Epoch: 5, Phase: core.PhaseRunning}
	leaving := &core.Grant{Node: "a", Instance: "boot/a1", Epoch: 5, Phase: core.PhaseReleasing}
	earlier := &core.Grant{Node: "a", Instance: "boot/a0", Epoch: 5, Phase: core.PhaseRunning}
	var may, best, no core.Able
	may.OK, may.Score, best.OK, best.Score, no.Reason = true, 90, true, 1000, "no cap"
	for name, c := range map[string]struct {
		grant   *core.Grant
		verdict *core.Able
		stale   bool
		score   int
		reason  string
	}{
		"by the leader's word":              {nil, &may, false, 90, ""},
		"not by the leader's word":          {nil, &no, false, 0, "no cap"},
		"no word yet":                       {nil, nil, false, 0, "no leader"},
		"an old word":                       {nil, &may, true, 0, "no leader"},
		"holds, by the leader's word":       {held, &best, false, 1000, ""},
		"holds, no word yet":                {held, nil, false, 1000, ""}, // a restarted daemon
		"holds, an old word":                {held, &best, true, 1000, ""},
		"holds, an old word from before it": {held, &no, true, 1000, ""},
		"releases, no word yet":             {leaving, nil, false, 0, "releasing"},
		"an earlier life held, no word yet": {earlier, nil, false, 0, "no leader"},
		"holds, and the leader says not":    {held, &no, false, 0, "no cap"},
	} {
		t.Run(name, func(t *testing.T) {
			told := 0
			s := &managed.Abilities{Changed: func() { told++ }}
			if c.verdict != nil {
				for range 2 {
					s.Set(boottime.Now(), map[core.ServiceName]core.Able{"one": *c.verdict})
				}
				s.Set(boottime.Now(), nil) // of one who does not lead yet
				if told != 1 {
					t.Errorf("told %d times", told)
				}
			}
			now := boottime.Now()
			if c.stale {
				now = now.Add(6 * time.Second)
			}
			state := core.State{
				Spec:     core.Spec{Services: []core.ServiceSpec{{Name: "one"}}},
				Nodes:    map[core.NodeName]core.Node{"a": {Name: "a", Instance: "boot/a1"}},
				Services: map[core.ServiceName]core.Service{"one": {Name: "one", Grant: c.grant}},
			}
			got := s.All(now, state, "a", "boot/a1")["one"]
			if got.Score != c.score || got.OK != (c.score > 0) || got.OK == (got.Reason != "") || !strings.Contains(got.Reason, c.reason) {
				t.Errorf("%+v", got)
			}
		})
	}
}

// crib is a cluster manager's attributes as a fake.
type crib struct {
	values map[string]string
	did    []string
	away   error
}

func (c *crib) Set(_ context.Context, name, value string) error {
	c.did = append(c.did, name+"="+value)
	if c.away == nil {
		c.values[name] = value
	}
	return c.away
}

func (c *crib) Delete(_ context.Context, name string) error {
	c.did = append(c.did, name+" gone")
	if c.away == nil {
		delete(c.values, name)
	}
	return c.away
}

// did returns what was done since the last call, sorted.
func (c *crib) since() []string {
	did := slices.Sorted(slices.Values(c.did))
	c.did = nil
	return did
}

// press is a publisher with its fake.
type press struct {
	t    *testing.T
	run  string
	crib *crib
	able map[core.ServiceName]core.Able
	held map[core.ServiceName]bool
	p    *managed.Publisher
}

func newPress(t *testing.T) *press {
	t.Helper()
	pr := &press{t: t, run: t.TempDir(), crib: &crib{values: map[string]string{}}}
	pr.able = map[core.ServiceName]core.Able{"one": {OK: true, Score: 100}, "two": {Reason: "no cap"}}
	pr.restart()
	return pr
}

// restart is a new daemon on the same node.
func (pr *press) restart() {
	pr.p = pr.daemon()
	pr.p.Begin()
}

// daemon is a publisher that has not begun.
func (pr *press) daemon() *managed.Publisher {
	return newPublisher(pr.run, pr.crib, slog.New(slog.DiscardHandler),
		func() map[core.ServiceName]core.Able { return pr.able }, func(name core.ServiceName) bool { return pr.held[name] })
}

func (pr *press) ask(asked ...op.Publish) {
	pr.t.Helper()
	for _, ask := range asked {
		if err := pr.p.Change(ask); err != nil {
			pr.t.Fatal(err)
		}
	}
}

// pushes lets it push, and compares what that did.
func (pr *press) pushes(did ...string) {
	pr.t.Helper()
	err := pr.p.Push(pr.t.Context())
	if (err == nil) != (pr.crib.away == nil) {
		pr.t.Errorf("push: %v", err)
	}
	if got := pr.crib.since(); !slices.Equal(got, did) {
		pr.t.Errorf("did %q, want %q", got, did)
	}
}

var (
	elections = op.Publish{}
	promotion = op.Publish{Service: "one", Promotion: "master-one"}
)

func TestPublish(t *testing.T) {
	pr := newPress(t)
	pr.pushes() // unasked, nothing
	pr.ask(elections)
	pr.pushes("keepone-one=100", "keepone-two=0")
	pr.pushes()
	pr.able["one"] = core.Able{OK: true, Score: 1000}
	pr.pushes("keepone-one=1000") // only what changed
	pr.ask(promotion)
	pr.pushes("keepone-one=1000", "keepone-two=0", "master-one=1000") // who asks may have found them wiped
	pr.able["one"] = core.Able{Reason: "being fenced"}
	pr.pushes("keepone-one=0", "master-one gone") // a score that is missing promotes nobody
	pr.able["one"] = core.Able{OK: true, Score: 90}
	pr.pushes("keepone-one=90", "master-one=90")
	delete(pr.able, "two")
	pr.pushes("keepone-two gone") // no longer in the cluster document
	pr.ask(op.Publish{Service: "one", Off: true})
	pr.pushes("keepone-one=90", "master-one gone")
	pr.ask(op.Publish{Off: true})
	pr.pushes("keepone-one gone")
	pr.pushes()
}

// TestPublishAnew: a value that the cluster manager took and lost is said again in time.
func TestPublishAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pr := newPress(t)
		pr.ask(elections, promotion)
		all := []string{"keepone-one=100", "keepone-two=0", "master-one=100"}
		pr.pushes(all...)
		time.Sleep(4 * time.Minute)
		pr.pushes()
		time.Sleep(time.Minute)
		pr.pushes(all...)
		pr.pushes()
	})
}

func TestPublishRetries(t *testing.T) {
	pr := newPress(t)
	pr.ask(elections, promotion)
	pr.crib.away = errors.New("no quorum")
	all := []string{"keepone-one=100", "keepone-two=0", "master-one=100"}
	pr.pushes(all...)
	pr.pushes(all...)
	pr.crib.away = nil
	pr.pushes(all...)
	pr.crib.away = errors.New("no quorum")
	pr.ask(op.Publish{Service: "one", Off: true})
	pr.pushes("keepone-one=100", "keepone-two=0", "master-one gone")
	pr.crib.away = nil
	pr.pushes("keepone-one=100", "keepone-two=0", "master-one gone")
	pr.pushes()
}

// TestPublishUnanswered: a change that got no answer may have had its effect, so that what was said before it is said again.
func TestPublishUnanswered(t *testing.T) {
	pr := newPress(t)
	pr.ask(elections, promotion)
	pr.pushes("keepone-one=100", "keepone-two=0", "master-one=100")
	well := pr.able["one"]
	pr.able["one"] = core.Able{Reason: "being fenced"}
	pr.crib.away = errors.New("timed out")
	pr.pushes("keepone-one=0", "master-one gone")
	pr.able["one"], pr.crib.away = well, nil
	pr.pushes("keepone-one=100", "master-one=100")
	pr.pushes()
}

// TestPublishRestart: the next daemon goes on, and takes away a score of the last one's that it would not give.
func TestPublishRestart(t *testing.T) {
	pr := newPress(t)
	pr.ask(elections, promotion)
	pr.pushes("keepone-one=100", "keepone-two=0", "master-one=100")
	pr.restart()
	pr.pushes("keepone-one=100", "keepone-two=0", "master-one=100")
	pr.able["one"] = core.Able{Reason: "no cap"}
	pr.restart()
	pr.pushes("keepone-one=0", "keepone-two=0", "master-one gone")
	if _, ok := pr.crib.values["master-one"]; ok {
		t.Error("the score of before the restart promotes")
	}
}

// TestPublishHeld: without its controller a service that runs here keeps its attribute until it is held no more, over a
// restart of the daemon too; what this node only could have is taken away at once.
func TestPublishHeld(t *testing.T) {
	pr := newPress(t)
	pr.held = map[core.ServiceName]bool{"one": true}
	pr.able["one"] = core.Able{OK: true, Score: 1000}
	pr.ask(elections)
	pr.pushes("keepone-one=1000", "keepone-two=0")
	pr.ask(op.Publish{Off: true})
	pr.pushes("keepone-one=1000", "keepone-two gone")
	pr.ask(op.Publish{Service: "one", Off: true}) // a demote says nothing of the controller
	pr.pushes("keepone-one=1000", "keepone-two gone")
	pr.restart()
	pr.pushes("keepone-one=1000", "keepone-two gone")
	pr.able["one"] = core.Able{Reason: "being fenced"}
	pr.pushes("keepone-one=0")
	pr.able["one"], pr.held["one"] = core.Able{OK: true, Score: 90}, false
	pr.pushes("keepone-one gone")
	pr.held["two"] = true // started by force
	pr.pushes("keepone-two=0")
	pr.held["two"] = false
	pr.restart()
	pr.pushes("keepone-one gone", "keepone-two gone") // whatever the last daemon left
	pr.ask(elections)
	pr.pushes("keepone-one=90", "keepone-two=0")
}

// TestPublishNothingYet: a daemon that has just started knows nothing of what its node holds: it says nothing until it does.
func TestPublishNothingYet(t *testing.T) {
	pr := newPress(t)
	pr.p = pr.daemon()
	pr.able = map[core.ServiceName]core.Able{"one": {}}
	if err := pr.p.Change(op.Publish{}); err != nil {
		t.Fatal(err)
	}
	if err := pr.p.Push(t.Context()); err != nil || len(pr.crib.did) > 0 {
		t.Errorf("did %v, %v", pr.crib.did, err)
	}
}

// TestPublishDamaged: a file that can't be read must not keep the daemon from its other work, nor stay.
func TestPublishDamaged(t *testing.T) {
	pr := newPress(t)
	pr.ask(elections)
	path := filepath.Join(pr.run, "ocf", "published.json")
	if err := os.WriteFile(path, []byte(`{"Elections":tr`), 0o600); err != nil {
		t.Fatal(err)
	}
	pr.restart()
	pr.pushes()
	pr.ask(elections)
	pr.pushes("keepone-one=100", "keepone-two=0")
	pr.restart()
	pr.pushes("keepone-one=100", "keepone-two=0")
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("left %v, %v", left, err)
	}
}

// TestLookCutShort: a daemon that ends while a monitor asks must not have its healthy service stopped.
func TestLookCutShort(t *testing.T) {
	if p, err := probed(t.Context(), "one", "read: input/output error"); err != nil || p.OK || p.Why == "" {
		t.Errorf("%+v, %v", p, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if p, err := probed(ctx, "one", "read: context canceled"); err == nil {
		t.Errorf("%+v", p)
	}
}
