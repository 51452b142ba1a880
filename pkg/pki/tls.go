package pki

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"

	"github.com/keepone-ha/keepone/pkg/core"
)

// The protocols on TCP 7480, told apart by ALPN.
const (
	ProtoRaft = "keepone-raft/1"
	ProtoNode = "keepone-node/1"
	ProtoJoin = "keepone-join/1" // the only one without a client certificate
)

// ServerConfig is TLS 1.3 alone. Raft and the node protocol want a certificate of our CA; join wants none, a token
// speaks for the newcomer. A connection without one of these protocols is refused.
func (id *Identity) ServerConfig() *tls.Config {
	open := &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{id.withCA()}, NextProtos: []string{ProtoJoin},
		SessionTicketsDisabled: true,
	}
	mutual := open.Clone()
	mutual.NextProtos = []string{ProtoRaft, ProtoNode}
	mutual.ClientAuth = tls.RequireAnyClientCert // VerifyConnection judges it: the library would ask the wall clock
	mutual.VerifyConnection = func(cs tls.ConnectionState) error {
		_, err := id.peer(cs, x509.ExtKeyUsageClientAuth)
		return err
	}
	front := mutual.Clone()
	front.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if slices.Equal(hello.SupportedProtos, []string{ProtoJoin}) {
			return open, nil
		}
		if len(hello.SupportedProtos) == 0 {
			return nil, fmt.Errorf("no protocol asked for: %w", ErrPeer)
		}
		return mutual, nil
	}
	return front
}

// ClientConfig is for a connection to peer: nobody else's certificate will do.
func (id *Identity) ClientConfig(peer core.NodeName, proto string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{id.cert}, NextProtos: []string{proto},
		ServerName:         string(peer),
		InsecureSkipVerify: true, // VerifyConnection checks chain and name; the library would ask the wall clock
		VerifyConnection: func(cs tls.ConnectionState) error {
			name, err := id.peer(cs, x509.ExtKeyUsageServerAuth)
			if err == nil && name != peer {
				err = fmt.Errorf("it is %q, not %q: %w", name, peer, ErrPeer)
			}
			return err
		},
	}
}

// Peer returns the name that the other end's certificate gives it.
func (id *Identity) Peer(cs tls.ConnectionState) (core.NodeName, error) {
	usage := x509.ExtKeyUsageClientAuth // either usage will do: a node certificate has both
	return id.peer(cs, usage)
}

func (id *Identity) peer(cs tls.ConnectionState, usage x509.ExtKeyUsage) (core.NodeName, error) {
	if len(cs.PeerCertificates) == 0 {
		return "", fmt.Errorf("no certificate: %w", ErrPeer)
	}
	leaf := cs.PeerCertificates[0]
	if err := verify(id.pool, id.ca, leaf, usage); err != nil {
		return "", err
	}
	return nameOf(leaf)
}

// withCA sends the CA along, so that a newcomer can hold it against the fingerprint in its token.
func (id *Identity) withCA() tls.Certificate {
	c := id.cert
	c.Certificate = [][]byte{id.cert.Certificate[0], id.ca.Raw}
	return c
}
