// Package drive runs other programs for the drivers below it. It is the only place that does.
package drive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	// outputLimit is what is kept of a program's output: enough for an error's words, no matter what it prints.
	outputLimit = 64 << 10
	// killGrace is how long a killed program may take to be gone. One that hangs in the kernel never is, and
	// its caller must not hang with it.
	killGrace = 2 * time.Second
)

// Error says which program failed, how, and in its own words.
type Error struct {
	Program string
	Code    int // exit code, -1 if it has none: not started, killed, or not ended in the bound
	Output  string
	Err     error
}

func (e *Error) Error() string {
	words := lastLines(e.Output, 3)
	if words == "" {
		return fmt.Sprintf("run %s: %v", e.Program, e.Err)
	}
	return fmt.Sprintf("run %s: %v: %s", e.Program, e.Err, words)
}

func (e *Error) Unwrap() error { return e.Err }

// Run runs a program without a shell and returns what it printed on both outputs, the first 64 KiB. It returns
// within ctx and a short grace, also when the program can't be killed. Any error is an *Error.
func Run(ctx context.Context, argv ...string) ([]byte, error) {
	if len(argv) == 0 {
		return nil, &Error{Program: "nothing", Code: -1, Err: errors.New("no program named")}
	}
	program := filepath.Base(argv[0])
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var out limited
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = killGrace
	if err := cmd.Start(); err != nil {
		return nil, &Error{Program: program, Code: -1, Err: err}
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // ends with the program
	select {
	case err := <-ended:
		return out.result(ctx, program, err)
	case <-ctx.Done():
	}
	timer := time.NewTimer(2 * killGrace)
	defer timer.Stop()
	select {
	case err := <-ended:
		return out.result(ctx, program, err)
	case <-timer.C:
		return nil, &Error{Program: program, Code: -1, Err: fmt.Errorf("killed but not gone: %w", ctx.Err())}
	}
}

type limited struct{ buf bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if room := outputLimit - l.buf.Len(); room > 0 {
		l.buf.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

func (l *limited) result(ctx context.Context, program string, err error) ([]byte, error) {
	if err == nil {
		return l.buf.Bytes(), nil
	}
	fail := &Error{Program: program, Code: -1, Output: l.buf.String(), Err: err}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		fail.Code = exit.ExitCode()
	}
	if ctx.Err() != nil {
		fail.Code, fail.Err = -1, ctx.Err()
	}
	return l.buf.Bytes(), fail
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "; ")
}
