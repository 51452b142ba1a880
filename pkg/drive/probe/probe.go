// Package probe asks a service whether it answers. Each answer is read within bounds; how often to ask and
// what follows from an answer is the agent's matter.
package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

// Health is what one probe found. Its zero value is the safe one.
type Health uint8

// The results of a probe.
const (
	Unknown   Health = iota // no answer in time: it may be well or not
	Healthy                 // answered as it should
	Unhealthy               // answered that it is not well, or certainly does not answer
)

func (h Health) String() string {
	return [...]string{"unknown", "healthy", "unhealthy"}[h]
}

// Result is one answer. Reason says what was seen; it is never empty unless Healthy.
type Result struct {
	Health Health
	Reason string
	Took   time.Duration
}

// Probe asks once. It returns within its spec's Timeout and as soon as ctx ends.
type Probe interface {
	Probe(ctx context.Context) Result
}

// ErrSpec is a probe spec that can't work.
var ErrSpec = errors.New("probe spec can't work")

// The kinds of probe, as core.ProbeSpec names them.
const (
	KindTCP        = "tcp"
	KindHTTP       = "http"
	KindOpenNebula = "opennebula"
	KindRaftStatus = "raftstatus"
	KindExec       = "exec"
)

// Parts are what probes need besides their spec.
type Parts struct {
	Host netip.Addr // the service's address
	// Secret gives the password of ProbeSpec.User, unsealed. It is asked at each probe.
	Secret func() (string, error)
	// Exec runs a command in the service's container and returns its exit code and the beginning of its
	// output. An error means that it did not run to its end.
	Exec func(ctx context.Context, argv []string) (code int, output string, err error)
}

// DefaultTimeout bounds a probe whose spec names none.
const DefaultTimeout = 2 * time.Second

// New returns the probe that spec describes.
func New(spec core.ProbeSpec, parts Parts) (Probe, error) {
	ask, err := newAsk(spec, parts)
	if err != nil {
		return nil, fmt.Errorf("make %s probe: %w", spec.Kind, err)
	}
	timeout := spec.Timeout
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	return &bounded{ask: ask, timeout: timeout}, nil
}

// ask is one kind's question. An error that is a deadline means Unknown, any other Unhealthy.
type ask func(ctx context.Context) error

func newAsk(spec core.ProbeSpec, parts Parts) (ask, error) {
	if spec.Kind == KindExec {
		if len(spec.Command) == 0 || parts.Exec == nil {
			return nil, fmt.Errorf("%w: no command", ErrSpec)
		}
		return execAsk(spec.Command, parts.Exec), nil
	}
	if !parts.Host.IsValid() || spec.Port < 1 || spec.Port > 65535 {
		return nil, fmt.Errorf("%w: no address or port", ErrSpec)
	}
	address := net.JoinHostPort(parts.Host.String(), strconv.Itoa(spec.Port))
	switch spec.Kind {
	case KindTCP:
		return tcpAsk(address), nil
	case KindHTTP:
		return httpAsk(address, spec.Path), nil
	case KindOpenNebula:
		return versionAsk(address, spec.Path, spec.User, parts.Secret), nil
	case KindRaftStatus:
		if spec.User == "" || parts.Secret == nil {
			return nil, fmt.Errorf("%w: no user or password", ErrSpec)
		}
		return raftAsk(address, spec.Path, spec.User, parts.Secret), nil
	}
	return nil, fmt.Errorf("%w: kind is one of tcp, http, opennebula, raftstatus, exec", ErrSpec)
}

// bounded gives a question its deadline and words its answer.
type bounded struct {
	ask     ask
	timeout time.Duration
}

func (b *bounded) Probe(ctx context.Context) Result {
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	begin := time.Now()
	err := b.ask(ctx)
	result := Result{Health: Healthy, Took: time.Since(begin)}
	switch {
	case err == nil:
	case unanswered(ctx, err):
		result.Health = Unknown
		result.Reason = fmt.Sprintf("no answer in %s", b.timeout)
	default:
		result.Health = Unhealthy
		result.Reason = err.Error()
	}
	return result
}

// unanswered reports whether err came from time that ran out or a context that ended, not from the service.
func unanswered(ctx context.Context, err error) bool {
	if ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return true
	}
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}
