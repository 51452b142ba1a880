package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// records is the file of acknowledged numbers, one a line.
type records struct {
	mu     sync.Mutex
	file   *os.File
	broken error         // the first failed write: what is in memory is no longer what is on disk, so nothing is answered
	ended  chan struct{} // closed with it
}

func openRecords(path string) (*records, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open records: %w", err)
	}
	r := &records{file: f, ended: make(chan struct{})}
	if err := r.mend(); err != nil {
		return nil, errors.Join(fmt.Errorf("mend records: %w", err), f.Close())
	}
	return r, nil
}

// mend cuts a torn tail off: a line that power or storage took away in the middle was never acknowledged, and what comes
// behind it would be a part of it. What is whole may be in memory only yet, and is on disk before anybody is told of it.
func (r *records) mend() error {
	text, err := r.read()
	if err != nil {
		return err
	}
	if whole := strings.LastIndexByte(text, '\n') + 1; whole < len(text) {
		if err := r.file.Truncate(int64(whole)); err != nil {
			return err
		}
	}
	return r.file.Sync()
}

func (r *records) close() { _ = r.file.Close() }

// append writes a number and returns when it is on disk (I8).
func (r *records) append(n uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.broken != nil {
		return r.broken
	}
	_, err := fmt.Fprintf(r.file, "%d\n", n)
	if err == nil {
		err = r.file.Sync()
	}
	if err != nil {
		r.broken = err
		close(r.ended)
	}
	return err
}

func (r *records) read() (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.broken != nil {
		return "", r.broken
	}
	info, err := r.file.Stat()
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(io.NewSectionReader(r.file, 0, info.Size()))
	return string(text), err
}

func (r *records) serve(listener net.Listener) error {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		go r.talk(conn)
	}
}

// talk answers one client: "append N" → "ok N"; "count" → "ok COUNT"; "list" → the numbers, then "end".
func (r *records) talk(conn net.Conn) {
	defer conn.Close()
	lines := bufio.NewScanner(conn)
	for {
		_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
		if !lines.Scan() {
			return
		}
		if _, err := io.WriteString(conn, r.answer(strings.Fields(lines.Text()))); err != nil {
			return
		}
	}
}

func (r *records) answer(words []string) string {
	switch {
	case len(words) == 2 && words[0] == "append":
		n, err := strconv.ParseUint(words[1], 10, 64)
		if err != nil {
			return "error " + err.Error() + "\n"
		}
		if err := r.append(n); err != nil {
			return "error " + err.Error() + "\n"
		}
		return fmt.Sprintf("ok %d\n", n)
	case len(words) == 1 && (words[0] == "list" || words[0] == "count"):
		text, err := r.read()
		if err != nil {
			return "error " + err.Error() + "\n"
		}
		if words[0] == "count" {
			return fmt.Sprintf("ok %d\n", strings.Count(text, "\n"))
		}
		return text + "end\n"
	default:
		return "error unknown command\n"
	}
}
