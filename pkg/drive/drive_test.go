package drive

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestRun(t *testing.T) {
	t.Parallel()
	out, err := Run(t.Context(), "echo", "one")
	if err != nil || string(out) != "one\n" {
		t.Fatalf("echo: %q, %v", out, err)
	}
	_, err = Run(t.Context(), "ls", "/no/such/thing")
	var fail *Error
	if !errors.As(err, &fail) || fail.Code != 2 || !strings.Contains(err.Error(), "run ls") || !strings.Contains(err.Error(), "/no/such/thing") {
		t.Fatalf("ls: %v", err)
	}
	_, err = Run(t.Context(), "no-such-program")
	if !errors.As(err, &fail) || fail.Code != -1 {
		t.Fatalf("missing: %v", err)
	}
}

func TestRunIsBounded(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := Run(ctx, "sleep", "100")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("sleep: %v", err)
	}
	out, err := Run(t.Context(), "head", "-c", "300000", "/dev/zero")
	if err != nil || len(out) != outputLimit {
		t.Fatalf("head: %d bytes, %v", len(out), err)
	}
}

func TestAnswerIsOneOutput(t *testing.T) {
	t.Parallel()
	out, err := Answer(t.Context(), "ls", "/", "/no/such/thing")
	var fail *Error
	if !errors.As(err, &fail) || !strings.Contains(fail.Output, "/no/such/thing") || strings.Contains(string(out), "no such") {
		t.Fatalf("ls: %q, %v", out, err)
	}
	if out, err = Answer(t.Context(), "head", "-c", "300000", "/dev/zero"); err != nil || len(out) != 300000 {
		t.Fatalf("head: %d bytes, %v", len(out), err)
	}
	if _, err = Answer(t.Context(), "head", "-c", "17000000", "/dev/zero"); err == nil || !strings.Contains(err.Error(), "more than 16 MiB") {
		t.Fatalf("half an answer passed: %v", err)
	}
}

// What a killed program had started ends with it, or its output would stay open for as long.
func TestRunKillsTheGroup(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := Run(ctx, "timeout", "--foreground", "100", "sleep", "100")
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > killGrace {
		t.Fatalf("took %s: %v", time.Since(began), err)
	}
}
