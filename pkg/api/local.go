package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/user"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Group may read over the local socket; root may change.
const Group = "keepone"

const (
	maxLine         = 4 << 20 // a container's document with room to spare
	requestTimeout  = 5 * time.Second
	maxLocal        = 128
	dialLocalLimit  = 2 * time.Second
	firstLineBuffer = 4 << 10
)

// Access is what a caller of the local socket may do.
type Access uint8

// The accesses.
const (
	AccessNone Access = iota
	AccessRead
	AccessChange
)

// Caller is who is at the other end of the local socket, as the kernel says (SO_PEERCRED).
type Caller struct {
	PID      int
	UID, GID uint32
	Access   Access
}

// Name is the caller in words, for the history.
func (c Caller) Name() string {
	if u, err := user.LookupId(strconv.FormatUint(uint64(c.UID), 10)); err == nil {
		return u.Username
	}
	return fmt.Sprintf("uid %d", c.UID)
}

// LocalHandler serves one method. It may send any number of lines while it works, and returns the last one. ctx ends
// when the caller hangs up or the daemon stops: an operation that is to go on after ctrl-C must not hang on it.
type LocalHandler func(ctx context.Context, c Caller, body json.RawMessage, send func(any) error) (any, error)

type localMethod struct {
	need   Access
	handle LocalHandler
}

// line is one line of an answer. The last one has Result or Error.
type line struct {
	Event  json.RawMessage `json:"event,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  *Error          `json:"error,omitempty"`
}

type localRequest struct {
	Method string          `json:"method"`
	Body   json.RawMessage `json:"body,omitempty"`
}

// Local serves the daemon's socket: one request a connection, JSON lines.
type Local struct {
	log     *slog.Logger
	methods map[string]localMethod
	access  func(uid uint32) Access

	mu     sync.Mutex
	l      net.Listener
	ctx    context.Context
	cancel context.CancelFunc
	slots  chan struct{}
	wait   sync.WaitGroup
}

// NewLocal returns a server that serves nothing yet.
func NewLocal(log *slog.Logger) *Local {
	ctx, cancel := context.WithCancel(context.Background())
	return &Local{
		log: log, methods: map[string]localMethod{}, ctx: ctx, cancel: cancel,
		slots: make(chan struct{}, maxLocal), access: accessOf,
	}
}

// accessOf trusts the socket's mode for readers: whoever is not root and got in is in the group.
func accessOf(uid uint32) Access {
	if uid == 0 || int(uid) == os.Geteuid() {
		return AccessChange
	}
	return AccessRead
}

// Handle serves a method for callers with at least the access named. Call it before Listen.
func (s *Local) Handle(method string, need Access, h LocalHandler) {
	s.methods[method] = localMethod{need, h}
}

// Listen opens the socket: 0660 for root and the group keepone, or 0600 where there is no such group. A socket that a
// dead daemon left is replaced; a living daemon's is not.
func (s *Local) Listen(path string) error {
	if c, err := net.DialTimeout("unix", path, dialLocalLimit); err == nil {
		c.Close()
		return fmt.Errorf("listen on %s: another keeponed answers there", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("listen on %s: %w", path, err)
	}
	old := unix.Umask(0o177) // between bind and chmod nobody else may get in
	l, err := net.Listen("unix", path)
	unix.Umask(old)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", path, err)
	}
	if g, err := user.LookupGroup(Group); err == nil {
		gid, _ := strconv.Atoi(g.Gid)
		if err := errors.Join(os.Chown(path, -1, gid), os.Chmod(path, 0o660)); err != nil {
			l.Close()
			return fmt.Errorf("open %s to group %s: %w", path, Group, err)
		}
	}
	s.mu.Lock()
	s.l = l
	s.mu.Unlock()
	s.wait.Add(1)
	go s.accept(l)
	return nil
}

func (s *Local) accept(l net.Listener) {
	defer s.wait.Done()
	for s.ctx.Err() == nil {
		conn, err := l.Accept()
		if err != nil {
			if s.ctx.Err() == nil {
				s.log.Warn("accept on local socket", "error", err)
				select {
				case <-time.After(100 * time.Millisecond): // out of files: let some go
				case <-s.ctx.Done():
				}
			}
			continue
		}
		select {
		case s.slots <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		s.wait.Add(1)
		go func() {
			defer s.wait.Done()
			defer func() { <-s.slots }()
			defer conn.Close()
			s.serve(conn.(*net.UnixConn))
		}()
	}
}

// serve reads one request and answers it.
func (s *Local) serve(conn *net.UnixConn) {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var writing sync.Mutex
	write := func(l line) error {
		text, err := json.Marshal(l)
		if err != nil {
			return fmt.Errorf("encode answer: %w", err)
		}
		writing.Lock()
		defer writing.Unlock()
		conn.SetWriteDeadline(time.Now().Add(writeTimeout))
		_, err = conn.Write(append(text, '\n'))
		return err
	}
	conn.SetReadDeadline(time.Now().Add(requestTimeout))
	r := bufio.NewReaderSize(io.LimitReader(conn, maxLine), firstLineBuffer)
	text, err := r.ReadBytes('\n')
	if err != nil {
		return // hung up, or too much
	}
	conn.SetReadDeadline(time.Time{})
	var wait sync.WaitGroup
	defer wait.Wait()
	wait.Add(1)
	go func() { // nothing more is to come: the next read tells that the caller hung up
		defer wait.Done()
		r.ReadByte()
		cancel()
	}()
	result, err := s.run(ctx, conn, text, func(event any) error {
		raw, err := json.Marshal(event)
		if err != nil {
			return fmt.Errorf("encode event: %w", err)
		}
		return write(line{Event: raw})
	})
	if err != nil {
		write(line{Error: asError(err)})
	} else {
		write(line{Result: result})
	}
	cancel()
}

func (s *Local) run(ctx context.Context, conn *net.UnixConn, text []byte, send func(any) error) (json.RawMessage, error) {
	var req localRequest
	if err := json.Unmarshal(text, &req); err != nil {
		return nil, Refuse("request is not JSON: %v", err)
	}
	m, ok := s.methods[req.Method]
	if !ok {
		return nil, Refuse("keeponed does not know %q: command and daemon are of different versions", req.Method)
	}
	caller, err := callerOf(conn)
	if err != nil {
		return nil, err
	}
	if caller.Access = s.access(caller.UID); caller.Access < m.need {
		return nil, Refuse("%s may not do this: only root may change the cluster; members of group %s may look", caller.Name(), Group)
	}
	result, err := m.handle(ctx, caller, req.Body, send)
	if err != nil {
		return nil, err
	}
	return json.Marshal(result)
}

func callerOf(conn *net.UnixConn) (Caller, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return Caller{}, fmt.Errorf("ask who calls: %w", err)
	}
	var cred *unix.Ucred
	var inner error
	if err := raw.Control(func(fd uintptr) {
		cred, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return Caller{}, fmt.Errorf("ask who calls: %w", err)
	}
	if inner != nil {
		return Caller{}, fmt.Errorf("ask who calls: %w", inner)
	}
	return Caller{PID: int(cred.Pid), UID: cred.Uid, GID: cred.Gid}, nil
}

// Close stops listening, ends the handlers' contexts and waits for them.
func (s *Local) Close() error {
	s.cancel()
	s.mu.Lock()
	l := s.l
	s.mu.Unlock()
	var err error
	if l != nil {
		err = l.Close()
	}
	s.wait.Wait()
	return err
}
