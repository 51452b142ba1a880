package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/pki"
)

// peer keeps one connection for our calls to a node, opened when it is needed.
type peer struct {
	owner *Node
	node  core.NodeName
	turn  chan struct{} // held while dialing: one dial at a time, and waiting for it heeds the context

	mu   sync.Mutex
	conn *client
}

// connect returns the live connection or opens one.
func (p *peer) connect(ctx context.Context) (*client, error) {
	if c := p.live(); c != nil {
		return c, nil
	}
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return nil, &UnreachableError{Node: p.node, Err: context.Cause(ctx)}
	}
	if c := p.live(); c != nil {
		return c, nil // somebody else's dial
	}
	conn, err := p.owner.dialer.Dial(ctx, p.node, pki.ProtoNode)
	if err != nil {
		return nil, err
	}
	c := &client{conn: conn, node: p.node, pending: map[uint64]chan frame{}, done: make(chan struct{})}
	p.owner.mu.Lock()
	closed := p.owner.closed
	if !closed {
		p.owner.wait.Add(1)
	}
	p.owner.mu.Unlock()
	if closed {
		conn.Close()
		return nil, &UnreachableError{Node: p.node, Err: net.ErrClosed}
	}
	p.mu.Lock()
	p.conn = c
	p.mu.Unlock()
	go func() {
		defer p.owner.wait.Done()
		c.read()
	}()
	if p.owner.ctx.Err() != nil {
		c.fail(net.ErrClosed)
	}
	return c, nil
}

func (p *peer) live() *client {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn == nil {
		return nil
	}
	select {
	case <-p.conn.done:
		p.conn = nil
	default:
	}
	return p.conn
}

func (p *peer) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn != nil {
		p.conn.fail(net.ErrClosed)
	}
}

// client is the calling end of one connection.
type client struct {
	conn net.Conn
	node core.NodeName

	writing sync.Mutex
	mu      sync.Mutex
	next    uint64
	pending map[uint64]chan frame
	err     error         // why it ended
	done    chan struct{} // closed at its end
}

var errConnEnded = errors.New("the connection ended before the answer")

// roundtrip sends one request and waits for its answer, the connection's end, or ctx.
func (c *client) roundtrip(ctx context.Context, method string, body json.RawMessage) (frame, error) {
	if err := ctx.Err(); err != nil {
		return frame{}, &UnreachableError{Node: c.node, Err: err}
	}
	req := frame{Method: method, Body: body}
	if deadline, ok := ctx.Deadline(); ok {
		req.Timeout = max(time.Until(deadline), time.Millisecond)
	}
	answer := make(chan frame, 1)
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return frame{}, &UnreachableError{Node: c.node, Err: c.err}
	}
	c.next++
	req.ID = c.next
	c.pending[req.ID] = answer
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.pending, req.ID)
		c.mu.Unlock()
	}()
	if err := c.send(req); err != nil {
		return frame{}, c.lost(err) // a part may have arrived
	}
	select {
	case f := <-answer:
		return f, nil
	case <-c.done:
		select {
		case f := <-answer: // it came just before the end
			return f, nil
		default:
			return frame{}, c.lost(errConnEnded)
		}
	case <-ctx.Done():
		return frame{}, c.lost(context.Cause(ctx))
	}
}

func (c *client) send(req frame) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	err := writeFrame(c.conn, req)
	if err != nil {
		c.fail(err) // a frame cut in two leaves the stream without meaning
	}
	return err
}

func (c *client) lost(err error) *Error {
	return &Error{Code: CodeUnknown, Message: fmt.Sprintf("no answer from node %s: %v", c.node, err)}
}

// read hands answers to those who wait, until the connection ends.
func (c *client) read() {
	r := bufio.NewReader(c.conn)
	for {
		var f frame
		if err := readFrame(r, &f); err != nil {
			c.fail(err)
			return
		}
		c.mu.Lock()
		answer := c.pending[f.ID]
		delete(c.pending, f.ID)
		c.mu.Unlock()
		if answer != nil {
			answer <- f
		}
	}
}

func (c *client) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	close(c.done)
	c.conn.Close()
}
