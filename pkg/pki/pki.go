// Package pki is who is who: the cluster's own CA, node certificates, join tokens, and the keys that all nodes
// share or pair. A certificate says a node's name and nothing else; who is a member is said by the State.
//
// The CA's key lies on every member, like the sealing key. A join is served by whichever member is asked, also
// when the one that founded the cluster is gone for ever; and whoever is root on a member can order power-offs and
// open the BMC passwords already, so keeping the key from it would protect nothing. The cost: a member that is
// removed because it was taken over still has the key; then the cluster needs a new CA, not only a removal.
package pki

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

// Files below <data_dir>/pki. The folder is 0700, files are 0600.
const (
	fileCA       = "ca.crt"
	fileCAKey    = "ca.key"
	fileCert     = "node.crt"
	fileKey      = "node.key"
	fileSeal     = "seal.key"
	fileHB       = "hb.key"
	fileIdentity = "incarnation"
)

// Validity of certificates. Expiry only warns, see ServerConfig; this is when it begins to.
const (
	nodeValidity = 10 * 365 * 24 * time.Hour
	caValidity   = 30 * 365 * 24 * time.Hour
	warnBefore   = 90 * 24 * time.Hour
)

// Errors of this package.
var (
	ErrExists   = errors.New("this node has an identity already")
	ErrMissing  = errors.New("this node has no identity yet: run keepone init or keepone join")
	ErrBadName  = errors.New("not a node name: lower case letters, digits and hyphens, at most 63, as in DNS")
	ErrToken    = errors.New("join token not accepted")
	ErrPeer     = errors.New("peer not accepted")
	ErrSealed   = errors.New("sealed text can't be opened with this node's key")
	errNoAnswer = errors.New("the answer lacks a part")
)

// Identity is what a node is: its name, its certificate, and its keys. It is read-only once made.
type Identity struct {
	Name        core.NodeName
	Incarnation string // drawn at init or join: an empty disk rejoins as a newcomer

	cert  tls.Certificate
	ca    *x509.Certificate
	caKey ed25519.PrivateKey
	pool  *x509.CertPool
	seal  []byte
	hb    *ecdh.PrivateKey
}

// Init makes a new CA and the identity of its first node below dataDir/pki. ErrExists if there is one.
func Init(dataDir string, name core.NodeName) (*Identity, error) {
	if err := checkName(name); err != nil {
		return nil, fmt.Errorf("init identity: %w", err)
	}
	if err := absent(dataDir); err != nil {
		return nil, fmt.Errorf("init identity: %w", err)
	}
	caPub, caKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("init identity: make CA key: %w", err)
	}
	ca, err := makeCA(caPub, caKey)
	if err != nil {
		return nil, fmt.Errorf("init identity: %w", err)
	}
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("init identity: make node key: %w", err)
	}
	leaf, err := issue(ca, caKey, name, pub)
	if err != nil {
		return nil, fmt.Errorf("init identity: %w", err)
	}
	hb, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("init identity: make heartbeat key: %w", err)
	}
	seal := make([]byte, sealKeySize)
	rand.Read(seal)
	return store(dataDir, material{ca: ca.Raw, caKey: caKey, cert: leaf, key: key, seal: seal, hb: hb, incarnation: rand.Text()})
}

// Load reads the identity below dataDir/pki. ErrMissing if there is none.
func Load(dataDir string) (*Identity, error) {
	m, err := read(filepath.Join(dataDir, "pki"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("load identity: %w: %w", ErrMissing, err)
	}
	if err != nil {
		return nil, fmt.Errorf("load identity: %w", err)
	}
	id, err := m.identity()
	if err != nil {
		return nil, fmt.Errorf("load identity: %w", err)
	}
	return id, nil
}

// Warning says in words that a certificate expires soon or has expired by the wall clock, empty if neither.
func (id *Identity) Warning(now time.Time) string {
	for what, cert := range map[string]*x509.Certificate{"node": id.cert.Leaf, "CA": id.ca} {
		if now.After(cert.NotAfter.Add(-warnBefore)) {
			return fmt.Sprintf("the %s certificate expires on %s; it goes on working, but renew it", what, cert.NotAfter.Format(time.DateOnly))
		}
	}
	return ""
}

// Public returns the node's X25519 public key, for core.Node.PublicKey.
func (id *Identity) Public() []byte { return id.hb.PublicKey().Bytes() }

// checkName allows what is safe as a DNS name, a file name and a Raft id alike.
func checkName(name core.NodeName) error {
	ok := len(name) > 0 && len(name) <= 63 && name[0] != '-' && name[len(name)-1] != '-'
	for _, c := range name {
		ok = ok && (c == '-' || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'))
	}
	if !ok {
		return fmt.Errorf("%q: %w", name, ErrBadName)
	}
	return nil
}
