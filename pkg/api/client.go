package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Errors of the local client. Their words tell a person what to do next.
var (
	ErrNoDaemon = errors.New("keeponed does not answer on this node; see: systemctl status keeponed, journalctl -u keeponed")
	ErrNoAccess = errors.New("only root may use keeponed's socket, and members of group keepone to look: try sudo, or join the group")
)

// CallLocal asks the daemon behind the socket at path. Each line that comes before the last is handed to onEvent (may be
// nil); the last is decoded into resp (may be nil). Only the connecting is bounded here: ctx bounds the rest, and
// ending it leaves the operation going. Errors: ErrNoDaemon, ErrNoAccess, or *Error with the handler's code;
// CodeUnknown if the daemon went away before the last line.
func CallLocal(ctx context.Context, path, method string, req any, onEvent func(json.RawMessage), resp any) error {
	body, err := json.Marshal(req)
	if err != nil {
		return fmt.Errorf("ask keeponed: encode: %w", err)
	}
	text, err := json.Marshal(localRequest{Method: method, Body: body})
	if err != nil {
		return fmt.Errorf("ask keeponed: encode: %w", err)
	}
	d := net.Dialer{Timeout: dialLocalLimit}
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return dialError(path, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err := conn.Write(append(text, '\n')); err != nil {
		return lostLocal(ctx, err)
	}
	lines := bufio.NewReader(io.LimitReader(conn, 1<<30))
	for {
		text, err := lines.ReadBytes('\n')
		if err != nil {
			return lostLocal(ctx, err)
		}
		var l line
		if err := json.Unmarshal(text, &l); err != nil {
			return fmt.Errorf("ask keeponed: decode answer: %w", err)
		}
		switch {
		case l.Error != nil:
			return l.Error
		case l.Event != nil:
			if onEvent != nil {
				onEvent(l.Event)
			}
		case resp == nil:
			return nil
		default:
			if err := json.Unmarshal(l.Result, resp); err != nil {
				return fmt.Errorf("ask keeponed: decode answer: %w", err)
			}
			return nil
		}
	}
}

func dialError(path string, err error) error {
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("open %s: %w", path, ErrNoAccess)
	}
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) || os.IsTimeout(err) || errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("open %s: %w: %w", path, ErrNoDaemon, err)
	}
	return fmt.Errorf("open %s: %w", path, err)
}

func lostLocal(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return &Error{Code: CodeUnknown, Message: fmt.Sprintf("no answer from keeponed (%v); what was asked may go on: see keepone status", err)}
}
