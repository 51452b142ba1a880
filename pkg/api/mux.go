package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/pki"
)

// maxConns bounds connections that are open at once, over all links: 15 members need about ten each.
const maxConns = 512

const refusedEvery = 10 * time.Second

// Mux serves Raft, the node protocol and join on the same listeners, told apart by ALPN.
type Mux struct {
	id    *pki.Identity
	admit func(core.NodeName) error
	log   *slog.Logger
	conf  *tls.Config
	slots chan struct{}

	mu        sync.Mutex
	closed    bool
	refusedAt time.Time // when the log last said so
	handlers  map[string]func(core.NodeName, net.Conn)
	conns     map[net.Conn]struct{}
	listeners []net.Listener
	wait      sync.WaitGroup
}

// NewMux returns a mux that serves nothing yet. admit says whether a name with a valid certificate is a member
// still: membership revokes (nil: all). It is asked once a connection.
func NewMux(id *pki.Identity, admit func(core.NodeName) error, log *slog.Logger) *Mux {
	return &Mux{
		id: id, admit: admit, log: log, conf: id.ServerConfig(), slots: make(chan struct{}, maxConns),
		handlers: map[string]func(core.NodeName, net.Conn){}, conns: map[net.Conn]struct{}{},
	}
}

// Handle serves connections of one protocol. h gets the peer's name from its certificate (empty for join), and owns
// the connection; it is called on a goroutine of its own, and Close waits for it.
func (m *Mux) Handle(proto string, h func(peer core.NodeName, conn net.Conn)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.handlers[proto] = h
}

// Serve accepts on l until Close; call it once for each link, on its own goroutine. It returns nil after Close.
func (m *Mux) Serve(l net.Listener) error {
	if !m.own(l) {
		l.Close()
		return nil
	}
	defer m.wait.Done()
	pause := time.Millisecond
	for {
		raw, err := l.Accept()
		switch {
		case m.isClosed():
			if err == nil {
				raw.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept on %s: %w", l.Addr(), err)
		case err != nil: // out of files, or a peer that left again
			m.log.Warn("accept connection", "link", l.Addr().String(), "error", err)
			pause = min(2*pause, time.Second)
			time.Sleep(pause)
			continue
		}
		pause = time.Millisecond
		m.start(raw)
	}
}

// own books a listener, unless the mux is closed.
func (m *Mux) own(l net.Listener) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.listeners = append(m.listeners, l)
	m.wait.Add(1)
	return true
}

func (m *Mux) isClosed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.closed
}

func (m *Mux) start(raw net.Conn) {
	select {
	case m.slots <- struct{}{}:
	default:
		m.log.Warn("too many connections, one refused", "from", raw.RemoteAddr().String())
		raw.Close()
		return
	}
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		raw.Close()
		<-m.slots
		return
	}
	m.conns[raw] = struct{}{}
	m.wait.Add(1)
	m.mu.Unlock()
	go func() {
		defer m.wait.Done()
		defer func() {
			raw.Close()
			m.mu.Lock()
			delete(m.conns, raw)
			m.mu.Unlock()
			<-m.slots
		}()
		if err := m.serve(raw); err != nil && !m.isClosed() {
			m.refused(raw, err)
		}
	}()
}

// refused says that a connection was, at most once in refusedEvery: a node with a wrong identity knocks ten times a
// second.
func (m *Mux) refused(raw net.Conn, err error) {
	m.mu.Lock()
	quiet := time.Since(m.refusedAt) < refusedEvery
	if !quiet {
		m.refusedAt = time.Now()
	}
	m.mu.Unlock()
	if !quiet {
		m.log.Warn("connection refused", "from", raw.RemoteAddr().String(), "error", err)
	}
}

// serve shakes hands and hands the connection to its protocol, until that returns.
func (m *Mux) serve(raw net.Conn) error {
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
	defer cancel()
	conn := tls.Server(raw, m.conf)
	if err := conn.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	cs := conn.ConnectionState()
	m.mu.Lock()
	h := m.handlers[cs.NegotiatedProtocol]
	m.mu.Unlock()
	if h == nil {
		return fmt.Errorf("protocol %q is not served here", cs.NegotiatedProtocol)
	}
	if cs.NegotiatedProtocol == pki.ProtoJoin {
		h("", conn)
		return nil
	}
	peer, err := m.id.Peer(cs)
	if err != nil {
		return err
	}
	if m.admit != nil {
		if err := m.admit(peer); err != nil {
			return fmt.Errorf("node %s: %w", peer, err)
		}
	}
	h(peer, &peerConn{Conn: conn, node: peer})
	return nil
}

// Close stops listening, closes every connection and waits for their handlers.
func (m *Mux) Close() error {
	m.mu.Lock()
	m.closed = true
	var errs []error
	for _, l := range m.listeners {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	for c := range m.conns {
		c.Close()
	}
	m.mu.Unlock()
	m.wait.Wait()
	return errors.Join(errs...)
}
