package api

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepone-ha/keepone/pkg/api/pipenet"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/pki"
)

var quiet = slog.New(slog.DiscardHandler)

// host is one node's share of the network in a test, with two links.
type host struct {
	id     *pki.Identity
	mux    *Mux
	node   *Node
	dialer *Dialer
	dials  atomic.Int32
}

func link(name core.NodeName, n byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, n, name[0]}), Port)
}

func newHost(t *testing.T, network *pipenet.Net, id *pki.Identity, admit func(core.NodeName) error) *host {
	t.Helper()
	h := &host{id: id}
	h.dialer = NewDialer(id, func(to core.NodeName) []netip.AddrPort {
		return []netip.AddrPort{link(to, 0), link(to, 1)}
	}, func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
		h.dials.Add(1)
		return network.Dial(ctx, link(id.Name, to.Addr().As4()[2]).Addr(), to)
	})
	h.mux = NewMux(id, admit, quiet)
	h.node = NewNode(id.Name, h.mux, h.dialer, quiet)
	for n := range byte(2) {
		go h.mux.Serve(network.Listen(link(id.Name, n)))
	}
	return h
}

func (h *host) stop(t *testing.T) {
	if err := errors.Join(h.node.Close(), h.mux.Close()); err != nil {
		t.Error(err)
	}
}

// pair runs f with two nodes of one cluster, in virtual time.
func pair(t *testing.T, f func(t *testing.T, network *pipenet.Net, a, b *host)) {
	t.Helper()
	ida, idb := twoNodes(t)
	synctest.Test(t, func(t *testing.T) {
		network := pipenet.New()
		a, b := newHost(t, network, ida, nil), newHost(t, network, idb, nil)
		synctest.Wait()
		f(t, network, a, b)
		a.stop(t)
		b.stop(t)
		time.Sleep(20 * time.Second)
	})
}

func twoNodes(t *testing.T) (a, b *pki.Identity) {
	t.Helper()
	a, err := pki.Init(t.TempDir(), "a")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	n, err := pki.NewNewcomer(dir, "b", a.NewToken())
	if err != nil {
		t.Fatal(err)
	}
	answer, err := a.Admit(t.Context(), n.Request, func(context.Context, pki.JoinRequest, string) (any, error) { return nil, nil })
	if err != nil {
		t.Fatal(err)
	}
	if b, err = n.Finish(dir, answer); err != nil {
		t.Fatal(err)
	}
	return a, b
}

func bounded(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestCallsShareAConnection(t *testing.T) {
	pair(t, func(t *testing.T, _ *pipenet.Net, a, b *host) {
		b.node.Handle("echo", func(_ context.Context, peer core.NodeName, body json.RawMessage) (any, error) {
			var text string
			err := json.Unmarshal(body, &text)
			time.Sleep(time.Second)
			return string(peer) + " says " + text, err
		})
		var wait sync.WaitGroup
		began := time.Now()
		for range 20 {
			wait.Go(func() {
				var answer string
				if err := a.node.Call(bounded(t, 5*time.Second), "b", "echo", "hi", &answer); err != nil || answer != "a says hi" {
					t.Errorf("%q, %v", answer, err)
				}
			})
		}
		wait.Wait()
		if a.dials.Load() != 1 || time.Since(began) > 2*time.Second {
			t.Errorf("%d dials, %v", a.dials.Load(), time.Since(began))
		}
		var self string
		a.node.Handle("echo", func(_ context.Context, peer core.NodeName, _ json.RawMessage) (any, error) { return peer, nil })
		if err := a.node.Call(t.Context(), "a", "echo", nil, &self); err != nil || self != "a" || a.dials.Load() != 1 {
			t.Errorf("call to self: %q, %v", self, err)
		}
	})
}

func TestErrorsKeepTheirCode(t *testing.T) {
	pair(t, func(t *testing.T, _ *pipenet.Net, a, b *host) {
		b.node.Handle("elsewhere", func(context.Context, core.NodeName, json.RawMessage) (any, error) {
			return nil, &Error{Code: CodeNotLeader, Message: "ask c", Leader: "c"}
		})
		b.node.Handle("broken", func(context.Context, core.NodeName, json.RawMessage) (any, error) {
			return nil, errors.New("it broke")
		})
		var e *Error
		err := a.node.Call(bounded(t, time.Second), "b", "elsewhere", nil, nil)
		if !errors.As(err, &e) || e.Code != CodeNotLeader || e.Leader != "c" || !e.NotSent() {
			t.Error(err)
		}
		if err := a.node.Call(bounded(t, time.Second), "b", "broken", nil, nil); CodeOf(err) != CodeInternal || !strings.Contains(err.Error(), "it broke") {
			t.Error(err)
		}
		if err := a.node.Call(bounded(t, time.Second), "b", "nothing", nil, nil); CodeOf(err) != CodeRefused {
			t.Error(err)
		}
		if err := a.node.Call(bounded(t, time.Second), "nobody", "x", nil, nil); !errors.As(err, new(*UnreachableError)) {
			t.Error(err)
		}
	})
}

func TestNoAnswerIsUnknown(t *testing.T) {
	pair(t, func(t *testing.T, _ *pipenet.Net, a, b *host) {
		entered := make(chan struct{}, 2)
		b.node.Handle("slow", func(ctx context.Context, _ core.NodeName, _ json.RawMessage) (any, error) {
			entered <- struct{}{}
			<-ctx.Done() // the caller's deadline came along
			return nil, ctx.Err()
		})
		began := time.Now()
		if err := a.node.Call(bounded(t, time.Second), "b", "slow", nil, nil); CodeOf(err) != CodeUnknown && CodeOf(err) != CodeInternal {
			t.Error(err)
		}
		if d := time.Since(began); d > 1100*time.Millisecond {
			t.Errorf("a deadline of 1 s took %v", d)
		}
		<-entered
		lost := make(chan error, 1)
		go func() { lost <- a.node.Call(bounded(t, time.Minute), "b", "slow", nil, nil) }()
		<-entered
		b.stop(t)
		if err := <-lost; CodeOf(err) != CodeUnknown {
			t.Errorf("the connection ended: %v", err)
		}
		if err := a.node.Call(bounded(t, time.Second), "b", "slow", nil, nil); !errors.As(err, new(*UnreachableError)) {
			t.Errorf("nobody there: %v", err)
		}
	})
}

func TestDeadLinkCostsAMoment(t *testing.T) {
	pair(t, func(t *testing.T, network *pipenet.Net, a, b *host) {
		b.node.Handle("hi", func(context.Context, core.NodeName, json.RawMessage) (any, error) { return "hi", nil })
		for _, p := range [][2]netip.AddrPort{{link("a", 0), link("b", 0)}, {link("b", 0), link("a", 0)}} {
			network.Cut(p[0].Addr(), p[1].Addr())
		}
		began := time.Now()
		if err := a.node.Call(bounded(t, 5*time.Second), "b", "hi", nil, nil); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d != stagger {
			t.Errorf("the first dial took %v", d)
		}
		began = time.Now()
		conn, err := a.dialer.Dial(t.Context(), "b", pki.ProtoNode)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		if d := time.Since(began); d != 0 {
			t.Errorf("the link that worked was forgotten: %v", d)
		}
		network.Cut(link("a", 1).Addr(), link("b", 1).Addr())
		began = time.Now()
		if _, err := a.dialer.Dial(t.Context(), "b", pki.ProtoNode); err == nil || time.Since(began) > dialTimeout {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// The link of a connection that the kernel gave up is tried last.
func TestFailedLinkIsTriedLast(t *testing.T) {
	d := NewDialer(nil, func(core.NodeName) []netip.AddrPort { return []netip.AddrPort{link("b", 0), link("b", 1)} }, nil)
	d.good["b"] = link("b", 0)
	d.forget("b", link("b", 0))
	if got := d.order("b"); got[0] != link("b", 1) || len(got) != 2 {
		t.Errorf("%v", got)
	}
	d.forget("b", link("b", 0)) // an older connection over the first link fails later
	if got := d.order("b"); got[0] != link("b", 1) {
		t.Errorf("%v", got)
	}
}

func TestMembershipRevokes(t *testing.T) {
	ida, idb := twoNodes(t)
	synctest.Test(t, func(t *testing.T) {
		network := pipenet.New()
		a := newHost(t, network, ida, func(n core.NodeName) error {
			if n == "b" {
				return errors.New("was removed")
			}
			return nil
		})
		a.node.Handle("hi", func(context.Context, core.NodeName, json.RawMessage) (any, error) {
			t.Error("a removed node was heard")
			return nil, nil
		})
		b := newHost(t, network, idb, nil)
		synctest.Wait()
		if err := b.node.Call(bounded(t, time.Second), "a", "hi", nil, nil); err == nil {
			t.Error("a removed node was answered")
		}
		a.stop(t)
		b.stop(t)
		time.Sleep(20 * time.Second)
	})
}

func TestJoinOverTheWire(t *testing.T) {
	id, err := pki.Init(t.TempDir(), "a")
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		network := pipenet.New()
		a := newHost(t, network, id, nil)
		token := id.NewToken()
		expires, used := time.Now().Add(time.Hour), false
		ServeJoin(a.mux, id, func(_ context.Context, req pki.JoinRequest, hash string) (any, error) {
			switch {
			case req.TokenID != token.ID || !pki.HashEqual(hash, token.Hash()):
				return nil, Refuse("no such token")
			case used:
				return nil, Refuse("the token was used already")
			case time.Now().After(expires):
				return nil, Refuse("the token has expired")
			}
			used = true
			return map[string]string{"a": "10.0.0.1"}, nil
		})
		synctest.Wait()
		ask := func(token pki.Token) (string, error) {
			dir := t.TempDir()
			n, err := pki.NewNewcomer(dir, "b", token)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := Join(t.Context(), n, []netip.AddrPort{link("a", 0)}, func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
				return network.Dial(ctx, link("b", 0).Addr(), to)
			})
			if err != nil {
				return "", err
			}
			id, err := n.Finish(dir, answer)
			if err != nil {
				return "", err
			}
			return string(id.Name) + string(answer.Members), nil
		}
		forged := token
		forged.Secret = strings.Repeat("A", 26)
		if _, err := ask(forged); CodeOf(err) != CodeRefused {
			t.Errorf("forged token: %v", err)
		}
		if got, err := ask(token); err != nil || got != `b{"a":"10.0.0.1"}` {
			t.Errorf("%q, %v", got, err)
		}
		if _, err := ask(token); CodeOf(err) != CodeRefused || !strings.Contains(err.Error(), "used already") {
			t.Errorf("second use: %v", err)
		}
		used = false
		time.Sleep(2 * time.Hour)
		if _, err := ask(token); CodeOf(err) != CodeRefused || !strings.Contains(err.Error(), "expired") {
			t.Errorf("expired: %v", err)
		}
		a.stop(t)
		time.Sleep(20 * time.Second)
	})
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x02{}"))
	f.Add([]byte("\xff\xff\xff\xff"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		var v frame
		readFrame(strings.NewReader(string(data)), &v)
	})
}
