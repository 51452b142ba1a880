package pki

import (
	"context"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/keepone-ha/keepone/pkg/core"
)

const tokenPrefix = "keepone1"

// Token lets one newcomer in, once. It carries what tells the newcomer that it speaks with the right cluster, and
// what tells the cluster that the newcomer was sent by an operator.
type Token struct {
	ID          string // names the token in the State
	Secret      string // known to the token alone: the State keeps its hash
	Fingerprint string // of the CA
}

// NewToken draws a token. Commit its ID and Hash with an expiry in cluster time, and show String once.
func (id *Identity) NewToken() Token {
	return Token{ID: rand.Text()[:10], Secret: rand.Text(), Fingerprint: fingerprint(id.ca)}
}

// ParseToken reads what String wrote.
func ParseToken(text string) (Token, error) {
	parts := strings.Split(strings.TrimSpace(text), ".")
	if len(parts) != 4 || parts[0] != tokenPrefix || len(parts[1]) != 10 || len(parts[2]) < 26 || len(parts[3]) != 32 {
		return Token{}, fmt.Errorf("read token: not one that keepone made, or not copied whole: %w", ErrToken)
	}
	return Token{ID: parts[1], Secret: parts[2], Fingerprint: parts[3]}, nil
}

func (t Token) String() string {
	return strings.Join([]string{tokenPrefix, t.ID, t.Secret, t.Fingerprint}, ".")
}

// Hash is what the State keeps of the secret.
func (t Token) Hash() string { return HashSecret(t.ID, t.Secret) }

// HashSecret is Hash for what came with a request. A plain hash is enough: a secret has 130 random bits.
func HashSecret(id, secret string) string {
	sum := sha256.Sum256([]byte("keepone join token\x00" + id + "\x00" + secret))
	return base64.RawStdEncoding.EncodeToString(sum[:])
}

// HashEqual compares without telling by its time where they differ.
func HashEqual(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// JoinRequest is what a newcomer says. TokenHash is never compared in clear: see HashSecret.
type JoinRequest struct {
	Name        core.NodeName
	Incarnation string
	CSR         []byte // DER; proves that the newcomer has the key
	PublicKey   []byte // X25519
	TokenID     string
	Secret      string
	Version     string // of the newcomer's keepone, for the member to judge
}

// JoinAnswer is what makes a newcomer a member. It goes over TLS, to whoever had the token, once.
type JoinAnswer struct {
	CA, Certificate []byte // DER
	CAKey, SealKey  []byte
	Members         json.RawMessage // what the app says of the members: names and addresses
}

// Redeem commits that the token is used up and that the node is a member, in one step, so that a token can't be
// used twice, whichever members are asked. It refuses an unknown, used or expired token and a name that lives.
type Redeem func(ctx context.Context, req JoinRequest, secretHash string) (members any, err error)

// Admit serves a join: checks the request, redeems the token, and only then issues the certificate.
func (id *Identity) Admit(ctx context.Context, req JoinRequest, redeem Redeem) (JoinAnswer, error) {
	if err := checkName(req.Name); err != nil {
		return JoinAnswer{}, fmt.Errorf("admit node: %w", err)
	}
	if req.Incarnation == "" || len(req.Incarnation) > 64 || strings.ContainsAny(req.Incarnation, "/ \n") {
		return JoinAnswer{}, fmt.Errorf("admit node %q: bad incarnation: %w", req.Name, ErrPeer)
	}
	if _, err := ecdh.X25519().NewPublicKey(req.PublicKey); err != nil {
		return JoinAnswer{}, fmt.Errorf("admit node %q: %w", req.Name, err)
	}
	csr, err := x509.ParseCertificateRequest(req.CSR)
	if err != nil {
		return JoinAnswer{}, fmt.Errorf("admit node %q: %w", req.Name, err)
	}
	if err := csr.CheckSignature(); err != nil {
		return JoinAnswer{}, fmt.Errorf("admit node %q: %w", req.Name, err)
	}
	pub, ok := csr.PublicKey.(ed25519.PublicKey)
	if !ok {
		return JoinAnswer{}, fmt.Errorf("admit node %q: its key is no Ed25519 key: %w", req.Name, ErrPeer)
	}
	members, err := redeem(ctx, req, HashSecret(req.TokenID, req.Secret))
	if err != nil {
		return JoinAnswer{}, fmt.Errorf("admit node %q: %w", req.Name, err)
	}
	text, err := json.Marshal(members)
	if err != nil {
		return JoinAnswer{}, fmt.Errorf("admit node %q: %w", req.Name, err)
	}
	leaf, err := issue(id.ca, id.caKey, req.Name, pub)
	if err != nil {
		return JoinAnswer{}, fmt.Errorf("admit node: %w", err)
	}
	return JoinAnswer{CA: id.ca.Raw, Certificate: leaf, CAKey: id.caKey.Seed(), SealKey: id.seal, Members: text}, nil
}

// Newcomer is a node that has keys, but is no member yet. Nothing of it is on disk until Finish.
type Newcomer struct {
	Request JoinRequest
	token   Token
	key     ed25519.PrivateKey
	hb      *ecdh.PrivateKey
}

// NewNewcomer makes the keys of a node that is to join. ErrExists if there is an identity already.
func NewNewcomer(dataDir string, name core.NodeName, token Token) (*Newcomer, error) {
	if err := checkName(name); err != nil {
		return nil, fmt.Errorf("prepare join: %w", err)
	}
	if err := absent(dataDir); err != nil {
		return nil, fmt.Errorf("prepare join: %w", err)
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("prepare join: %w", err)
	}
	hb, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("prepare join: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{string(name)}}, key)
	if err != nil {
		return nil, fmt.Errorf("prepare join: %w", err)
	}
	return &Newcomer{
		Request: JoinRequest{
			Name: name, Incarnation: rand.Text(), CSR: csr, PublicKey: hb.PublicKey().Bytes(),
			TokenID: token.ID, Secret: token.Secret,
		},
		token: token, key: key, hb: hb,
	}, nil
}

// ClientConfig is for the connection over which the newcomer joins: it accepts a member of the cluster whose CA the
// token names, whatever its name, and nobody else gets to see the secret.
func (n *Newcomer) ClientConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{ProtoJoin}, ServerName: "keepone",
		InsecureSkipVerify: true, // VerifyConnection checks the CA's fingerprint and the chain
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) != 2 {
				return fmt.Errorf("expected two certificates: %w", ErrPeer)
			}
			leaf, ca := cs.PeerCertificates[0], cs.PeerCertificates[1]
			if !HashEqual(fingerprint(ca), n.token.Fingerprint) {
				return fmt.Errorf("it belongs to another cluster than the token: %w", ErrPeer)
			}
			pool := x509.NewCertPool()
			pool.AddCert(ca)
			return verify(pool, ca, leaf, x509.ExtKeyUsageServerAuth)
		},
	}
}

// Finish checks the answer and writes the identity below dataDir/pki.
func (n *Newcomer) Finish(dataDir string, a JoinAnswer) (*Identity, error) {
	if len(a.CAKey) != ed25519.SeedSize || len(a.SealKey) != sealKeySize {
		return nil, fmt.Errorf("finish join: %w", errNoAnswer)
	}
	ca, err := x509.ParseCertificate(a.CA)
	if err != nil {
		return nil, fmt.Errorf("finish join: %w", err)
	}
	if !HashEqual(fingerprint(ca), n.token.Fingerprint) {
		return nil, fmt.Errorf("finish join: the CA is not the token's: %w", ErrPeer)
	}
	m := material{
		ca: a.CA, caKey: ed25519.NewKeyFromSeed(a.CAKey), cert: a.Certificate, key: n.key,
		seal: a.SealKey, hb: n.hb, incarnation: n.Request.Incarnation,
	}
	id, err := m.identity()
	if err != nil {
		return nil, fmt.Errorf("finish join: %w", err)
	}
	if id.Name != n.Request.Name {
		return nil, fmt.Errorf("finish join: certificate is for %q: %w", id.Name, ErrPeer)
	}
	return store(dataDir, m)
}
