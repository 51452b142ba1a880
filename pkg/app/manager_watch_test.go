package app

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/drive/corosync"
	"github.com/keepone-ha/keepone/pkg/drive/pacemaker"
	"github.com/keepone-ha/keepone/pkg/op"
)

// watched is a watch of a Pacemaker that a test answers for. It counts in virtual time.
type watched struct {
	*managerWatch
	state         atomic.Pointer[core.State]
	stateChanged  chan struct{}
	quorums, news atomic.Int32
	follows       bool
	answer        atomic.Pointer[func() (corosync.Quorum, error)]
}

func (m *watched) says(answer func() (corosync.Quorum, error)) { m.answer.Store(&answer) }

func newWatched(manager core.Manager) *watched {
	m := &watched{stateChanged: make(chan struct{}, 1)}
	m.state.Store(&core.State{Spec: core.Spec{Manager: manager}})
	began := time.Now()
	m.managerWatch = newManagerWatch(
		func() (core.State, <-chan struct{}) { return *m.state.Load(), m.stateChanged },
		func() bool { return !m.follows }, func() { m.news.Add(1) })
	m.clock = func() boottime.Time { return boottime.Time(time.Minute + time.Since(began)) }
	m.says(func() (corosync.Quorum, error) { return corosync.Quorum{Quorate: true}, nil })
	m.readQuorum = func(context.Context) (corosync.Quorum, error) { m.quorums.Add(1); return (*m.answer.Load())() }
	m.readStatus = func(context.Context) (pacemaker.Status, error) { return pacemaker.Status{DC: "a"}, nil }
	return m
}

// start runs the watch until the returned function is called.
func (m *watched) start(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); m.run(ctx) }()
	synctest.Wait()
	return func() { cancel(); <-done }
}

func TestManagerWatchPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newWatched(core.ManagerPacemaker)
		defer m.start(t)()
		if q := m.corosyncQuorate(); m.quorums.Load() != 1 || q == nil || !*q || m.news.Load() != 1 {
			t.Errorf("after the start: read %d times, quorate %v, %d changes", m.quorums.Load(), q, m.news.Load())
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if n := m.quorums.Load(); n < 9 || n > 12 || m.news.Load() != 1 {
			t.Errorf("in 20 s read %d times, %d changes", m.quorums.Load(), m.news.Load())
		}
		was := m.quorums.Load()
		m.look()
		time.Sleep(managerGap)
		synctest.Wait()
		if m.quorums.Load() == was {
			t.Error("a nudge is not followed at once")
		}
	})
}

// A follower reads when it is asked, and costs nothing otherwise.
func TestManagerWatchOfAFollower(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newWatched(core.ManagerPacemaker)
		m.follows = true
		defer m.start(t)()
		time.Sleep(time.Hour)
		if n := m.quorums.Load(); n != 1 {
			t.Errorf("read %d times in an hour", n)
		}
		m.look()
		synctest.Wait()
		if n := m.quorums.Load(); n != 2 {
			t.Errorf("read %d times once it was asked", n)
		}
	})
}

func TestManagerWatchSleepsWithoutPacemaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newWatched(core.ManagerKeepone)
		defer m.start(t)()
		time.Sleep(time.Hour)
		if m.quorums.Load() != 0 || m.corosyncQuorate() != nil || m.facts(m.state.Load().Spec) != nil {
			t.Errorf("read %d times", m.quorums.Load())
		}
		m.state.Store(&core.State{Spec: core.Spec{Manager: core.ManagerPacemaker}})
		close(m.stateChanged)
		synctest.Wait()
		if q := m.corosyncQuorate(); q == nil || !*q {
			t.Errorf("quorate %v once Pacemaker manages the cluster", q)
		}
	})
}

// TestManagerWatchForgets: what corosync said is not known any more once it has not said it again.
func TestManagerWatchForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newWatched(core.ManagerPacemaker)
		m.readStatus = func(ctx context.Context) (pacemaker.Status, error) {
			<-ctx.Done() // and a Pacemaker that hangs holds nothing up
			return pacemaker.Status{}, ctx.Err()
		}
		defer m.start(t)()
		m.says(func() (corosync.Quorum, error) { return corosync.Quorum{}, corosync.ErrNotRunning })
		time.Sleep(quorateFresh - time.Millisecond)
		if m.corosyncQuorate() == nil {
			t.Error("one late answer makes it unknown")
		}
		time.Sleep(2 * time.Millisecond)
		if q := m.corosyncQuorate(); q != nil {
			t.Errorf("quorate %v after %s", *q, quorateFresh)
		}
		m.says(func() (corosync.Quorum, error) { return corosync.Quorum{Quorate: false}, nil })
		time.Sleep(2 * quorumEvery)
		synctest.Wait()
		if q := m.corosyncQuorate(); q == nil || *q || m.news.Load() != 2 {
			t.Errorf("quorate %v, %d changes", q, m.news.Load())
		}
	})
}

// captured is what Pacemaker 2.1.5 printed: n2 holds, somebody else's resource is on n1.
func captured(t *testing.T) pacemaker.Status {
	t.Helper()
	text, err := os.ReadFile("../drive/pacemaker/testdata/well.xml")
	if err != nil {
		t.Fatal(err)
	}
	s, err := pacemaker.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestManagerFacts(t *testing.T) {
	m := newWatched(core.ManagerPacemaker)
	spec := core.Spec{Manager: core.ManagerPacemaker, Services: []core.ServiceSpec{{Name: "one"}}}
	m.readStatus = func(context.Context) (pacemaker.Status, error) { return pacemaker.Status{}, pacemaker.ErrNotRunning }
	if f := m.facts(spec); f == nil || f.Age >= 0 || f.Corosync != nil {
		t.Errorf("before any answer: %+v", f)
	}
	m.readStatus = func(context.Context) (pacemaker.Status, error) { return captured(t), nil }
	m.takeQuorum(t.Context())
	m.takeStatus(t.Context())
	m.readStatus = func(context.Context) (pacemaker.Status, error) { return pacemaker.Status{}, errors.New("no answer") }
	m.takeStatus(t.Context())
	f := m.facts(spec)
	if f.Age < 0 || f.Problem != "no answer" || f.DC != "n1" || !f.Stonith || f.Corosync == nil || len(f.Nodes) != 3 {
		t.Errorf("got %+v", f)
	}
	var ids []string
	for _, r := range f.Resources {
		ids = append(ids, r.ID+" "+r.Role)
	}
	want := []string{
		"fs-one Started", "container-one Started", "rbd-one Promoted", "rbd-one Unpromoted", "controller Started", "controller Started",
	}
	if !slices.Equal(ids, want) {
		t.Errorf("resources %q, want %q", ids, want)
	}
}

// TestTellsWhatAnOperatorDid: what is disabled is there to be seen, once, though no node has it, and so is a ban.
func TestTellsWhatAnOperatorDid(t *testing.T) {
	clone := []string{"controller-clone"}
	var f op.Pacemaker
	tell(&f, pacemaker.Status{
		Resources: []pacemaker.Resource{
			{ID: "controller", Agent: "ocf:keepone:controller", Role: "Stopped", TargetRole: "Stopped", Parents: clone},
			{ID: "controller", Agent: "ocf:keepone:controller", Role: "Stopped", TargetRole: "Stopped", Parents: clone},
			{ID: "rbd-one", Agent: "ocf:keepone:rbd", Role: "Stopped", TargetRole: "Promoted", Parents: []string{"rbd-one-clone"}},
			{ID: "other", Agent: "ocf:pacemaker:Dummy", Role: "Stopped", TargetRole: "Stopped"},
			{ID: "container-one", Agent: "ocf:keepone:container", Role: "Stopped", TargetRole: "Stopped"},
		},
		Bans: []pacemaker.Banned{
			{ID: "cli-ban-rbd-one-clone-on-n2", Resource: "rbd-one-clone", Node: "n2"},
			{ID: "cli-ban-other-on-n2", Resource: "other", Node: "n2"},
			{ID: "eligible-rbd-one-clone-rule", Resource: "rbd-one-clone", Node: "n3"},
		},
	}, nil)
	var got []string
	for _, r := range f.Resources {
		got = append(got, r.ID+" of "+r.Disabled)
	}
	if want := []string{"controller of controller-clone", "container-one of container-one"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if want := []op.PacemakerBan{{Resource: "rbd-one-clone", Node: "n2"}}; !slices.Equal(f.Bans, want) {
		t.Errorf("bans %+v, want %+v", f.Bans, want)
	}
}

func TestOnlyOursAsksThePolicy(t *testing.T) {
	m := newWatched(core.ManagerPacemaker)
	m.readStatus = func(context.Context) (pacemaker.Status, error) { return captured(t), nil }
	storage := core.Policy{Require: core.RequireAny, Proofs: []core.ProofKind{core.ProofBMCOff, core.ProofStorage}}
	for _, c := range []struct {
		policy core.Policy
		node   core.NodeName
		want   bool
		words  string
	}{
		{storage, "n2", true, ""},
		{storage, "n1", false, "other (ocf:heartbeat:Dummy) is on n1"},
		{core.Policy{Require: core.RequireAll, Proofs: storage.Proofs}, "n2", false, "policy of one"},
		{core.Policy{Require: core.RequireAny, Proofs: storage.Proofs[:1]}, "n2", false, "policy of one"},
	} {
		spec := core.Spec{Fencing: c.policy, Services: []core.ServiceSpec{{Name: "one"}}}
		if got, why := m.onlyOurs(t.Context(), spec, c.node); got != c.want || !strings.Contains(why, c.words) {
			t.Errorf("%+v on %s: %v %q", c.policy, c.node, got, why)
		}
	}
	m.readStatus = func(context.Context) (pacemaker.Status, error) { return pacemaker.Status{}, pacemaker.ErrNotRunning }
	if ok, why := m.onlyOurs(t.Context(), core.Spec{}, "n2"); ok || why == "" {
		t.Errorf("without an answer: %v %q", ok, why)
	}
}
