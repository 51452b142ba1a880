package api

import (
	"context"
	"net"
	"sync"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/pki"
)

// Stream is Raft's share of the port: what replica.Options wants as its Stream.
type Stream struct {
	self   core.NodeName
	dialer *Dialer
	in     chan net.Conn
	done   chan struct{}
	once   sync.Once
}

// NewStream takes Raft's connections from mux and opens them with dialer.
func NewStream(self core.NodeName, mux *Mux, dialer *Dialer) *Stream {
	s := &Stream{self: self, dialer: dialer, in: make(chan net.Conn), done: make(chan struct{})}
	mux.Handle(pki.ProtoRaft, s.serve)
	return s
}

// serve hands a connection over and stays until it is closed: Mux.Close waits for it.
func (s *Stream) serve(_ core.NodeName, conn net.Conn) {
	c := &closeConn{peerConn: conn.(*peerConn), closed: make(chan struct{})}
	select {
	case s.in <- c:
		select {
		case <-c.closed:
		case <-s.done:
		}
	case <-s.done:
	}
}

// Accept waits for a connection of another member's Raft. Its Peer method names that member.
func (s *Stream) Accept() (net.Conn, error) {
	select {
	case c := <-s.in:
		return c, nil
	case <-s.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept and every connection that it handed out.
func (s *Stream) Close() error {
	s.once.Do(func() { close(s.done) })
	return nil
}

// Dial connects to the Raft of the node named.
func (s *Stream) Dial(ctx context.Context, node core.NodeName) (net.Conn, error) {
	return s.dialer.Dial(ctx, node, pki.ProtoRaft)
}

// closeConn tells when it was closed.
type closeConn struct {
	*peerConn
	closed chan struct{}
	once   sync.Once
}

func (c *closeConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}
