package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/pki"
)

// joinTimeout bounds one join on both sides: it waits for a commit.
const joinTimeout = 30 * time.Second

// ServeJoin lets newcomers in through mux: redeem commits the token's use, pki issues the certificate.
func ServeJoin(mux *Mux, id *pki.Identity, redeem pki.Redeem) {
	mux.Handle(pki.ProtoJoin, func(_ core.NodeName, conn net.Conn) {
		ctx, cancel := context.WithTimeout(context.Background(), joinTimeout)
		defer cancel()
		conn.SetDeadline(time.Now().Add(joinTimeout))
		var req pki.JoinRequest
		if err := readFrame(conn, &req); err != nil {
			mux.log.Warn("join refused", "from", conn.RemoteAddr().String(), "error", err)
			return
		}
		var reply struct {
			Answer *pki.JoinAnswer
			Error  *Error
		}
		answer, err := id.Admit(ctx, req, redeem)
		if err != nil {
			mux.log.Warn("join refused", "node", string(req.Name), "from", conn.RemoteAddr().String(), "error", err)
			reply.Error = asError(err)
		} else {
			mux.log.Info("node joined", "node", string(req.Name), "from", conn.RemoteAddr().String())
			reply.Answer = &answer
		}
		if err := writeFrame(conn, reply); err != nil {
			mux.log.Warn("answer join", "node", string(req.Name), "error", err)
		}
	})
}

// Join asks a member, at whichever of addrs answers first, to let the newcomer in. With the answer the newcomer
// is a member: Newcomer.Finish writes it down. CodeUnknown means that the token may be used up.
func Join(ctx context.Context, n *pki.Newcomer, addrs []netip.AddrPort, dial DialFunc) (pki.JoinAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	if len(addrs) == 0 {
		return pki.JoinAnswer{}, errors.New("join cluster: no address of a member given")
	}
	if dial == nil {
		dial = dialTCP
	}
	conn, addr, err := race(ctx, addrs, func(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
		raw, err := dial(ctx, addr)
		if err != nil {
			return nil, fmt.Errorf("dial %s: %w", addr, err)
		}
		c := tls.Client(raw, n.ClientConfig())
		if err := c.HandshakeContext(ctx); err != nil {
			raw.Close()
			return nil, fmt.Errorf("handshake with %s: %w", addr, err)
		}
		return c, nil
	})
	if err != nil {
		return pki.JoinAnswer{}, fmt.Errorf("join cluster: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	var reply struct {
		Answer *pki.JoinAnswer
		Error  *Error
	}
	if err := errors.Join(writeFrame(conn, n.Request), readFrame(conn, &reply)); err != nil {
		return pki.JoinAnswer{}, fmt.Errorf("join cluster: %w", &Error{
			Code: CodeUnknown, Message: fmt.Sprintf("no answer from %s (%v): make a new token and try again", addr, err),
		})
	}
	if reply.Error != nil {
		return pki.JoinAnswer{}, fmt.Errorf("join cluster: %w", reply.Error)
	}
	if reply.Answer == nil {
		return pki.JoinAnswer{}, fmt.Errorf("join cluster: %s sent an empty answer", addr)
	}
	return *reply.Answer, nil
}
