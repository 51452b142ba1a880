// Package api is how processes speak with keepone: node with node over mutual TLS (Raft, node protocol and join on
// one port), and operator or agent with the daemon over a unix socket. It carries requests and answers; what they
// mean is the app's. No net/http: an agent's request must cost milliseconds.
package api

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

// Port is where every node listens, on each link address.
const Port = 7480

// Bounds.
const (
	maxFrame         = 8 << 20 // the State with its whole history is below 1 MiB
	handshakeTimeout = 5 * time.Second
	writeTimeout     = 5 * time.Second
	maxInFlight      = 64 // requests of one peer that are served at once
)

// Code sorts errors that cross a connection.
type Code string

// The codes. Only Unknown leaves open whether the request had its effect.
const (
	CodeRefused   Code = "refused"    // certainly not done, and asking again is of no use
	CodeNotLeader Code = "not-leader" // certainly not done; Leader says whom to ask, if known
	CodeNoQuorum  Code = "no-quorum"  // certainly not done
	CodeUnknown   Code = "unknown"    // may have been done
	CodeInternal  Code = "internal"   // the handler failed
)

// Error is an error that crossed, or is to cross, a connection.
type Error struct {
	Code    Code          `json:"code"`
	Message string        `json:"message"`
	Leader  core.NodeName `json:"leader,omitempty"`
}

func (e *Error) Error() string { return e.Message }

// NotSent reports whether the request certainly had no effect.
func (e *Error) NotSent() bool { return e.Code != CodeUnknown && e.Code != CodeInternal }

// Refuse makes an error with the code refused.
func Refuse(format string, args ...any) *Error {
	return &Error{Code: CodeRefused, Message: fmt.Sprintf(format, args...)}
}

// CodeOf returns the code of an error of this package, internal for any other.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	var u *UnreachableError
	if errors.As(err, &u) {
		return CodeNoQuorum
	}
	return CodeInternal
}

// asError turns what a handler returned into what crosses the connection, with the whole of its words.
func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return &Error{Code: e.Code, Message: err.Error(), Leader: e.Leader}
	}
	return &Error{Code: CodeInternal, Message: err.Error()}
}

// UnreachableError says that a node could not be spoken to: the request was certainly not sent.
type UnreachableError struct {
	Node core.NodeName
	Err  error
}

func (e *UnreachableError) Error() string { return fmt.Sprintf("reach node %s: %v", e.Node, e.Err) }

func (e *UnreachableError) Unwrap() error { return e.Err }

// NotSent reports that the request certainly had no effect.
func (e *UnreachableError) NotSent() bool { return true }

// frame is one message of the node protocol: a length in 4 bytes, then JSON.
type frame struct {
	ID      uint64          `json:"id"`
	Method  string          `json:"method,omitempty"`  // of a request
	Timeout time.Duration   `json:"timeout,omitempty"` // what is left of the caller's deadline; 0: none
	Body    json.RawMessage `json:"body,omitempty"`
	Error   *Error          `json:"error,omitempty"` // of an answer
}

func writeFrame(w io.Writer, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode frame: %w", err)
	}
	if len(body) > maxFrame {
		return fmt.Errorf("encode frame: %d bytes are too many", len(body))
	}
	buf := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body)))
	if _, err := w.Write(append(buf, body...)); err != nil {
		return fmt.Errorf("write frame: %w", err)
	}
	return nil
}

func readFrame(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return fmt.Errorf("read frame: %w", err)
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > maxFrame {
		return fmt.Errorf("read frame: %d bytes are too many", size)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return fmt.Errorf("read frame: %w", err)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("read frame: %w", err)
	}
	return nil
}
