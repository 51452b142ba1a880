package lab

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"time"
)

// writersConf has an OSD log every message that it sends, to its standard error: the lab reads it from there.
const writersConf = "debug_ms = 1/1\nlog_to_stderr = true\nerr_to_stderr = true\nlog_file =\n"

// Writers follows which Ceph clients write to images' data, by the OSDs' own word: each answer that a write is done names
// the client's address. It is sure only with a single OSD, whose answers are in one order.
type Writers struct {
	mu    sync.Mutex
	turns []Turn
	twice []Turn
}

// Turn is a row of writes to one image by one client.
type Turn struct {
	Image  string // Ceph's id of it
	Client string // IP:0/NONCE
	From   time.Time
	Writes int
}

// Turns are all so far, in order, and those of clients that had written before another one did: two writers.
func (l *Lab) Turns() (all, again []Turn) {
	l.writers.mu.Lock()
	defer l.writers.mu.Unlock()
	return append([]Turn(nil), l.writers.turns...), append([]Turn(nil), l.writers.twice...)
}

// reply is an OSD's answer to operations on a data object, as debug_ms logs it: client, image, operations, result.
var reply = regexp.MustCompile(`--> (?:\[?v\d:)?([0-9a-f.:]+/\d+)[^ ]* -- osd_op_reply\(\d+ rbd_data\.([0-9a-f]+)\.[0-9a-f]+ \[(.*)\] v\S+ uv\S+ .*? = (-?\d+)`)

// writes are the operations that change an object, as the log names them.
var writes = []string{"write ", "writefull ", "writesame ", "zero ", "truncate ", "delete", "append ", "create"}

// note takes one line of an OSD's log, and reports whether it is the messenger's.
func (w *Writers) note(line []byte, now time.Time) bool {
	if !bytes.Contains(line, []byte(" 1 --")) {
		return false
	}
	if !bytes.Contains(line, []byte("osd_op_reply(")) {
		return true
	}
	m := reply.FindSubmatch(line)
	if m == nil || string(m[4]) != "0" {
		return true
	}
	for _, op := range writes {
		if strings.Contains(string(m[3]), op) {
			w.wrote(string(m[2]), string(m[1]), now)
			break
		}
	}
	return true
}

func (w *Writers) wrote(image, client string, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := len(w.turns) - 1; i >= 0; i-- {
		last := &w.turns[i]
		if last.Image != image {
			continue
		}
		if last.Client == client {
			last.Writes++
			return
		}
		break
	}
	turn := Turn{Image: image, Client: client, From: now, Writes: 1}
	for _, t := range w.turns {
		if t.Image == image && t.Client == client {
			w.twice = append(w.twice, turn)
			break
		}
	}
	w.turns = append(w.turns, turn)
}

// lineReader is an OSD's standard error: what is not the messenger's goes on to rest, the OSD's log.
type lineReader struct {
	writers *Writers
	rest    io.Writer
	part    []byte
}

func (r *lineReader) Write(p []byte) (int, error) {
	r.part = append(r.part, p...)
	for {
		line, rest, found := bytes.Cut(r.part, []byte("\n"))
		if !found {
			return len(p), nil
		}
		if !r.writers.note(line, time.Now()) {
			fmt.Fprintf(r.rest, "%s\n", line)
		}
		r.part = rest
	}
}
