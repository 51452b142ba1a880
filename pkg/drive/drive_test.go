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
