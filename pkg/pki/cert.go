package pki

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

// serial draws a certificate's serial number: 128 random bits.
func serial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b)
	return new(big.Int).SetBytes(b)
}

// makeCA makes the cluster's self-signed root.
func makeCA(pub crypto.PublicKey, key ed25519.PrivateKey) (*x509.Certificate, error) {
	now := time.Now()
	tmpl := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: "keepone CA"},
		NotBefore:    now, NotAfter: now.Add(caValidity),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, pub, key)
	if err != nil {
		return nil, fmt.Errorf("make CA certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// issue makes the certificate of the node named.
func issue(ca *x509.Certificate, caKey ed25519.PrivateKey, name core.NodeName, pub crypto.PublicKey) ([]byte, error) {
	now := time.Now()
	tmpl := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: string(name)},
		DNSNames:     []string{string(name)},
		NotBefore:    now, NotAfter: now.Add(nodeValidity),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca, pub, caKey)
	if err != nil {
		return nil, fmt.Errorf("issue certificate of %q: %w", name, err)
	}
	return der, nil
}

// fingerprint is what a join token carries of the CA.
func fingerprint(ca *x509.Certificate) string {
	sum := sha256.Sum256(ca.Raw)
	return hex.EncodeToString(sum[:16]) // 128 bits: a second certificate with the same ones can't be made
}

// verify checks that leaf is signed by our CA, and nothing about the wall clock: after a power cut a node with a
// dead clock battery must still find its peers. Each certificate is judged at a moment at which it was young.
func verify(pool *x509.CertPool, ca, leaf *x509.Certificate, usage x509.ExtKeyUsage) error {
	at := leaf.NotBefore
	if ca.NotBefore.After(at) {
		at = ca.NotBefore // the issuing node's clock may have been behind
	}
	opts := x509.VerifyOptions{Roots: pool, CurrentTime: at.Add(time.Second), KeyUsages: []x509.ExtKeyUsage{usage}}
	if leaf.NotAfter.Before(opts.CurrentTime) {
		opts.CurrentTime = leaf.NotBefore.Add(time.Second)
		return verifySignature(ca, leaf)
	}
	_, err := leaf.Verify(opts)
	if _, stranger := errors.AsType[x509.UnknownAuthorityError](err); stranger {
		return errStranger
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPeer, err)
	}
	return nil
}

// errStranger is a certificate that our CA did not sign.
var errStranger = fmt.Errorf("%w: it belongs to another cluster", ErrPeer)

// verifySignature is for two certificates whose times never overlap: made with clocks ten years apart.
func verifySignature(ca, leaf *x509.Certificate) error {
	if leaf.CheckSignatureFrom(ca) != nil {
		return errStranger
	}
	return nil
}

// nameOf returns the one DNS name of a certificate.
func nameOf(leaf *x509.Certificate) (core.NodeName, error) {
	if len(leaf.DNSNames) != 1 {
		return "", fmt.Errorf("certificate with %d names: %w", len(leaf.DNSNames), ErrPeer)
	}
	name := core.NodeName(leaf.DNSNames[0])
	if err := checkName(name); err != nil {
		return "", fmt.Errorf("%w: %w", ErrPeer, err)
	}
	return name, nil
}
