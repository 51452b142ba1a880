package replica

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/keepone-ha/keepone/pkg/api"
	"github.com/keepone-ha/keepone/pkg/api/pipenet"
	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/pki"
)

const election = 400 * time.Millisecond

// cluster is a few whole nodes over a pipe network, in virtual time.
type cluster struct {
	t     *testing.T
	net   *pipenet.Net
	ids   map[core.NodeName]*pki.Identity
	nodes map[core.NodeName]*member
	begin time.Time

	onApply atomic.Pointer[func(core.State)] // of every node; may be changed at any time
}

func (c *cluster) applied(s core.State) {
	if f := c.onApply.Load(); f != nil {
		(*f)(s)
	}
}

type member struct {
	*Replica
	id    *pki.Identity
	addr  netip.AddrPort
	mux   *api.Mux
	node  *api.Node
	dir   string
	check func(core.NodeName, core.Command) error
}

var names = []core.NodeName{"a", "b", "c", "d", "e", "f", "g"}

// run starts n nodes as one cluster, runs f, stops everything and lets all timers end.
func run(t *testing.T, n int, f func(*testing.T, *cluster)) {
	t.Helper()
	ids := identities(t, n)
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{t: t, net: pipenet.New(), nodes: map[core.NodeName]*member{}, ids: ids, begin: time.Now()}
		defer func() {
			for _, m := range c.nodes {
				c.stop(m)
			}
			time.Sleep(20 * time.Second) // Raft's and TLS's last timers
		}()
		for _, name := range names[:n] {
			c.start(name, t.TempDir(), nil)
		}
		first := c.nodes["a"]
		if err := first.Bootstrap(t.Context(), core.Init{Cluster: "test", Spec: core.Spec{Nodes: []core.NodeSpec{{Name: "a"}}}}); err != nil {
			t.Fatal(err)
		}
		for _, name := range names[:n] {
			if err := first.AddVoter(t.Context(), name, c.ids[name].Incarnation); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Second)
		f(t, c)
	})
}

// identities makes one CA and a joined identity for each node, outside virtual time.
func identities(t *testing.T, n int) map[core.NodeName]*pki.Identity {
	t.Helper()
	first, err := pki.Init(t.TempDir(), "a")
	if err != nil {
		t.Fatal(err)
	}
	ids := map[core.NodeName]*pki.Identity{"a": first}
	for _, name := range names[1:n] {
		ids[name] = joined(t, first, name)
	}
	return ids
}

func joined(t *testing.T, by *pki.Identity, name core.NodeName) *pki.Identity {
	t.Helper()
	dir := t.TempDir()
	newcomer, err := pki.NewNewcomer(dir, name, by.NewToken())
	if err != nil {
		t.Fatal(err)
	}
	answer, err := by.Admit(t.Context(), newcomer.Request, func(context.Context, pki.JoinRequest, string) (any, error) { return nil, nil })
	if err != nil {
		t.Fatal(err)
	}
	id, err := newcomer.Finish(dir, answer)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func addrOf(name core.NodeName) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, name[0]}), api.Port)
}

// opener opens a disk in a way of its own.
type opener interface {
	open(dir string) (raft.LogStore, raft.StableStore, raft.SnapshotStore, func() error, error)
}

// start brings a node up on the disk in dir; disk nil means real files.
func (c *cluster) start(name core.NodeName, dir string, disk opener) *member {
	c.t.Helper()
	m, err := c.tryStart(name, dir, disk)
	if err != nil {
		c.t.Fatal(err)
	}
	return m
}

func (c *cluster) tryStart(name core.NodeName, dir string, disk opener) (*member, error) {
	m := &member{id: c.ids[name], addr: addrOf(name), dir: dir}
	log := slog.New(slog.DiscardHandler)
	dialer := api.NewDialer(m.id, func(to core.NodeName) []netip.AddrPort { return []netip.AddrPort{addrOf(to)} },
		func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			return c.net.Dial(ctx, m.addr.Addr(), to)
		})
	m.mux = api.NewMux(m.id, nil, log)
	m.node = api.NewNode(name, m.mux, dialer, log)
	opts := Options{
		Self: name, Incarnation: m.id.Incarnation, DataDir: dir, Stream: api.NewStream(name, m.mux, dialer),
		Caller: m.node, Election: election, Logger: log, OnApply: c.applied,
		Check: func(by core.NodeName, cmd core.Command) error {
			if m.check != nil {
				return m.check(by, cmd)
			}
			return nil
		},
		Clock: func() boottime.Time { return boottime.Time(time.Since(c.begin) + time.Hour) },
	}
	if disk != nil {
		opts.disk = disk.open
	}
	r, err := New(opts)
	if err != nil {
		return nil, err
	}
	m.Replica = r
	m.node.Handle(MethodPropose, r.HandlePropose)
	go m.mux.Serve(c.net.Listen(m.addr))
	c.nodes[name] = m
	return m, nil
}

func (c *cluster) stop(m *member) {
	if err := errors.Join(m.Stop(), m.node.Close(), m.mux.Close()); err != nil {
		c.t.Errorf("stop: %v", err)
	}
}

// kill stops a node and forgets it.
func (c *cluster) kill(name core.NodeName) *member {
	m := c.nodes[name]
	delete(c.nodes, name)
	c.stop(m)
	return m
}

// leader waits for one among the nodes that run.
func (c *cluster) leader() *member {
	c.t.Helper()
	for range 200 {
		for _, m := range c.nodes {
			if m.VerifyQuorum(c.t.Context()) == nil {
				return m
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	c.t.Fatal("no leader within 10 s")
	return nil
}

func (c *cluster) follower() *member {
	c.t.Helper()
	leader := c.leader()
	for _, name := range names {
		if m := c.nodes[name]; m != nil && m != leader {
			return m
		}
	}
	c.t.Fatal("no follower")
	return nil
}

// isolate cuts a node off from all others, or joins it again.
func (c *cluster) isolate(name core.NodeName, cut bool) {
	for other := range c.nodes {
		if other == name {
			continue
		}
		for _, p := range [][2]netip.Addr{{addrOf(name).Addr(), addrOf(other).Addr()}, {addrOf(other).Addr(), addrOf(name).Addr()}} {
			if cut {
				c.net.Cut(p[0], p[1])
			} else {
				c.net.Heal(p[0], p[1])
			}
		}
	}
}

// mark is a command that every test may commit.
func mark(i int) core.Command {
	return core.IssueToken{ID: fmt.Sprintf("mark-%d", i), Hash: "x", Node: "a", For: 24 * time.Hour}
}

func marked(s core.State, i int) bool {
	_, ok := s.Tokens[fmt.Sprintf("mark-%d", i)]
	return ok
}

func mustPropose(t *testing.T, m *member, i int) {
	t.Helper()
	if outcome, err := m.Propose(t.Context(), mark(i)); outcome != core.Done || err != nil {
		t.Fatalf("propose %d: %v, %v", i, outcome, err)
	}
}

// loseAnswers is a caller whose requests arrive and whose answers don't.
type loseAnswers struct{ Caller }

func (l loseAnswers) Call(ctx context.Context, node core.NodeName, method string, req, _ any) error {
	var gone json.RawMessage
	if err := l.Caller.Call(ctx, node, method, req, &gone); err != nil {
		return err
	}
	return &api.Error{Code: api.CodeUnknown, Message: "lost"}
}

// faultyDisk keeps everything in memory and fails the write numbered failAt, and from then on every one.
type faultyDisk struct {
	store  *raft.InmemStore
	snaps  *raft.InmemSnapshotStore
	writes int
	failAt int
	err    error
	what   string // the write that failed
	broken bool
}

// anew is a node's identity on a new disk.
func anew(c *cluster, name core.NodeName, incarnation string) *pki.Identity {
	id := *c.ids[name]
	id.Incarnation = incarnation
	return &id
}
