package pki

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

func newCA(t *testing.T, name core.NodeName) (*Identity, string) {
	t.Helper()
	dir := t.TempDir()
	id, err := Init(dir, name)
	if err != nil {
		t.Fatal(err)
	}
	return id, dir
}

// ledger keeps tokens as the State does.
type ledger map[string]string

func (l ledger) issue(t Token) { l[t.ID] = t.Hash() }

func (l ledger) redeem(_ context.Context, req JoinRequest, hash string) (any, error) {
	want, ok := l[req.TokenID]
	if !ok || !HashEqual(want, hash) {
		return nil, ErrToken
	}
	delete(l, req.TokenID)
	return []string{"a"}, nil
}

func join(t *testing.T, by *Identity, name core.NodeName) *Identity {
	t.Helper()
	l, token := ledger{}, by.NewToken()
	l.issue(token)
	dir := t.TempDir()
	n, err := NewNewcomer(dir, name, token)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := by.Admit(t.Context(), n.Request, l.redeem)
	if err != nil {
		t.Fatal(err)
	}
	id, err := n.Finish(dir, answer)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// shake connects two ends and returns what each says about the other.
func shake(t *testing.T, client, server *tls.Config) (cs tls.ConnectionState, clientErr, serverErr error) {
	t.Helper()
	a, b := net.Pipe()
	deadline := time.Now().Add(5 * time.Second)
	a.SetDeadline(deadline)
	b.SetDeadline(deadline)
	done := make(chan error, 1)
	go func() {
		c := tls.Client(a, client)
		err := c.HandshakeContext(t.Context())
		if err == nil {
			_, err = c.Read(make([]byte, 1)) // the server's verdict comes after our own
		}
		a.Close()
		done <- err
	}()
	s := tls.Server(b, server)
	serverErr = s.HandshakeContext(t.Context())
	cs = s.ConnectionState()
	if serverErr == nil {
		s.Write([]byte("x"))
	}
	b.Close()
	return cs, <-done, serverErr
}

func TestMutualTLS(t *testing.T) {
	a, _ := newCA(t, "a")
	b := join(t, a, "b")
	stranger, _ := newCA(t, "b")
	for name, row := range map[string]struct {
		client *tls.Config
		ok     bool
	}{
		"member":               {b.ClientConfig("a", ProtoRaft), true},
		"wrong server name":    {b.ClientConfig("c", ProtoRaft), false},
		"client of another CA": {trusting(stranger.ClientConfig("a", ProtoNode)), false},
		"server of another CA": {stranger.ClientConfig("a", ProtoNode), false},
		"no certificate":       {&tls.Config{InsecureSkipVerify: true, NextProtos: []string{ProtoNode}}, false},
		"no certificate, join and node": {
			&tls.Config{InsecureSkipVerify: true, NextProtos: []string{ProtoJoin, ProtoNode}}, false,
		},
		"join":        {&tls.Config{InsecureSkipVerify: true, NextProtos: []string{ProtoJoin}}, true},
		"no protocol": {&tls.Config{InsecureSkipVerify: true}, false},
		"unknown":     {&tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}, false},
		"old TLS": {
			&tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, NextProtos: []string{ProtoJoin}}, false,
		},
	} {
		cs, clientErr, serverErr := shake(t, row.client, a.ServerConfig())
		if ok := clientErr == nil && serverErr == nil; ok != row.ok {
			t.Errorf("%s: client %v, server %v", name, clientErr, serverErr)
		}
		if name == "member" {
			if peer, err := a.Peer(cs); peer != "b" || err != nil {
				t.Errorf("peer is %q, %v", peer, err)
			}
		}
	}
}

// trusting makes a client that accepts any server.
func trusting(c *tls.Config) *tls.Config {
	c.VerifyConnection = nil
	return c
}

// A node whose clock says 1970 or 2100 is a member all the same; a certificate that has expired only warns.
func TestWallClockDoesNotMatter(t *testing.T) {
	a, _ := newCA(t, "a")
	b := join(t, a, "b")
	for _, year := range []int{1970, 2100} {
		at := func() time.Time { return time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC) }
		client, server := b.ClientConfig("a", ProtoNode), a.ServerConfig()
		client.Time, server.Time = at, at
		if _, c, s := shake(t, client, server); c != nil || s != nil {
			t.Errorf("%d: client %v, server %v", year, c, s)
		}
	}
	if w := a.Warning(time.Now()); w != "" {
		t.Error(w)
	}
	if w := a.Warning(time.Now().Add(nodeValidity)); !strings.Contains(w, "node certificate expires") {
		t.Error(w)
	}
}

// A member's certificate must not do as a CA, nor a certificate without the right usage.
func TestLeafIsNoCA(t *testing.T) {
	a, _ := newCA(t, "a")
	b := join(t, a, "b")
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	der, err := issue(b.cert.Leaf, b.cert.PrivateKey.(ed25519.PrivateKey), "a", key.Public())
	if err != nil {
		t.Fatal(err)
	}
	forged, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(a.pool, a.ca, forged, x509.ExtKeyUsageClientAuth); !errors.Is(err, ErrPeer) {
		t.Errorf("forged certificate: %v", err)
	}
	if err := verify(a.pool, a.ca, a.ca, x509.ExtKeyUsageClientAuth); err == nil {
		if _, err := nameOf(a.ca); err == nil {
			t.Error("the CA's own certificate passes for a node's")
		}
	}
}

// TestAnotherClustersPeer: whoever meets a member of another cluster is told so, also if their clocks never agreed.
func TestAnotherClustersPeer(t *testing.T) {
	ours, _ := newCA(t, "a")
	theirs, _ := newCA(t, "b")
	for name, err := range map[string]error{
		"chain":     verify(ours.pool, ours.ca, theirs.cert.Leaf, x509.ExtKeyUsageClientAuth),
		"signature": verifySignature(ours.ca, theirs.cert.Leaf),
	} {
		if !errors.Is(err, ErrPeer) || !strings.Contains(err.Error(), "belongs to another cluster") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTokenWorksOnce(t *testing.T) {
	a, _ := newCA(t, "a")
	l, token := ledger{}, a.NewToken()
	l.issue(token)
	parsed, err := ParseToken(" " + token.String() + "\n")
	if err != nil || parsed != token {
		t.Fatalf("%+v, %v", parsed, err)
	}
	wrong := token
	wrong.Secret = strings.Repeat("A", len(token.Secret))
	for i, row := range []struct {
		token Token
		ok    bool
	}{{wrong, false}, {token, true}, {token, false}} {
		n, err := NewNewcomer(t.TempDir(), "b", row.token)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Admit(t.Context(), n.Request, l.redeem); (err == nil) != row.ok || (err != nil && !errors.Is(err, ErrToken)) {
			t.Errorf("%d: %v", i, err)
		}
	}
	for _, text := range []string{"", "keepone1.a.b.c", token.String()[:40], "x" + token.String()} {
		if _, err := ParseToken(text); !errors.Is(err, ErrToken) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestAdmitRefuses(t *testing.T) {
	a, _ := newCA(t, "a")
	for name, change := range map[string]func(*JoinRequest){
		"name":        func(r *JoinRequest) { r.Name = "../b" },
		"CSR":         func(r *JoinRequest) { r.CSR[len(r.CSR)-1] ^= 1 },
		"no CSR":      func(r *JoinRequest) { r.CSR = nil },
		"public key":  func(r *JoinRequest) { r.PublicKey = []byte("x") },
		"incarnation": func(r *JoinRequest) { r.Incarnation = "x/y" },
	} {
		n, err := NewNewcomer(t.TempDir(), "b", a.NewToken())
		if err != nil {
			t.Fatal(err)
		}
		change(&n.Request)
		_, err = a.Admit(t.Context(), n.Request, func(context.Context, JoinRequest, string) (any, error) {
			t.Errorf("%s: the token was redeemed", name)
			return nil, nil
		})
		if err == nil {
			t.Errorf("%s: admitted", name)
		}
	}
}

// The newcomer shows its secret to nobody but the cluster that its token names.
func TestNewcomerKnowsItsCluster(t *testing.T) {
	a, _ := newCA(t, "a")
	other, _ := newCA(t, "a")
	n, err := NewNewcomer(t.TempDir(), "b", a.NewToken())
	if err != nil {
		t.Fatal(err)
	}
	if _, c, s := shake(t, n.ClientConfig(), a.ServerConfig()); c != nil || s != nil {
		t.Errorf("client %v, server %v", c, s)
	}
	if _, c, _ := shake(t, n.ClientConfig(), other.ServerConfig()); !errors.Is(c, ErrPeer) {
		t.Errorf("another cluster: %v", c)
	}
}

func TestFiles(t *testing.T) {
	id, dir := newCA(t, "a")
	again, err := Load(dir)
	if err != nil || again.Name != "a" || again.Incarnation != id.Incarnation {
		t.Fatalf("%+v, %v", again, err)
	}
	if _, err := Init(dir, "a"); !errors.Is(err, ErrExists) {
		t.Errorf("init twice: %v", err)
	}
	if _, err := NewNewcomer(dir, "a", id.NewToken()); !errors.Is(err, ErrExists) {
		t.Errorf("join after init: %v", err)
	}
	if _, err := Load(t.TempDir()); !errors.Is(err, ErrMissing) {
		t.Errorf("load nothing: %v", err)
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s is %v", path, info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	for _, name := range []string{fileKey, fileSeal, fileCAKey, fileIdentity} {
		path := filepath.Join(dir, "pki", name)
		keep, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		os.WriteFile(path, nil, 0o600)
		if _, err := Load(dir); err == nil {
			t.Errorf("%s is empty and nobody noticed", name)
		}
		os.WriteFile(path, keep, 0o600)
	}
	if err := Remove(dir); err != nil {
		t.Error(err)
	}
	if _, err := Init(dir, "bad name"); !errors.Is(err, ErrBadName) {
		t.Errorf("bad name: %v", err)
	}
}

func TestSealedOnAnyMember(t *testing.T) {
	a, _ := newCA(t, "a")
	b := join(t, a, "b")
	stranger, _ := newCA(t, "c")
	sealed, err := a.Seal("secret")
	if err != nil || !strings.HasPrefix(sealed, sealPrefix) || strings.Contains(sealed, "secret") {
		t.Fatalf("%q, %v", sealed, err)
	}
	if plain, err := b.Unseal(sealed); err != nil || plain != "secret" {
		t.Errorf("%q, %v", plain, err)
	}
	if _, err := stranger.Unseal(sealed); !errors.Is(err, ErrSealed) {
		t.Errorf("stranger: %v", err)
	}
	for _, text := range []string{"", "secret", sealPrefix, sealPrefix + "!", sealed[:len(sealed)-4], sealed + "AAAA"} {
		if _, err := a.Unseal(text); !errors.Is(err, ErrSealed) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if again, _ := a.Seal("secret"); again == sealed {
		t.Error("sealed twice to the same")
	}
}

func TestPairKeys(t *testing.T) {
	a, _ := newCA(t, "a")
	b, c := join(t, a, "b"), join(t, a, "c")
	ab, err := a.PairKey(b.Public())
	if err != nil {
		t.Fatal(err)
	}
	ba, err := b.PairKey(a.Public())
	if err != nil || string(ab) != string(ba) {
		t.Errorf("the two ends differ: %v", err)
	}
	if ac, _ := a.PairKey(c.Public()); string(ac) == string(ab) {
		t.Error("two pairs share a key")
	}
	if _, err := a.PairKey(a.Public()); err != nil {
		t.Errorf("with itself: %v", err)
	}
	if _, err := a.PairKey(nil); err == nil {
		t.Error("no key")
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(Token{ID: "ABCDEFGHIJ", Secret: strings.Repeat("A", 26), Fingerprint: strings.Repeat("0", 32)}.String())
	f.Fuzz(func(t *testing.T, text string) {
		if token, err := ParseToken(text); err == nil && token.String() != strings.TrimSpace(text) {
			t.Errorf("%q became %q", text, token)
		}
	})
}
