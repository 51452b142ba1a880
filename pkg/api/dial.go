package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/pki"
)

const (
	// stagger is how long one link is tried alone. A LAN's TLS handshake takes 1 to 5 ms; 150 ms leaves a slow one
	// its chance, and lets Raft change the link within its election timeout of 400 ms.
	stagger = 150 * time.Millisecond
	// dialTimeout bounds one dial over all links.
	dialTimeout = 3 * time.Second
	// userTimeout is how long sent data may go unacknowledged by the peer's kernel before the connection counts as
	// dead. It races Raft's leader lease of 400 ms: a link that dies must cost a redial over another, no leadership.
	userTimeout = 200 * time.Millisecond
)

// Addresses returns the link addresses of a node, in order of preference; none for an unknown node.
type Addresses func(core.NodeName) []netip.AddrPort

// DialFunc opens the plain connection; nil means TCP. Tests hand in net.Pipe.
type DialFunc func(ctx context.Context, addr netip.AddrPort) (net.Conn, error)

// Dialer connects to nodes by name over whichever link works.
type Dialer struct {
	id    *pki.Identity
	addrs Addresses
	dial  DialFunc

	mu   sync.Mutex
	good map[core.NodeName]netip.AddrPort // the link that worked last
}

// NewDialer returns a dialer that speaks as id.
func NewDialer(id *pki.Identity, addrs Addresses, dial DialFunc) *Dialer {
	if dial == nil {
		dial = dialTCP
	}
	return &Dialer{id: id, addrs: addrs, dial: dial, good: map[core.NodeName]netip.AddrPort{}}
}

// Dial opens a connection to node for one of pki's protocols. Links are tried one after the other, the one that
// worked last first, each given a head start; the first whose TLS handshake ends wins. The certificate must be
// node's. The error is an UnreachableError.
func (d *Dialer) Dial(ctx context.Context, node core.NodeName, proto string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	addrs := d.order(node)
	if len(addrs) == 0 {
		return nil, &UnreachableError{Node: node, Err: errors.New("no address of it is known")}
	}
	conn, addr, err := race(ctx, addrs, func(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
		return d.open(ctx, node, addr, proto)
	})
	if err != nil {
		d.forget(node, netip.AddrPort{})
		return nil, &UnreachableError{Node: node, Err: err}
	}
	d.mu.Lock()
	d.good[node] = addr
	d.mu.Unlock()
	return &peerConn{Conn: conn, node: node, failed: func() { d.forget(node, addr) }}, nil
}

// order returns the node's addresses, the one that worked last first.
func (d *Dialer) order(node core.NodeName) []netip.AddrPort {
	d.mu.Lock()
	good, ok := d.good[node]
	d.mu.Unlock()
	all := d.addrs(node)
	ordered := make([]netip.AddrPort, 0, len(all))
	for _, a := range all {
		if ok && a == good {
			ordered = append(ordered, a)
		}
	}
	for _, a := range all {
		if !ok || a != good {
			ordered = append(ordered, a)
		}
	}
	return ordered
}

// forget makes the next dial begin with another link than addr: it becomes the last one that is tried.
func (d *Dialer) forget(node core.NodeName, addr netip.AddrPort) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if addr.IsValid() && d.good[node] != addr {
		return
	}
	delete(d.good, node)
	for _, other := range d.addrs(node) {
		if addr.IsValid() && other != addr {
			d.good[node] = other
			return
		}
	}
}

func (d *Dialer) open(ctx context.Context, node core.NodeName, addr netip.AddrPort, proto string) (net.Conn, error) {
	raw, err := d.dial(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	conn := tls.Client(raw, d.id.ClientConfig(node, proto))
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("handshake with %s: %w", addr, err)
	}
	return conn, nil
}

// race opens addrs staggered and returns the first that succeeds; the others are closed. A failure starts the next
// at once.
func race(ctx context.Context, addrs []netip.AddrPort, open DialFunc) (net.Conn, netip.AddrPort, error) {
	ctx, cancel := context.WithCancel(ctx)
	type result struct {
		conn net.Conn
		addr netip.AddrPort
		err  error
	}
	results := make(chan result, len(addrs))
	started, ended := 0, 0
	start := func() {
		addr := addrs[started]
		started++
		go func() {
			conn, err := open(ctx, addr)
			results <- result{conn, addr, err}
		}()
	}
	defer func() {
		cancel()
		for ; ended < started; ended++ {
			if r := <-results; r.conn != nil {
				r.conn.Close()
			}
		}
	}()
	start()
	timer := time.NewTimer(stagger)
	defer timer.Stop()
	var errs []error
	for {
		select {
		case r := <-results:
			ended++
			if r.err == nil {
				return r.conn, r.addr, nil
			}
			errs = append(errs, r.err)
			switch {
			case started < len(addrs):
				start()
				timer.Reset(stagger)
			case ended == started:
				return nil, netip.AddrPort{}, errors.Join(errs...)
			}
		case <-timer.C:
			if started < len(addrs) {
				start()
				timer.Reset(stagger)
			}
		}
	}
}

func dialTCP(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{Control: control, KeepAliveConfig: keepAlive}
	return d.DialContext(ctx, "tcp", addr.String())
}

// keepAlive finds a peer that vanished while nothing was being sent.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 3}

// peerConn is a connection whose other end is known from its certificate.
type peerConn struct {
	net.Conn
	node   core.NodeName
	failed func() // told once of an error that is not our own doing; may be nil
	once   sync.Once
}

// Peer returns the node at the other end, as its certificate names it.
func (c *peerConn) Peer() core.NodeName { return c.node }

func (c *peerConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.judge(err)
	return n, err
}

func (c *peerConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.judge(err)
	return n, err
}

// judge lets the dialer try another link next when the kernel gave this one up.
func (c *peerConn) judge(err error) {
	if err != nil && c.failed != nil && (errors.Is(err, unix.ETIMEDOUT) || errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.ENETUNREACH)) {
		c.once.Do(c.failed)
	}
}
