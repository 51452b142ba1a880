// Package pipenet is a network of net.Pipe connections for tests: no sockets, so that testing/synctest can run it in
// virtual time, and links that can be cut. What is sent over a cut link vanishes; nobody is told.
package pipenet

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
)

var errRefused = errors.New("connection refused")

// Net is a network. The zero value is not ready: use New.
type Net struct {
	mu        sync.Mutex
	listeners map[netip.AddrPort]*listener
	cut       map[pair]bool
	conns     map[*conn]pair
}

// pair is one direction between two hosts.
type pair struct{ from, to netip.Addr }

// New returns an empty network.
func New() *Net {
	return &Net{listeners: map[netip.AddrPort]*listener{}, cut: map[pair]bool{}, conns: map[*conn]pair{}}
}

// Listen opens a port.
func (n *Net) Listen(addr netip.AddrPort) net.Listener {
	l := &listener{net: n, addr: addr, in: make(chan net.Conn), done: make(chan struct{})}
	n.mu.Lock()
	n.listeners[addr] = l
	n.mu.Unlock()
	return l
}

// Dial connects from one of a host's addresses. Over a cut link it waits for ctx.
func (n *Net) Dial(ctx context.Context, from netip.Addr, to netip.AddrPort) (net.Conn, error) {
	n.mu.Lock()
	l, there, back := n.listeners[to], pair{from, to.Addr()}, pair{to.Addr(), from}
	cut := n.cut[there] || n.cut[back]
	n.mu.Unlock()
	if cut {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if l == nil {
		return nil, errRefused
	}
	a, b := net.Pipe()
	near, far := &conn{Conn: a, net: n, to: to}, &conn{Conn: b, net: n, to: netip.AddrPortFrom(from, 1)}
	n.mu.Lock()
	n.conns[near], n.conns[far] = there, back
	n.mu.Unlock()
	select {
	case l.in <- far:
		return near, nil
	case <-l.done:
		near.Close()
		far.Close()
		return nil, errRefused
	case <-ctx.Done():
		near.Close()
		far.Close()
		return nil, ctx.Err()
	}
}

// Cut makes what from sends to to vanish; cut both ways for a dead link.
func (n *Net) Cut(from, to netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[pair{from, to}] = true
}

// Heal ends a cut. Connections over it are closed: a part of their bytes is missing.
func (n *Net) Heal(from, to netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := pair{from, to}
	delete(n.cut, p)
	for c, at := range n.conns {
		if at == p {
			c.Conn.Close()
		}
	}
}

func (n *Net) isCut(c *conn) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cut[n.conns[c]]
}

type listener struct {
	net  *Net
	addr netip.AddrPort
	in   chan net.Conn
	done chan struct{}
	once sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.in:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.done)
		l.net.mu.Lock()
		if l.net.listeners[l.addr] == l {
			delete(l.net.listeners, l.addr)
		}
		l.net.mu.Unlock()
	})
	return nil
}

func (l *listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }

type conn struct {
	net.Conn
	net *Net
	to  netip.AddrPort
}

func (c *conn) Write(b []byte) (int, error) {
	if c.net.isCut(c) {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// Close is heard at the other end only if the link works; a pipe can't keep that from it, and no test may need it.
func (c *conn) Close() error {
	c.net.mu.Lock()
	delete(c.net.conns, c)
	c.net.mu.Unlock()
	return c.Conn.Close()
}

func (c *conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.to) }
