// Package clock lets time pass for code that waits: by the real clock, or by one that its context carries. So the
// simulator runs the very code that runs on nodes, in virtual time.
package clock

import (
	"context"
	"time"
)

// Clock is a time of another kind.
type Clock interface {
	Now() time.Time
	// Pause returns nil once d has passed, or why ctx ended first.
	Pause(ctx context.Context, d time.Duration) error
	// Within is ctx until d has passed, or the function that it returns is called.
	Within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc)
}

type key struct{}

// With has ctx carry c.
func With(ctx context.Context, c Clock) context.Context { return context.WithValue(ctx, key{}, c) }

// Now reads the clock that ctx carries, or else the real one.
func Now(ctx context.Context) time.Time {
	if c, ok := ctx.Value(key{}).(Clock); ok {
		return c.Now()
	}
	return time.Now()
}

// Pause waits for d, and returns why ctx ended if it ended first.
func Pause(ctx context.Context, d time.Duration) error {
	if c, ok := ctx.Value(key{}).(Clock); ok {
		return c.Pause(ctx, d)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// WithTimeout is context.WithTimeout by the clock that ctx carries.
func WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if c, ok := ctx.Value(key{}).(Clock); ok {
		return c.Within(ctx, d)
	}
	return context.WithTimeout(ctx, d)
}
