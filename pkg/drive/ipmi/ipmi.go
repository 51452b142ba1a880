// Package ipmi drives one BMC over IPMI 2.0 LAN (RMCP+): it reads the chassis' power, orders it off or on, and
// says who the BMC is. It judges nothing: what a reading proves is pkg/fence's matter.
package ipmi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/keepone-ha/keepone/pkg/boottime"
)

// Why a BMC did not do what it was asked. Each says what to do next.
var (
	ErrUnreachable = errors.New("no answer in time: check the BMC's address, its power and the network to it")
	ErrPassword    = errors.New("login refused: check the BMC's user and password")
	ErrPrivilege   = errors.New("privilege too low: give the BMC user the privilege OPERATOR on the LAN channel")
	ErrCipher      = errors.New("cipher suite refused: set cipher_suite to one that the BMC allows (3 or 17 as a rule)")
	ErrBusy        = errors.New("BMC has no free session or is busy: close other sessions or restart the BMC")
	ErrRefused     = errors.New("BMC refused the command: try it with ipmitool and look at the BMC's log")
	ErrGUID        = errors.New("BMC reports no usable system GUID: leave guid empty for this node or update the BMC")
	ErrConfig      = errors.New("BMC settings can't work")
	ErrClosed      = errors.New("BMC handle is closed")
)

// Secret gives a password when it is needed. It never prints.
type Secret func() (string, error)

func (Secret) String() string   { return "(secret)" }
func (Secret) GoString() string { return "(secret)" }

// Format keeps every verb of fmt from printing anything of a secret.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("(secret)")) }

// LogValue keeps a secret out of logs.
func (Secret) LogValue() slog.Value { return slog.StringValue("(secret)") }

// MarshalText keeps a secret out of JSON and the like.
func (Secret) MarshalText() ([]byte, error) { return []byte("(secret)"), nil }

// Password is the Secret of a password that is known already.
func Password(password string) Secret {
	return func() (string, error) { return password, nil }
}

// Config says how to reach one BMC.
type Config struct {
	Address     string // host or host:port; the port is 623 if not given
	User        string // at most 16 bytes (IPMI 2.0 §13.20)
	Password    Secret // at most 20 bytes (IPMI 2.0 §22.30)
	CipherSuite int    // 3, 8, 12 or 17: those that authenticate and encrypt (IPMI 2.0 table 22-20)

	// Limit bounds one call, over and above its context. 0: DefaultLimit.
	Limit time.Duration
	// Try bounds one request of a call; what stays unanswered is tried again within Limit. 0: DefaultTry.
	Try time.Duration
}

// DefaultTry races the slowest BMCs that work: they answer a status within half a second.
// DefaultLimit leaves room for three tries and is well below what an operator takes for a hang.
const (
	DefaultTry   = time.Second
	DefaultLimit = 3 * time.Second
	defaultPort  = 623
)

// State is a chassis' power. Its zero value is the safe one.
type State uint8

// The states of power.
const (
	Unknown State = iota // not read
	On
	Off
)

func (s State) String() string {
	return [...]string{"unknown", "on", "off"}[s]
}

// Reading is one state that a BMC reported. It is no older than At.
type Reading struct {
	State State
	At    boottime.Time // when it was asked for
}

// Report is what Check found out about a BMC that can be used.
type Report struct {
	GUID  string // system GUID, empty if the BMC has none
	Power Reading
}

// New returns the handle of one BMC without talking to it. An error is ErrConfig and names the setting.
func New(cfg Config) (*BMC, error) {
	host, port, err := splitAddress(cfg.Address)
	if err != nil {
		return nil, err
	}
	switch {
	case len(cfg.User) > 16:
		return nil, fmt.Errorf("open BMC %s: %w: user is longer than 16 bytes", cfg.Address, ErrConfig)
	case cfg.Password == nil:
		return nil, fmt.Errorf("open BMC %s: %w: no password", cfg.Address, ErrConfig)
	case !suites[cfg.CipherSuite]:
		return nil, fmt.Errorf("open BMC %s: %w: cipher_suite %d does not authenticate and encrypt, use 3 or 17",
			cfg.Address, ErrConfig, cfg.CipherSuite)
	}
	if cfg.Limit <= 0 {
		cfg.Limit = DefaultLimit
	}
	if cfg.Try <= 0 {
		cfg.Try = DefaultTry
	}
	return &BMC{cfg: cfg, host: host, port: port, turn: make(chan struct{}, 1), done: make(chan struct{})}, nil
}

// suites are the cipher suites with both an integrity and a confidentiality algorithm: without them anybody on
// the network could answer in the BMC's place.
var suites = map[int]bool{3: true, 8: true, 12: true, 17: true}

func splitAddress(address string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		// No port: all of it is the host. An IPv6 address may stand in brackets.
		host, text = address, strconv.Itoa(defaultPort)
		if len(host) > 2 && host[0] == '[' && host[len(host)-1] == ']' {
			host = host[1 : len(host)-1]
		}
	}
	port, err = strconv.Atoi(text)
	if host == "" || err != nil || port < 1 || port > 65535 {
		return "", 0, fmt.Errorf("open BMC %q: %w: address is host or host:port", address, ErrConfig)
	}
	return host, port, nil
}

// Power reads the chassis' power (IPMI 2.0 §28.2).
func (b *BMC) Power(ctx context.Context) (Reading, error) {
	return call(ctx, b, "read power of", func(ctx context.Context, s *session) (Reading, error) {
		at := boottime.Now()
		state, err := s.power(ctx)
		return Reading{State: state, At: at}, err
	})
}

// Off orders power off, hard (IPMI 2.0 §28.3). That the BMC took the order proves nothing: read Power. After an
// error the order may have been carried out all the same.
func (b *BMC) Off(ctx context.Context) error { return b.order(ctx, "order power off of", false) }

// On orders power on. That the BMC took the order proves nothing: read Power.
func (b *BMC) On(ctx context.Context) error { return b.order(ctx, "order power on of", true) }

func (b *BMC) order(ctx context.Context, verb string, on bool) error {
	_, err := call(ctx, b, verb, func(ctx context.Context, s *session) (struct{}, error) {
		return struct{}{}, s.control(ctx, on)
	})
	return err
}

// Identity reads the system GUID (IPMI 2.0 §22.14): 32 hexadecimal digits in the order of the wire. SameGUID
// compares it with what an operator wrote down. A BMC without one is ErrGUID.
func (b *BMC) Identity(ctx context.Context) (string, error) {
	return call(ctx, b, "read GUID of", func(ctx context.Context, s *session) (string, error) { return s.guid(ctx) })
}

// Check tries all that a fence needs but the order itself: login, the privilege to order power off, the power
// state and the system GUID. A BMC without a GUID passes with an empty one.
func (b *BMC) Check(ctx context.Context) (Report, error) {
	guid, err := b.Identity(ctx)
	if err != nil && !errors.Is(err, ErrGUID) {
		return Report{}, err
	}
	power, err := b.Power(ctx)
	if err != nil {
		return Report{}, err
	}
	return Report{GUID: guid, Power: power}, nil
}
