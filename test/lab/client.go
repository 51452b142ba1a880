package lab

import (
	"bufio"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// callBound is what a client waits for one answer: longer than an fsync on memstore by far, shorter than any
	// failover.
	callBound = 300 * time.Millisecond
	// appendPace bounds how often a record is sent.
	appendPace = 10 * time.Millisecond
)

// Client is a user of the service: it stands outside of all nodes, in the room's network, and keeps appending
// numbered records. What was acknowledged must be there for ever (I8).
type Client struct {
	addr string
	stop context.CancelFunc
	done chan struct{}

	numbers *atomic.Uint64 // the lab's: no two clients of one lab use the same

	mu    sync.Mutex
	acked []ack
}

// ack is one acknowledged record.
type ack struct {
	number uint64
	at     time.Time
}

// Client starts appending to the front-end at an address, at once and until Stop.
func (l *Lab) Client(ctx context.Context, address string) *Client {
	ctx, stop := context.WithCancel(ctx)
	c := &Client{addr: address, stop: stop, done: make(chan struct{}), numbers: &l.records}
	go func() {
		defer close(c.done)
		c.run(ctx)
	}()
	return c
}

// Stop ends the appending; what was acknowledged stays known.
func (c *Client) Stop() {
	c.stop()
	<-c.done
}

func (c *Client) run(ctx context.Context) {
	tick := time.NewTicker(appendPace)
	defer tick.Stop()
	var conn *recordConn
	defer func() { conn.close() }()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if conn == nil {
			conn = dialRecords(ctx, c.addr)
		}
		if conn == nil {
			continue
		}
		number := c.numbers.Add(1) // one that got no answer is not used again
		if conn.append(number) != nil {
			conn.close()
			conn = nil
			continue
		}
		c.mu.Lock()
		c.acked = append(c.acked, ack{number, time.Now()})
		c.mu.Unlock()
	}
}

// Acknowledged is how many records were acknowledged so far.
func (c *Client) Acknowledged() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.acked)
}

// Gap is the time without an acknowledgement around a moment.
type Gap struct {
	Last, First time.Time // the last acknowledgement before the moment, the first one after it; zero if there is none
}

// Length is from the last to the first; 0 while one is missing.
func (g Gap) Length() time.Duration {
	if g.Last.IsZero() || g.First.IsZero() {
		return 0
	}
	return g.First.Sub(g.Last)
}

// GapAround finds the longest gap that ends after a moment.
func (c *Client) GapAround(moment time.Time) Gap {
	c.mu.Lock()
	defer c.mu.Unlock()
	var longest, last Gap
	for i, a := range c.acked {
		if a.at.Before(moment) {
			last.Last = a.at
			continue
		}
		g := Gap{First: a.at, Last: last.Last}
		if i > 0 {
			g.Last = c.acked[i-1].at
		}
		if g.Length() > longest.Length() {
			longest = g
		}
	}
	if longest.First.IsZero() {
		return last
	}
	return longest
}

// AwaitAck waits for an acknowledgement later than a moment and returns its time.
func (c *Client) AwaitAck(ctx context.Context, after time.Time, bound time.Duration) (time.Time, error) {
	var at time.Time
	err := poll(ctx, bound, "an acknowledged record", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		i := slices.IndexFunc(c.acked, func(a ack) bool { return a.at.After(after) })
		if i >= 0 {
			at = c.acked[i].at
		}
		return i >= 0
	})
	return at, err
}

// Verdict compares what was acknowledged with what is there.
type Verdict struct {
	Acknowledged, Present int
	Missing               []uint64
	Extra                 []uint64 // present, never acknowledged: allowed, an answer may have been lost
}

func (v Verdict) String() string {
	return fmt.Sprintf("acknowledged=%d present=%d missing=%d", v.Acknowledged, v.Present, len(v.Missing))
}

// Verify reads every record back from the front-end.
func (c *Client) Verify(ctx context.Context) (Verdict, error) {
	there, err := ReadRecords(ctx, c.addr)
	if err != nil {
		return Verdict{}, err
	}
	set := make(map[uint64]bool, len(there))
	for _, n := range there {
		set[n] = true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	v := Verdict{Acknowledged: len(c.acked)}
	for _, a := range c.acked {
		if !set[a.number] {
			v.Missing = append(v.Missing, a.number)
			continue
		}
		v.Present++
		delete(set, a.number)
	}
	for n := range set {
		v.Extra = append(v.Extra, n)
	}
	slices.Sort(v.Extra)
	return v, nil
}

// recordConn is a connection to the front-end's records.
type recordConn struct {
	conn net.Conn
	in   *bufio.Reader
}

func dialRecords(ctx context.Context, addr string) *recordConn {
	dialer := net.Dialer{Timeout: callBound}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(addr, "2634"))
	if err != nil {
		return nil
	}
	return &recordConn{conn: conn, in: bufio.NewReader(conn)}
}

func (r *recordConn) close() {
	if r != nil {
		r.conn.Close()
	}
}

func (r *recordConn) append(n uint64) error {
	answer, err := r.ask(fmt.Sprintf("append %d", n))
	if err == nil && answer != n {
		err = fmt.Errorf("append %d: answered %d", n, answer)
	}
	return err
}

// count asks how many records there are.
func (r *recordConn) count() (int, error) {
	n, err := r.ask("count")
	return int(n), err
}

// ask sends one line and expects "ok" and a number.
func (r *recordConn) ask(words string) (n uint64, err error) {
	_ = r.conn.SetDeadline(time.Now().Add(callBound))
	if _, err := fmt.Fprintln(r.conn, words); err != nil {
		return 0, err
	}
	line, err := r.in.ReadString('\n')
	if err != nil {
		return 0, err
	}
	if _, err := fmt.Sscanf(line, "ok %d\n", &n); err != nil {
		return 0, fmt.Errorf("%s: %s", words, strings.TrimSpace(line))
	}
	return n, nil
}

// ReadRecords lists what a front-end has.
func ReadRecords(ctx context.Context, addr string) ([]uint64, error) {
	// An old holder's kernel may still take a connection now and then, and never answer it: another one is tried.
	var all []uint64
	var err error
	for limit := time.Now().Add(10 * time.Second); time.Now().Before(limit) && ctx.Err() == nil; {
		if all, err = readRecords(ctx, addr); err == nil {
			return all, nil
		}
	}
	return nil, fmt.Errorf("read records: %w", err)
}

func readRecords(ctx context.Context, addr string) ([]uint64, error) {
	conn := dialRecords(ctx, addr)
	if conn == nil {
		return nil, fmt.Errorf("%s does not answer", addr)
	}
	defer conn.close()
	return conn.list()
}

// list asks for every record there is.
func (r *recordConn) list() ([]uint64, error) {
	_ = r.conn.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := io.WriteString(r.conn, "list\n"); err != nil {
		return nil, err
	}
	var all []uint64
	for {
		line, err := r.in.ReadString('\n')
		if err != nil {
			return nil, err
		}
		if line == "end\n" {
			return all, nil
		}
		if strings.HasPrefix(line, "error ") {
			return nil, errors.New(strings.TrimSpace(line))
		}
		n, err := strconv.ParseUint(strings.TrimSpace(line), 10, 64)
		if err != nil {
			continue // a line torn by a power cut was never acknowledged
		}
		all = append(all, n)
	}
}

// AskVersion calls one.system.version once and returns the version.
func AskVersion(ctx context.Context, addr, session string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callBound)
	defer cancel()
	var name strings.Builder
	_ = xml.EscapeText(&name, []byte(session)) // a strings.Builder takes everything
	body := "<?xml version=\"1.0\"?><methodCall><methodName>one.system.version</methodName><params><param><value><string>" +
		name.String() + "</string></value></param></params></methodCall>"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+net.JoinHostPort(addr, "2633")+"/RPC2", strings.NewReader(body))
	if err != nil {
		return "", fmt.Errorf("ask version: %w", err)
	}
	req.Header.Set("Content-Type", "text/xml")
	req.Close = true // a new connection each time: an old one would lead to a dead holder
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return "", fmt.Errorf("ask version: %w", err)
	}
	defer resp.Body.Close()
	return parseVersion(io.LimitReader(resp.Body, 1<<20))
}

func parseVersion(r io.Reader) (string, error) {
	var answer struct {
		OK      string `xml:"params>param>value>array>data>value>boolean"`
		Version string `xml:"params>param>value>array>data>value>string"`
	}
	if err := xml.NewDecoder(r).Decode(&answer); err != nil {
		return "", fmt.Errorf("parse version: %w", err)
	}
	if answer.OK != "1" {
		return "", errors.New("ask version: " + answer.Version)
	}
	return answer.Version, nil
}

// AwaitAnswer asks one.system.version until it is answered and returns when that was.
func AwaitAnswer(ctx context.Context, addr, session string, bound time.Duration) (time.Time, error) {
	var last error
	err := poll(ctx, bound, "the front-end at "+addr, func() bool {
		_, last = AskVersion(ctx, addr, session)
		return last == nil
	})
	if err != nil {
		return time.Time{}, errors.Join(err, last)
	}
	return time.Now(), nil
}
