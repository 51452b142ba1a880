// Package drive runs other programs for the drivers below it. It is the only place that does.
package drive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// outputLimit is what is kept of a program's output: enough for an error's words, no matter what it prints.
	outputLimit = 64 << 10
	// answerLimit is for an answer that is parsed, and so must be whole: a cluster's status in XML, a CIB.
	answerLimit = 16 << 20
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
	out := &limited{room: outputLimit}
	err := run(ctx, argv, out, out)
	if errors.Is(err, errStuck) {
		return nil, err // it may still print
	}
	return out.buf.Bytes(), err
}

// Answer is Run for output that is parsed: it returns standard output alone, and whole. More than 16 MiB is an error.
func Answer(ctx context.Context, argv ...string) ([]byte, error) {
	out, words := &limited{room: answerLimit}, &limited{room: outputLimit}
	err := run(ctx, argv, out, words)
	switch {
	case errors.Is(err, errStuck):
		return nil, err
	case err == nil && out.cut:
		err = &Error{Program: filepath.Base(argv[0]), Code: -1, Err: fmt.Errorf("printed more than %d MiB", answerLimit>>20)}
	}
	return out.buf.Bytes(), err
}

// errStuck: a program was killed and hangs in the kernel all the same.
var errStuck = errors.New("killed but not gone")

// run ends within ctx and a short grace. What the program leaves behind is killed with it: it has a process group of
// its own, which also keeps an operator's ctrl-C from it.
func run(ctx context.Context, argv []string, out, words *limited) error {
	if len(argv) == 0 {
		return &Error{Program: "nothing", Code: -1, Err: errors.New("no program named")}
	}
	program := filepath.Base(argv[0])
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = out, words
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); !errors.Is(err, syscall.ESRCH) {
			return err
		}
		return os.ErrProcessDone
	}
	cmd.WaitDelay = killGrace
	if err := cmd.Start(); err != nil {
		return &Error{Program: program, Code: -1, Err: err}
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // ends with the program
	select {
	case err := <-ended:
		return failure(ctx, program, words, err)
	case <-ctx.Done():
	}
	timer := time.NewTimer(2 * killGrace)
	defer timer.Stop()
	select {
	case err := <-ended:
		return failure(ctx, program, words, err)
	case <-timer.C:
		return &Error{Program: program, Code: -1, Err: fmt.Errorf("%w: %w", errStuck, ctx.Err())}
	}
}

// limited keeps what fits.
type limited struct {
	buf  bytes.Buffer
	room int
	cut  bool
}

func (l *limited) Write(p []byte) (int, error) {
	room := max(0, l.room-l.buf.Len())
	l.cut = l.cut || len(p) > room
	l.buf.Write(p[:min(room, len(p))])
	return len(p), nil
}

func failure(ctx context.Context, program string, words *limited, err error) error {
	if err == nil {
		return nil
	}
	fail := &Error{Program: program, Code: -1, Output: words.buf.String(), Err: err}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		fail.Code = exit.ExitCode()
	}
	if ctx.Err() != nil {
		fail.Code, fail.Err = -1, ctx.Err()
	}
	return fail
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "; ")
}
