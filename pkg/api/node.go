package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/pki"
)

// Handler serves one method of the node protocol. peer is from the certificate of the connection, never from the
// message. ctx ends with the caller's deadline, with the connection, or with the node. What it returns is encoded
// as JSON; an *Error keeps its code.
type Handler func(ctx context.Context, peer core.NodeName, body json.RawMessage) (any, error)

// Node speaks the node protocol: requests and answers, many at a time over one connection for each peer and
// direction.
type Node struct {
	self   core.NodeName
	dialer *Dialer
	log    *slog.Logger

	mu       sync.Mutex
	closed   bool
	handlers map[string]Handler
	peers    map[core.NodeName]*peer
	ctx      context.Context // ends with Close; handlers run under it
	cancel   context.CancelFunc
	wait     sync.WaitGroup
}

// NewNode returns the node protocol of self and serves it on mux. Register handlers before mux serves.
func NewNode(self core.NodeName, mux *Mux, dialer *Dialer, log *slog.Logger) *Node {
	ctx, cancel := context.WithCancel(context.Background())
	n := &Node{
		self: self, dialer: dialer, log: log, ctx: ctx, cancel: cancel,
		handlers: map[string]Handler{}, peers: map[core.NodeName]*peer{},
	}
	mux.Handle(pki.ProtoNode, n.serve)
	return n
}

// Handle serves a method.
func (n *Node) Handle(method string, h Handler) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.handlers[method] = h
}

// Call asks node and decodes its answer into resp, which may be nil. It is bounded by ctx alone: give it a deadline;
// the handler gets the same. Errors: *UnreachableError if it was certainly not sent; *Error with the handler's code;
// *Error with CodeUnknown if it was sent and no answer came. A call to self goes the short way.
func (n *Node) Call(ctx context.Context, node core.NodeName, method string, req, resp any) error {
	body, err := json.Marshal(req)
	if err != nil {
		return fmt.Errorf("call %s on %s: encode: %w", method, node, err)
	}
	var answer frame
	if node == n.self {
		answer = n.answer(ctx, n.self, frame{Method: method, Body: body})
	} else if answer, err = n.remote(ctx, node, method, body); err != nil {
		return fmt.Errorf("call %s: %w", method, err)
	}
	if answer.Error != nil {
		return fmt.Errorf("call %s on %s: %w", method, node, answer.Error)
	}
	if resp == nil {
		return nil
	}
	if err := json.Unmarshal(answer.Body, resp); err != nil {
		return fmt.Errorf("call %s on %s: decode answer: %w", method, node, err)
	}
	return nil
}

func (n *Node) remote(ctx context.Context, node core.NodeName, method string, body json.RawMessage) (frame, error) {
	c, err := n.peer(node).connect(ctx)
	if err != nil {
		return frame{}, err
	}
	return c.roundtrip(ctx, method, body)
}

func (n *Node) peer(node core.NodeName) *peer {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.peers[node]
	if p == nil {
		p = &peer{owner: n, node: node, turn: make(chan struct{}, 1)}
		n.peers[node] = p
	}
	return p
}

// serve answers a peer's requests until the connection ends.
func (n *Node) serve(from core.NodeName, conn net.Conn) {
	ctx, cancel := context.WithCancel(n.ctx)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	var wait sync.WaitGroup
	defer wait.Wait()
	defer cancel()
	var writing sync.Mutex
	slots := make(chan struct{}, maxInFlight)
	r := bufio.NewReader(conn)
	for {
		var req frame
		if err := readFrame(r, &req); err != nil {
			return // the peer left, or we close
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		wait.Add(1)
		go func() {
			defer wait.Done()
			defer func() { <-slots }()
			out := n.answer(ctx, from, req)
			writing.Lock()
			defer writing.Unlock()
			conn.SetWriteDeadline(time.Now().Add(writeTimeout))
			if err := writeFrame(conn, out); err != nil {
				conn.Close() // the peer sees its calls as Unknown
			}
		}()
	}
}

// answer runs the handler and makes the frame that goes back.
func (n *Node) answer(ctx context.Context, from core.NodeName, req frame) frame {
	n.mu.Lock()
	h := n.handlers[req.Method]
	n.mu.Unlock()
	out := frame{ID: req.ID}
	if h == nil {
		out.Error = Refuse("node %s does not know the method %q: it runs another version", n.self, req.Method)
		return out
	}
	if req.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, req.Timeout)
		defer cancel()
	}
	result, err := h(ctx, from, req.Body)
	if err == nil {
		out.Body, err = json.Marshal(result)
	}
	if err != nil {
		out.Body, out.Error = nil, asError(err)
	}
	return out
}

// Close ends every connection and waits for the handlers. Calls that wait end as Unknown.
func (n *Node) Close() error {
	n.mu.Lock()
	n.closed = true
	peers := n.peers
	n.peers = map[core.NodeName]*peer{}
	n.mu.Unlock()
	n.cancel()
	for _, p := range peers {
		p.close()
	}
	n.wait.Wait()
	return nil
}
