package app

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepone-ha/keepone/pkg/api"
	"github.com/keepone-ha/keepone/pkg/config"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/drive/ipmi"
	"github.com/keepone-ha/keepone/pkg/fence"
	"github.com/keepone-ha/keepone/pkg/managed"
	"github.com/keepone-ha/keepone/pkg/op"
)

// committed is a cluster of a, b and c that a leads: the real core, decided after each command. b holds one.
type committed struct {
	t *testing.T

	mu      sync.Mutex
	state   core.State
	changed chan struct{}
	live    map[core.NodeName]core.NodeView
}

func newCommitted(t *testing.T) *committed {
	t.Helper()
	c := &committed{t: t, changed: make(chan struct{}), live: map[core.NodeName]core.NodeView{}}
	spec := core.Spec{
		Timing:   core.Timing{Down: 3 * time.Second, Lease: 3 * time.Second},
		Fencing:  core.Policy{Require: core.RequireAny, Proofs: []core.ProofKind{core.ProofBMCOff, core.ProofStorage}},
		Services: []core.ServiceSpec{{Name: "one"}},
	}
	for _, name := range []core.NodeName{"a", "b", "c"} {
		spec.Nodes = append(spec.Nodes, core.NodeSpec{Name: name, BMC: &core.BMCSpec{Address: "bmc-" + string(name), Password: "sealed:x"}})
	}
	c.apply(core.Init{Cluster: "test", Spec: spec})
	for _, name := range []core.NodeName{"a", "b", "c"} {
		c.apply(core.IssueToken{ID: string(name), Hash: "h", Node: name, For: time.Hour},
			core.Join{Node: name, Incarnation: "1", TokenID: string(name), TokenHash: "h"}, core.Boot{Node: name, Instance: core.Instance(name + "1")})
		c.live[name] = core.NodeView{
			Live: core.LiveOnline, Instance: core.Instance(name + "1"), Daemon: true,
			Report: &core.Report{Instance: core.Instance(name + "1"), Ready: map[core.ServiceName]core.Ready{"one": {OK: true}}},
		}
	}
	c.apply(core.Give{Service: "one", Node: "b", Instance: "b1", Cause: core.CauseStart})
	return c
}

func (c *committed) apply(commands ...core.Command) {
	c.t.Helper()
	for _, command := range commands {
		if err := c.propose(command); err != nil {
			c.t.Fatalf("%s: %v", command.Kind(), err)
		}
	}
}

func (c *committed) propose(command core.Command) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	next, err := core.Apply(c.state, core.Entry{At: c.state.Now.Add(time.Second), Command: command})
	if err != nil {
		return err
	}
	c.state = next
	close(c.changed)
	c.changed = make(chan struct{})
	return nil
}

// decide commits what the leader decides now.
func (c *committed) decide() {
	c.t.Helper()
	state, _ := c.watch()
	view := core.View{Self: "a", Settled: true, Nodes: c.live, Voters: state.NodeNames()}
	for _, command := range core.Decide(state, view, state.Now) {
		c.apply(command)
	}
}

func (c *committed) watch() (core.State, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state, c.changed
}

func (c *committed) prove(kind core.ProofKind) {
	c.t.Helper()
	state, _ := c.watch()
	order := state.Fences[len(state.Fences)-1]
	proof := core.Proof{Kind: kind, Instance: order.Instance, By: "a", Reading: "read " + string(kind)}
	if kind == core.ProofStorage {
		proof.Service, proof.Epoch = "one", order.Targets[0].Epoch
		c.apply(core.SettleLease{Fence: order.ID, Services: []core.ServiceName{"one"}})
	}
	c.apply(core.AddProof{Fence: order.ID, Proof: proof})
}

// lost makes b silent for good.
func (c *committed) lost() {
	c.live["b"] = core.NodeView{Live: core.LiveDown, Silent: time.Minute}
}

func (c *committed) fencing(power ipmi.State, enough bool) managed.Fencing {
	return managed.Fencing{
		Leader: func() core.NodeName { return "a" },
		Watch:  watching(c.watch),
		Ask:    func(_ context.Context, command core.Command) error { return c.propose(command) },
		Power: func(context.Context, core.NodeName) (ipmi.State, error) {
			if power == ipmi.Unknown {
				return power, ipmi.ErrUnreachable
			}
			return power, nil
		},
		Enough: func(context.Context, core.NodeName) (bool, string) { return enough, "the CIB says so" },
	}
}

// answer is how one request ended.
type answer struct {
	fenced any
	err    error
	said   []string
}

// begin asks for b's fence and returns where the answer will be.
func (c *committed) begin(ctx context.Context, f managed.Fencing) *answer {
	got := &answer{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		got.fenced, got.err = f.Run(ctx, op.Fence{Node: "b", By: "pacemaker"}, rand.Text(), &following{follower{began: time.Now(), send: func(line any) error {
			got.said = append(got.said, line.(op.Progress).Text)
			return nil
		}}})
	}()
	c.t.Cleanup(func() { <-done })
	synctest.Wait()
	return got
}

func (a *answer) want(t *testing.T, proof core.ProofKind, scope core.Scope, says string) {
	t.Helper()
	synctest.Wait()
	got, ok := a.fenced.(op.Fenced)
	if a.err != nil || !ok || got.Proof != proof || got.Scope != scope || !strings.Contains(got.Words, says) {
		t.Errorf("%+v, %v; want %s of %s scope that says %q", a.fenced, a.err, proof, scope, says)
	}
}

func (a *answer) refused(t *testing.T, code api.Code, says string) {
	t.Helper()
	synctest.Wait()
	if a.err == nil || api.CodeOf(a.err) != code || !strings.Contains(a.err.Error(), says) {
		t.Errorf("%+v, %v; want %s that says %q", a.fenced, a.err, code, says)
	}
}

func TestTwoRequestsOneShot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCommitted(t)
		first := c.begin(t.Context(), c.fencing(ipmi.Off, false))
		c.decide()
		second := c.begin(t.Context(), c.fencing(ipmi.Off, false))
		c.decide()
		if state, _ := c.watch(); len(state.Fences) != 1 || state.Fences[0].Attempt != 1 {
			t.Fatalf("orders: %+v", state.Fences)
		}
		c.prove(core.ProofBMCOff)
		c.lost()
		c.decide()
		first.want(t, core.ProofBMCOff, core.ScopeNode, "read bmc-off")
		second.want(t, core.ProofBMCOff, core.ScopeNode, "read bmc-off")
		if len(first.said) < 2 || !strings.Contains(first.said[0], "asking the cluster") {
			t.Errorf("said %q", first.said)
		}
	})
}

// TestOffAlready: no new order, but an old proof is held against what the BMC says now.
func TestOffAlready(t *testing.T) {
	for name, row := range map[string]struct {
		age   time.Duration
		power ipmi.State
		says  string
		fails bool
	}{
		"fresh, powered on again":   {age: 5 * time.Second, power: ipmi.On},
		"old, still off":            {age: time.Hour, power: ipmi.Off, says: "off now"},
		"old, BMC dead":             {age: time.Hour, power: ipmi.Unknown},
		"old, runs behind our back": {age: time.Hour, power: ipmi.On, fails: true, says: "BMC says on now"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCommitted(t)
				c.lost()
				c.apply(core.AddProof{Node: "b", Proof: core.Proof{Kind: core.ProofBMCOff, Instance: "b1", By: "a", Reading: "read off"}})
				c.state.Now = c.state.Now.Add(row.age)
				got := c.begin(t.Context(), c.fencing(row.power, false))
				c.decide()
				if row.fails {
					got.refused(t, api.CodeRefused, row.says)
				} else {
					got.want(t, core.ProofBMCOff, core.ScopeNode, row.says)
				}
				if state, _ := c.watch(); len(state.Fences) != 1 {
					t.Errorf("ordered again: %+v", state.Fences)
				}
			})
		})
	}
}

// TestClientScope: a proof of client scope is success only where somebody vouches for what else runs there.
func TestClientScope(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCommitted(t)
		c.lost()
		ctx, cancel := context.WithCancelCause(t.Context())
		wary, trusting := c.begin(ctx, c.fencing(ipmi.Unknown, false)), c.begin(ctx, c.fencing(ipmi.Unknown, true))
		c.decide()
		c.prove(core.ProofStorage)
		trusting.want(t, core.ProofStorage, core.ScopeClient, "the CIB says so")
		synctest.Wait()
		if wary.fenced != nil || wary.err != nil {
			t.Fatalf("answered: %+v, %v", wary.fenced, wary.err)
		}
		cancel(errors.New("time is up"))
		wary.refused(t, api.CodeUnknown, "client scope")
	})
}

func TestFenceFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCommitted(t)
		got := c.begin(t.Context(), c.fencing(ipmi.On, false))
		c.decide()
		for attempt := 1; attempt <= 3; attempt++ {
			c.apply(core.EndAttempt{Fence: c.state.Fences[0].ID, Attempt: attempt, Note: "bmc: dead"})
			c.state.Now = c.state.Now.Add(time.Minute)
			c.decide()
		}
		got.refused(t, api.CodeRefused, "bmc: dead")
		leaderless := c.fencing(ipmi.On, false)
		leaderless.Leader = func() core.NodeName { return "" }
		c.begin(t.Context(), leaderless).refused(t, api.CodeNoQuorum, "nothing was ordered")
	})
}

// TestSaveFencing: the agent's settings are for root alone, and no password stands in them in clear.
func TestSaveFencing(t *testing.T) {
	c := newCommitted(t)
	dir := t.TempDir()
	a := &App{file: config.NodeFile{DataDir: dir}}
	if err := a.saveFencing(c.state); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, fence.SettingsFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	settings, err := fence.LoadSettings(dir)
	if err != nil || settings.Node("b") == nil || settings.Node("b").BMC.Password != "sealed:x" || settings.Node("x") != nil {
		t.Errorf("%+v, %v", settings, err)
	}
	if err := os.Chmod(filepath.Join(dir, fence.SettingsFile), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := fence.LoadSettings(dir); err == nil || !strings.Contains(err.Error(), "open to others") {
		t.Errorf("read a file that others may read: %v", err)
	}
}
