package main

import (
	"bufio"
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
	mu   sync.Mutex
	file *os.File
}

func openRecords(path string) (*records, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open records: %w", err)
	}
	return &records{file: f}, nil
}

func (r *records) close() { _ = r.file.Close() }

// append writes a number and returns when it is on disk (I8).
func (r *records) append(n uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := fmt.Fprintf(r.file, "%d\n", n); err != nil {
		return err
	}
	return r.file.Sync()
}

func (r *records) read() (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
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
