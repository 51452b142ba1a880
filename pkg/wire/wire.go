// Package wire encodes what Raft keeps: entries of its log and snapshots of the State. It is strict: what this
// version does not know is an error, never skipped, since a member that applied less than the others would no
// longer agree with them.
package wire

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

// Bounds of what is encoded and decoded. An entry may carry the whole cluster document; a snapshot the history.
const (
	MaxEntry    = 1 << 20
	MaxSnapshot = 64 << 20
)

const (
	entryVersion    = 1
	snapshotVersion = 1
)

// Errors of decoding. ErrUnknownKind and ErrVersion mean that a newer member wrote it: an older one must halt.
var (
	ErrUnknownKind = errors.New("unknown kind of command")
	ErrVersion     = errors.New("unknown version")
	ErrMalformed   = errors.New("malformed")
	ErrTooLarge    = errors.New("too large")
	ErrChecksum    = errors.New("checksum does not match")
)

type entry struct {
	Kind string          `json:"kind"`
	At   core.Time       `json:"at"`
	Wall time.Time       `json:"wall"`
	By   core.NodeName   `json:"by"`
	Body json.RawMessage `json:"body"`
}

type command struct {
	Kind string          `json:"kind"`
	Body json.RawMessage `json:"body"`
}

// EncodeEntry returns e as DecodeEntry reads it: a version byte, then JSON. The wall clock is kept in UTC.
func EncodeEntry(e core.Entry) ([]byte, error) {
	if e.Command == nil {
		return nil, fmt.Errorf("encode entry: no command: %w", ErrMalformed)
	}
	body, err := json.Marshal(e.Command)
	if err != nil {
		return nil, fmt.Errorf("encode entry %s: %w", e.Kind(), err)
	}
	out, err := json.Marshal(entry{e.Kind(), e.At, e.Wall.UTC().Round(0), e.By, body})
	if err != nil {
		return nil, fmt.Errorf("encode entry %s: %w", e.Kind(), err)
	}
	if len(out)+1 > MaxEntry {
		return nil, fmt.Errorf("encode entry %s of %d bytes: %w", e.Kind(), len(out), ErrTooLarge)
	}
	return append([]byte{entryVersion}, out...), nil
}

// DecodeEntry reads what EncodeEntry wrote. It never panics; every error wraps one of this package's.
func DecodeEntry(b []byte) (core.Entry, error) {
	switch {
	case len(b) > MaxEntry:
		return core.Entry{}, fmt.Errorf("decode entry of %d bytes: %w", len(b), ErrTooLarge)
	case len(b) == 0:
		return core.Entry{}, fmt.Errorf("decode entry: empty: %w", ErrMalformed)
	case b[0] != entryVersion:
		return core.Entry{}, fmt.Errorf("decode entry of version %d: %w", b[0], ErrVersion)
	}
	var raw entry
	if err := strict(b[1:], &raw); err != nil {
		return core.Entry{}, fmt.Errorf("decode entry: %w", err)
	}
	c, err := decodeBody(raw.Kind, raw.Body)
	if err != nil {
		return core.Entry{}, fmt.Errorf("decode entry: %w", err)
	}
	return core.Entry{At: raw.At, Wall: raw.Wall.UTC(), By: raw.By, Command: c}, nil
}

// EncodeCommand returns c for a forwarded proposal; it is JSON.
func EncodeCommand(c core.Command) (json.RawMessage, error) {
	if c == nil {
		return nil, fmt.Errorf("encode command: none: %w", ErrMalformed)
	}
	body, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode command %s: %w", c.Kind(), err)
	}
	out, err := json.Marshal(command{c.Kind(), body})
	if err != nil {
		return nil, fmt.Errorf("encode command %s: %w", c.Kind(), err)
	}
	if len(out) > MaxEntry {
		return nil, fmt.Errorf("encode command %s of %d bytes: %w", c.Kind(), len(out), ErrTooLarge)
	}
	return out, nil
}

// DecodeCommand reads what EncodeCommand wrote, as strictly as DecodeEntry.
func DecodeCommand(b json.RawMessage) (core.Command, error) {
	if len(b) > MaxEntry {
		return nil, fmt.Errorf("decode command of %d bytes: %w", len(b), ErrTooLarge)
	}
	var raw command
	if err := strict(b, &raw); err != nil {
		return nil, fmt.Errorf("decode command: %w", err)
	}
	c, err := decodeBody(raw.Kind, raw.Body)
	if err != nil {
		return nil, fmt.Errorf("decode command: %w", err)
	}
	return c, nil
}

func decodeBody(kind string, body json.RawMessage) (core.Command, error) {
	c, ok := core.NewCommand(kind)
	if !ok {
		return nil, fmt.Errorf("%q: %w", kind, ErrUnknownKind)
	}
	if err := strict(body, c); err != nil {
		return nil, fmt.Errorf("%s: %w", kind, err)
	}
	return value(c), nil
}

// value takes a command out from behind its pointer, so that what was encoded and what is decoded are equal.
func value(c core.Command) core.Command {
	if v := reflect.ValueOf(c); v.Kind() == reflect.Pointer {
		if plain, ok := v.Elem().Interface().(core.Command); ok {
			return plain
		}
	}
	return c
}

// strict decodes exactly one JSON object into v: no unknown field, nothing behind it.
func strict(b []byte, v any) error {
	if b = bytes.TrimLeft(b, " \t\r\n"); len(b) == 0 || b[0] != '{' {
		return fmt.Errorf("no JSON object: %w", ErrMalformed) // null would leave v at zero, unnoticed
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("data after the end: %w", ErrMalformed)
	}
	return nil
}

// A snapshot is a magic word, a version byte, the SHA-256 of the rest, and JSON.
const (
	snapshotMagic  = "keepone-state"
	snapshotHeader = len(snapshotMagic) + 1 + sha256.Size
)

// EncodeSnapshot returns s as DecodeSnapshot reads it.
func EncodeSnapshot(s core.State) ([]byte, error) {
	body, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode snapshot: %w", err)
	}
	if len(body)+snapshotHeader > MaxSnapshot {
		return nil, fmt.Errorf("encode snapshot of %d bytes: %w", len(body), ErrTooLarge)
	}
	sum := sha256.Sum256(body)
	out := make([]byte, 0, snapshotHeader+len(body))
	out = append(out, snapshotMagic...)
	out = append(out, snapshotVersion)
	out = append(out, sum[:]...)
	return append(out, body...), nil
}

// DecodeSnapshot reads what EncodeSnapshot wrote. It never panics; every error wraps one of this package's.
func DecodeSnapshot(b []byte) (core.State, error) {
	switch {
	case len(b) > MaxSnapshot:
		return core.State{}, fmt.Errorf("decode snapshot of %d bytes: %w", len(b), ErrTooLarge)
	case len(b) < snapshotHeader || string(b[:len(snapshotMagic)]) != snapshotMagic:
		return core.State{}, fmt.Errorf("decode snapshot: no header: %w", ErrMalformed)
	case b[len(snapshotMagic)] != snapshotVersion:
		return core.State{}, fmt.Errorf("decode snapshot of version %d: %w", b[len(snapshotMagic)], ErrVersion)
	}
	body := b[snapshotHeader:]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], b[len(snapshotMagic)+1:snapshotHeader]) {
		return core.State{}, fmt.Errorf("decode snapshot: %w", ErrChecksum)
	}
	var s core.State
	if err := strict(body, &s); err != nil {
		return core.State{}, fmt.Errorf("decode snapshot: %w", err)
	}
	return s, nil
}
