package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepone-ha/keepone/pkg/core"
)

func newLocal(t *testing.T, access Access) (*Local, string) {
	t.Helper()
	s := NewLocal(quiet)
	s.access = func(uint32) Access { return access }
	path := filepath.Join(t.TempDir(), "s")
	s.Handle("count", AccessRead, func(_ context.Context, c Caller, body json.RawMessage, send func(any) error) (any, error) {
		var n int
		if err := json.Unmarshal(body, &n); err != nil {
			return nil, Refuse("not a number")
		}
		for i := range n {
			if err := send(i); err != nil {
				return nil, err
			}
		}
		return fmt.Sprintf("done for pid %d", c.PID), nil
	})
	s.Handle("change", AccessChange, func(context.Context, Caller, json.RawMessage, func(any) error) (any, error) { return "changed", nil })
	s.Handle("wait", AccessRead, func(ctx context.Context, _ Caller, _ json.RawMessage, send func(any) error) (any, error) {
		send("waiting")
		<-ctx.Done()
		return nil, ctx.Err()
	})
	if err := s.Listen(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, path
}

func TestLocalStreams(t *testing.T) {
	_, path := newLocal(t, AccessChange)
	var got []string
	var last string
	err := CallLocal(t.Context(), path, "count", 3, func(e json.RawMessage) { got = append(got, string(e)) }, &last)
	if err != nil || strings.Join(got, "") != "012" || !strings.HasPrefix(last, "done for pid ") {
		t.Errorf("%v %q %v", got, last, err)
	}
	if err := CallLocal(t.Context(), path, "count", "x", nil, nil); CodeOf(err) != CodeRefused {
		t.Error(err)
	}
	if err := CallLocal(t.Context(), path, "nothing", nil, nil, nil); CodeOf(err) != CodeRefused {
		t.Error(err)
	}
}

func TestLocalAccess(t *testing.T) {
	for access, want := range map[Access]string{AccessNone: "--", AccessRead: "r-", AccessChange: "rc"} {
		_, path := newLocal(t, access)
		got := ""
		for _, row := range []struct{ letter, method string }{{"r", "count"}, {"c", "change"}} {
			err := CallLocal(t.Context(), path, row.method, 0, nil, nil)
			switch {
			case err == nil:
				got += row.letter
			case CodeOf(err) == CodeRefused && strings.Contains(err.Error(), "only root may change"):
				got += "-"
			default:
				t.Error(err)
			}
		}
		if got != want {
			t.Errorf("access %d: %s, want %s", access, got, want)
		}
	}
}

func TestLocalHangUp(t *testing.T) {
	s, path := newLocal(t, AccessChange)
	ctx, cancel := context.WithCancel(t.Context())
	err := CallLocal(ctx, path, "wait", nil, func(json.RawMessage) { cancel() }, nil)
	if CodeOf(err) != CodeUnknown {
		t.Error(err)
	}
	if err := s.Listen(path); err == nil {
		t.Error("two daemons on one socket")
	}
	lost := make(chan error, 1)
	go func() {
		lost <- CallLocal(t.Context(), path, "wait", nil, func(json.RawMessage) { go s.Close() }, nil)
	}()
	if err := <-lost; err == nil {
		t.Error("the daemon went away and nobody noticed")
	}
}

func TestNoDaemonSaysWhatToDo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if err := CallLocal(t.Context(), path, "x", nil, nil, nil); !errors.Is(err, ErrNoDaemon) || !strings.Contains(err.Error(), "systemctl") {
		t.Error(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if err := CallLocal(t.Context(), path, "x", nil, nil, nil); !errors.Is(err, ErrNoDaemon) {
		t.Errorf("a dead daemon's socket: %v", err)
	}
	s := NewLocal(quiet)
	if err := s.Listen(path); err != nil {
		t.Errorf("a dead daemon's socket is in the way: %v", err)
	}
	s.Close()
}

// The one test with real sockets: freebind, ALPN, a call there and back.
func TestRealTCP(t *testing.T) {
	ida, idb := twoNodes(t)
	l, err := Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	away, err := Listen(t.Context(), netip.MustParseAddrPort("192.0.2.1:0"))
	if err != nil {
		t.Errorf("an address that is not there yet: %v", err)
	} else {
		away.Close()
	}
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	dialer := NewDialer(idb, func(core.NodeName) []netip.AddrPort { return []netip.AddrPort{addr} }, nil)
	mux := NewMux(ida, nil, quiet)
	a := NewNode("a", mux, NewDialer(ida, func(core.NodeName) []netip.AddrPort { return nil }, nil), quiet)
	a.Handle("hi", func(_ context.Context, peer core.NodeName, _ json.RawMessage) (any, error) { return peer, nil })
	served := make(chan error, 1)
	go func() { served <- mux.Serve(l) }()
	b := NewNode("b", NewMux(idb, nil, quiet), dialer, quiet)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	var who string
	began := time.Now()
	if err := b.Call(ctx, "a", "hi", nil, &who); err != nil || who != "b" {
		t.Errorf("%q, %v", who, err)
	}
	first := time.Since(began)
	began = time.Now()
	for range 100 {
		if err := b.Call(ctx, "a", "hi", nil, &who); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("first call %v, then %v each", first, time.Since(began)/100)
	if err := errors.Join(b.Close(), a.Close(), mux.Close(), <-served); err != nil {
		t.Error(err)
	}
}

// FuzzLocal: whatever comes over the socket, there is one answer, or none, and the daemon goes on.
func FuzzLocal(f *testing.F) {
	f.Add([]byte("{\"method\":\"look\",\"body\":{\"service\":\"one\"}}\n"))
	f.Add([]byte("{\"method\":\"look\"}\n{\"method\":\"look\"}\n"))
	f.Add([]byte("{\"method\":null,\"body\":[]}\n"))
	f.Add([]byte("\n"))
	f.Add([]byte("{"))
	s := NewLocal(slog.New(slog.DiscardHandler))
	s.Handle("look", AccessRead, func(_ context.Context, _ Caller, body json.RawMessage, send func(any) error) (any, error) {
		var in struct{ Service string }
		if err := json.Unmarshal(body, &in); err != nil {
			return nil, Refuse("read request: %v", err)
		}
		return in, send(in)
	})
	f.Fuzz(func(t *testing.T, data []byte) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		ours, theirs := unixConn(t, fds[0]), unixConn(t, fds[1])
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.serve(theirs)
			_ = theirs.Close()
		}()
		go func() {
			_, _ = ours.Write(data) // it may hang up before the end
			_ = ours.CloseWrite()
		}()
		answer, _ := io.ReadAll(ours)
		<-done
		_ = ours.Close()
		lines := bytes.Split(bytes.TrimSuffix(answer, []byte("\n")), []byte("\n"))
		if len(answer) > 0 && !bytes.Contains(data, []byte("\n")) {
			t.Errorf("half a request is answered: %q", answer)
		}
		for i, text := range lines {
			var l line
			if len(answer) > 0 && (json.Unmarshal(text, &l) != nil || (i == len(lines)-1) != (l.Event == nil)) {
				t.Errorf("answer %q", answer)
			}
		}
	})
}

func unixConn(t *testing.T, fd int) *net.UnixConn {
	t.Helper()
	file := os.NewFile(uintptr(fd), "socket")
	defer file.Close()
	c, err := net.FileConn(file)
	if err != nil {
		t.Fatal(err)
	}
	return c.(*net.UnixConn)
}
