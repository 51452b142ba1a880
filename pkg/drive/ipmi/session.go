package ipmi

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync/atomic"

	"github.com/bougou/go-ipmi/pkg/client"
	"github.com/bougou/go-ipmi/pkg/command/chassis"
	"github.com/bougou/go-ipmi/pkg/types"
)

// privilege is the least that may order power off (IPMI 2.0 appendix G): asking for more would shut out users
// that were given no more than they need.
const privilege = types.PrivilegeLevelOperator

// session is one login. It is used by one call at a time and never again after abort or close.
type session struct {
	client *client.Client
	conn   *conn
	system [16]byte // system GUID as the login authenticated it (RAKP message 2)
}

// open logs in (IPMI 2.0 §13.15). The cipher suite is set, so that nothing is negotiated; the library's own
// connect would start a keep-alive and hide the reason of a refusal.
func (b *BMC) open(ctx context.Context) (*session, error) {
	password, err := b.cfg.Password()
	if err != nil {
		return nil, fmt.Errorf("%w: read password: %w", ErrConfig, err)
	}
	if len(password) > 20 {
		return nil, fmt.Errorf("%w: password is longer than 20 bytes", ErrConfig)
	}
	dialer := net.Dialer{Timeout: b.cfg.Try}
	raw, err := dialer.DialContext(ctx, "udp", net.JoinHostPort(b.host, strconv.Itoa(b.port)))
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", ErrUnreachable, err)
	}
	s := &session{conn: &conn{Conn: raw}}
	s.client, err = client.NewClient(b.host, b.port, b.cfg.User, password)
	if err != nil {
		s.abort()
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	s.client.WithUDPProxy(s.conn).WithTimeout(b.cfg.Try).WithRetry(0).
		WithMaxPrivilegeLevel(privilege).WithCipherSuiteID(types.CipherSuiteID(b.cfg.CipherSuite))
	if _, err := run(ctx, b, s, s.login(types.CipherSuiteID(b.cfg.CipherSuite))); err != nil {
		s.abort()
		return nil, err
	}
	return s, nil
}

func (s *session) login(suite types.CipherSuiteID) func(context.Context) (struct{}, error) {
	return func(ctx context.Context) (none struct{}, err error) {
		opened, err := s.client.OpenSession(ctx)
		if err != nil {
			return none, fmt.Errorf("open session: %w", err)
		}
		auth, integrity, crypt, _ := types.GetCipherSuiteAlgorithms(suite)
		if types.AuthAlg(opened.AuthAlg) != auth || types.IntegrityAlg(opened.IntegrityAlg) != integrity ||
			types.CryptAlg(opened.CryptAlg) != crypt {
			// I3: a session without these would let anybody on the network answer that the node is off.
			return none, fmt.Errorf("%w (it offers other algorithms)", ErrCipher)
		}
		hello, err := s.client.RAKPMessage1(ctx)
		if err != nil {
			return none, fmt.Errorf("log in: %w", err)
		}
		s.system = hello.ManagedSystemGUID
		if _, err := s.client.RAKPMessage3(ctx); err != nil {
			return none, fmt.Errorf("log in: %w", err)
		}
		s.conn.secured.Store(true)
		if _, err := s.client.SetSessionPrivilegeLevel(ctx, privilege); err != nil {
			if code := completion(err); code != nil {
				return none, fmt.Errorf("%w (completion code %#02x)", ErrPrivilege, uint8(*code))
			}
			return none, fmt.Errorf("set privilege: %w", err)
		}
		return none, nil
	}
}

func (s *session) power(ctx context.Context) (State, error) {
	status, err := s.client.GetChassisStatus(ctx)
	switch {
	case err != nil:
		return Unknown, err
	case status.PowerIsOn:
		return On, nil
	}
	return Off, nil
}

func (s *session) control(ctx context.Context, on bool) error {
	order := chassis.ChassisControlPowerDown
	if on {
		order = chassis.ChassisControlPowerUp
	}
	_, err := s.client.ChassisControl(ctx, order)
	return err
}

// guid asks for the system GUID. A BMC that does not know the command told it at login (IPMI 2.0 §13.21).
func (s *session) guid(ctx context.Context) (string, error) {
	raw := s.system
	answer, err := s.client.GetSystemGUID(ctx)
	switch {
	case err == nil:
		raw = answer.GUID
	case completion(err) == nil:
		return "", err
	}
	guid := hex.EncodeToString(raw[:])
	if plainGUID(guid) == "" {
		return "", fmt.Errorf("%w (it says %s)", ErrGUID, guid)
	}
	return guid, nil
}

// abort takes the socket away; library calls that wait on it return.
func (s *session) abort() { _ = s.conn.Conn.Close() }

// close says good-bye to the BMC, so that it has the session free again.
func (s *session) close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	stop := context.AfterFunc(ctx, s.abort)
	defer stop()
	_ = s.client.Close(ctx)
	s.abort()
}

// conn is the session's socket, dialled by us so that we can close it. Once the session is secured it takes
// encrypted and authenticated messages only: the library would take plain ones too, and then any host that
// forges the BMC's address could say off (I3).
type conn struct {
	net.Conn
	secured atomic.Bool
}

// Dial hands itself to the library.
func (c *conn) Dial(string, string) (net.Conn, error) { return c, nil }

func (c *conn) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if err != nil || !c.secured.Load() || sealedMessage(p[:n]) {
			return n, err
		}
	}
}

// sealedMessage reports whether a datagram is an RMCP+ IPMI message that says that it is encrypted and
// authenticated (IPMI 2.0 §13.6, table 13-8).
func sealedMessage(p []byte) bool {
	const rmcpPlus, ipmiMessage = 0x06, 0xC0
	return len(p) > 16 && p[4] == rmcpPlus && p[5] == ipmiMessage
}

// completion returns the completion code of an answer that refused, nil if err is none.
func completion(err error) *types.CompletionCode {
	var answer *types.ResponseError
	if !errors.As(err, &answer) {
		return nil
	}
	code := answer.CompletionCode()
	return &code
}
