package replica

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// newLogger makes Raft's log lines ours, and quiet: what matters of them is said by keepone's own lines, so that its
// errors are warnings here, and the rest is for debugging.
func newLogger(log *slog.Logger) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Level: hclog.Info, Output: io.Discard})
	l.RegisterSink(sink{log})
	return l
}

type sink struct{ log *slog.Logger }

// Accept takes one line.
func (s sink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	if level >= hclog.Error {
		to = slog.LevelInfo
	}
	if !s.log.Enabled(context.Background(), to) {
		return
	}
	plain := make([]any, len(args))
	for i, a := range args {
		plain[i] = a
		if f, ok := a.(hclog.Format); ok && len(f) > 0 {
			plain[i] = fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
		}
	}
	s.log.Log(context.Background(), to, "raft: "+msg, plain...)
}
