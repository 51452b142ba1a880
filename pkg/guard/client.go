package guard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/core"
)

// ErrRefused says that the guard did not understand, or would not.
var ErrRefused = errors.New("guard refused")

// callLimit bounds a call whose context does not: the guard answers in less than a millisecond.
const callLimit = time.Second

// Client asks the guard of this node over guard.sock. Each call is bounded by its context, and by callLimit. It may
// be used by several goroutines; after an error it goes on working once a guard is there again.
type Client struct {
	path string
	mu   sync.Mutex
	conn *os.File
	id   uint64
}

// Dial connects to the guard of a run directory. An error says that no guard is there.
func Dial(runDir string) (*Client, error) {
	c := &Client{path: filepath.Join(runDir, controlName)}
	if err := c.connect(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Client) connect() error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open socket to guard: %w", err)
	}
	err = unix.Bind(fd, &unix.SockaddrUnix{}) // the kernel picks an abstract name, for the answer
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: c.path})
	}
	if err != nil {
		_ = unix.Close(fd)
		return fmt.Errorf("reach guard at %s: %w", c.path, err)
	}
	c.conn = os.NewFile(uintptr(fd), c.path)
	return nil
}

// Lease returns until when this instance may run service at epoch; ok is false if there is no lease or it ended.
// In an accepted maintenance it is the end of that, if later.
func (c *Client) Lease(ctx context.Context, service core.ServiceName, epoch core.Epoch) (until boottime.Time, ok bool, err error) {
	if strings.ContainsAny(string(service), " \n") || service == "" {
		return 0, false, fmt.Errorf("ask guard for lease: %w: service %q", ErrRefused, service)
	}
	answer, err := c.call(ctx, fmt.Sprintf("lease %s %d", service, epoch))
	if err != nil {
		return 0, false, fmt.Errorf("ask guard for lease: %w", err)
	}
	if answer == "none" {
		return 0, false, nil
	}
	nanos, err := strconv.ParseInt(strings.TrimPrefix(answer, "until "), 10, 64)
	if err != nil {
		return 0, false, fmt.Errorf("ask guard for lease: %w: %s", ErrRefused, answer)
	}
	return boottime.Time(nanos), true, nil
}

// Healthy tells the guard that the daemon is well. The daemon calls it every second or more often.
func (c *Client) Healthy(ctx context.Context) error {
	answer, err := c.call(ctx, "healthy")
	if err == nil && answer != "ok" {
		err = fmt.Errorf("%w: %s", ErrRefused, answer)
	}
	if err != nil {
		return fmt.Errorf("poke guard: %w", err)
	}
	return nil
}

// Status returns what the guard knows, for a person.
func (c *Client) Status(ctx context.Context) (Status, error) {
	answer, err := c.call(ctx, "status")
	if err != nil {
		return Status{}, fmt.Errorf("ask guard for status: %w", err)
	}
	var st Status
	text, ok := strings.CutPrefix(answer, "status ")
	if !ok {
		return Status{}, fmt.Errorf("ask guard for status: %w: %s", ErrRefused, answer)
	}
	if err := json.Unmarshal([]byte(text), &st); err != nil {
		return Status{}, fmt.Errorf("decode status of guard: %w", err)
	}
	return st, nil
}

// Close ends the connection.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		return nil
	}
	err := c.conn.Close()
	c.conn = nil
	return err
}

// call sends one request and waits for its own answer; one that comes late for an earlier request is passed over.
func (c *Client) call(ctx context.Context, request string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if c.conn == nil {
		if err := c.connect(); err != nil {
			return "", err
		}
	}
	answer, err := c.exchange(ctx, request)
	if err != nil {
		_ = c.conn.Close() // the guard may have been replaced: the next call connects again
		c.conn = nil
	}
	return answer, err
}

func (c *Client) exchange(ctx context.Context, request string) (string, error) {
	deadline := time.Now().Add(callLimit)
	if by, ok := ctx.Deadline(); ok && by.Before(deadline) {
		deadline = by
	}
	if err := c.conn.SetDeadline(deadline); err != nil {
		return "", err
	}
	conn := c.conn
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	c.id++
	id := strconv.FormatUint(c.id, 10) + " "
	if _, err := c.conn.WriteString(id + request); err != nil {
		return "", err
	}
	buf := make([]byte, maxAnswer)
	for {
		n, err := c.conn.Read(buf)
		if err != nil {
			return "", err
		}
		if answer, ours := strings.CutPrefix(string(buf[:n]), id); ours {
			return answer, nil
		}
	}
}
