package replica

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/keepone-ha/keepone/pkg/core"
)

// serverID is what Raft knows a member by: a name on another disk is another member.
func serverID(name core.NodeName, incarnation string) raft.ServerID {
	return raft.ServerID(string(name) + "/" + incarnation)
}

func nameOf(id raft.ServerID) core.NodeName {
	name, _, _ := strings.Cut(string(id), "/")
	return core.NodeName(name)
}

func incarnationOf(id raft.ServerID) string {
	_, incarnation, _ := strings.Cut(string(id), "/")
	return incarnation
}

// contact is when a peer last agreed that we lead.
type contact struct {
	term  uint64
	asked uint64 // drawn from transport.clock as the request was sent that it answered
}

// transport is Raft's network transport, and remembers which peers agree that we lead, and since when: Raft's own
// VerifyLeader counts an answer to a heartbeat that was sent before it was asked.
type transport struct {
	*raft.NetworkTransport
	clock    atomic.Uint64 // orders events of this process, exactly
	mu       sync.Mutex
	contacts map[raft.ServerID]contact
}

// rpcTimeout bounds one request of Raft: long enough for a slow fsync on the other side, short enough to try
// another link soon.
const rpcTimeout = 2 * time.Second

func newTransport(opts Options, id raft.ServerID, logger hclog.Logger) *transport {
	s := &stream{Stream: opts.Stream, self: id}
	return &transport{
		contacts: map[raft.ServerID]contact{},
		NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream: s, ServerAddressProvider: s, Logger: logger, MaxPool: 3, Timeout: rpcTimeout,
			MsgpackUseNewTimeFormat: true,
		}),
	}
}

// AppendEntries is the heartbeat, too.
func (t *transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest,
	resp *raft.AppendEntriesResponse,
) error {
	asked := t.clock.Add(1)
	err := t.NetworkTransport.AppendEntries(id, target, args, resp)
	if err == nil && resp.Success && resp.Term == args.Term {
		t.mu.Lock()
		t.contacts[id] = contact{args.Term, asked}
		t.mu.Unlock()
	}
	return err
}

// agreed reports whether the peer answered in our term to a request that was sent after since, a reading of clock.
func (t *transport) agreed(id raft.ServerID, term uint64, since uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	c, ok := t.contacts[id]
	return ok && c.term == term && c.asked > since
}

// stream is what Raft dials and listens on. A connection begins with one line "<to> <from>", both Raft ids: a node
// that came back with an empty disk must not answer for its earlier self, whose votes and log are gone.
type stream struct {
	Stream
	self raft.ServerID
}

var errStranger = errors.New("the connection is for, or from, another one")

// ServerAddr makes the id the address, so that Dial knows whom it must find there.
func (s *stream) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	return raft.ServerAddress(id), nil
}

// Dial connects to the very incarnation.
func (s *stream) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := s.Stream.Dial(ctx, nameOf(raft.ServerID(addr)))
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(timeout))
	if _, err := fmt.Fprintf(conn, "%s %s\n", addr, s.self); err != nil {
		conn.Close()
		return nil, fmt.Errorf("greet %s: %w", addr, err)
	}
	conn.SetDeadline(time.Time{})
	return conn, nil
}

// Accept returns at once; the first read judges the greeting, so that a slow peer holds up nobody.
func (s *stream) Accept() (net.Conn, error) {
	conn, err := s.Stream.Accept()
	if err != nil {
		return nil, err
	}
	return &greeted{Conn: conn, r: bufio.NewReader(conn), self: s.self}, nil
}

// Addr is this node's name.
func (s *stream) Addr() net.Addr { return address(nameOf(s.self)) }

type address core.NodeName

func (address) Network() string  { return "keepone" }
func (a address) String() string { return string(a) }

// greeted is an accepted connection whose greeting is read first.
type greeted struct {
	net.Conn
	r    *bufio.Reader
	self raft.ServerID
	once sync.Once
	err  error
}

func (g *greeted) Read(b []byte) (int, error) {
	g.once.Do(func() { g.err = g.greet() })
	if g.err != nil {
		return 0, g.err
	}
	return g.r.Read(b)
}

func (g *greeted) greet() error {
	line, err := g.r.ReadSlice('\n') // bounded by the buffer
	if err != nil {
		if errors.Is(err, bufio.ErrBufferFull) {
			err = errStranger
		}
		return err
	}
	to, from, ok := strings.Cut(strings.TrimSuffix(string(line), "\n"), " ")
	if !ok || to != string(g.self) {
		return fmt.Errorf("greeting for %.80q: %w: %w", to, errStranger, io.EOF)
	}
	if p, known := g.Conn.(interface{ Peer() core.NodeName }); known && p.Peer() != nameOf(raft.ServerID(from)) {
		return fmt.Errorf("greeting from %.80q over a connection of %s: %w: %w", from, p.Peer(), errStranger, io.EOF)
	}
	return nil
}
