package pki

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// material is an identity as it lies on disk.
type material struct {
	ca, cert    []byte // DER
	caKey, key  ed25519.PrivateKey
	seal        []byte
	hb          *ecdh.PrivateKey
	incarnation string
}

// store writes m below dataDir/pki as a whole: the folder appears under its name only when every file in it is on
// disk, so that a power cut leaves all of an identity or none.
func store(dataDir string, m material) (*Identity, error) {
	id, err := m.identity()
	if err != nil {
		return nil, fmt.Errorf("store identity: %w", err)
	}
	files, err := m.encode()
	if err != nil {
		return nil, fmt.Errorf("store identity: %w", err)
	}
	if err := absent(dataDir); err != nil {
		return nil, fmt.Errorf("store identity: %w", err)
	}
	if err := os.MkdirAll(dataDir, 0o700); err != nil {
		return nil, fmt.Errorf("store identity: %w", err)
	}
	tmp, err := os.MkdirTemp(dataDir, ".pki-") // 0700
	if err != nil {
		return nil, fmt.Errorf("store identity: %w", err)
	}
	defer os.RemoveAll(tmp)
	for name, data := range files {
		if err := writeFile(filepath.Join(tmp, name), data); err != nil {
			return nil, fmt.Errorf("store identity: %w", err)
		}
	}
	if err := errors.Join(syncDir(tmp), os.Rename(tmp, filepath.Join(dataDir, "pki")), syncDir(dataDir)); err != nil {
		return nil, fmt.Errorf("store identity: %w", err)
	}
	return id, nil
}

func absent(dataDir string) error {
	path := filepath.Join(dataDir, "pki")
	switch _, err := os.Stat(path); {
	case err == nil:
		return fmt.Errorf("%s: %w", path, ErrExists)
	case errors.Is(err, os.ErrNotExist):
		return nil
	default:
		return err
	}
}

// Remove takes the identity away, for an init or join that failed half way.
func Remove(dataDir string) error {
	if err := os.RemoveAll(filepath.Join(dataDir, "pki")); err != nil {
		return fmt.Errorf("remove identity: %w", err)
	}
	return nil
}

func (m material) encode() (map[string][]byte, error) {
	files := map[string][]byte{
		fileCA:       pemBlock("CERTIFICATE", m.ca),
		fileCert:     pemBlock("CERTIFICATE", m.cert),
		fileSeal:     pemBlock("KEEPONE SEAL KEY", m.seal),
		fileIdentity: []byte(m.incarnation + "\n"),
	}
	for name, key := range map[string]any{fileCAKey: m.caKey, fileKey: m.key, fileHB: m.hb} {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", name, err)
		}
		files[name] = pemBlock("PRIVATE KEY", der)
	}
	return files, nil
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// read is the other way round of encode.
func read(dir string) (material, error) {
	var m material
	raw := map[string][]byte{}
	for _, name := range []string{fileCA, fileCert, fileSeal, fileCAKey, fileKey, fileHB} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return m, err
		}
		block, _ := pem.Decode(data)
		if block == nil {
			return m, fmt.Errorf("read %s: no PEM block", filepath.Join(dir, name))
		}
		raw[name] = block.Bytes
	}
	incarnation, err := os.ReadFile(filepath.Join(dir, fileIdentity))
	if err != nil {
		return m, err
	}
	m = material{ca: raw[fileCA], cert: raw[fileCert], seal: raw[fileSeal], incarnation: strings.TrimSpace(string(incarnation))}
	if m.caKey, err = parseKey[ed25519.PrivateKey](raw[fileCAKey]); err != nil {
		return m, fmt.Errorf("read %s: %w", fileCAKey, err)
	}
	if m.key, err = parseKey[ed25519.PrivateKey](raw[fileKey]); err != nil {
		return m, fmt.Errorf("read %s: %w", fileKey, err)
	}
	if m.hb, err = parseKey[*ecdh.PrivateKey](raw[fileHB]); err != nil {
		return m, fmt.Errorf("read %s: %w", fileHB, err)
	}
	return m, nil
}

func parseKey[K any](der []byte) (K, error) {
	var zero K
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return zero, err
	}
	k, ok := key.(K)
	if !ok {
		return zero, fmt.Errorf("key is a %T", key)
	}
	return k, nil
}

// identity checks that the parts belong together.
func (m material) identity() (*Identity, error) {
	ca, err := x509.ParseCertificate(m.ca)
	if err != nil {
		return nil, fmt.Errorf("parse CA certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(m.cert)
	if err != nil {
		return nil, fmt.Errorf("parse node certificate: %w", err)
	}
	if pub, ok := leaf.PublicKey.(ed25519.PublicKey); !ok || !pub.Equal(m.key.Public()) {
		return nil, errors.New("node certificate and node key do not belong together")
	}
	if pub, ok := ca.PublicKey.(ed25519.PublicKey); !ok || !pub.Equal(m.caKey.Public()) {
		return nil, errors.New("CA certificate and CA key do not belong together")
	}
	if len(m.seal) != sealKeySize || m.incarnation == "" {
		return nil, errors.New("seal key or incarnation is damaged")
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	if err := verify(pool, ca, leaf, x509.ExtKeyUsageServerAuth); err != nil {
		return nil, fmt.Errorf("node certificate: %w", err)
	}
	name, err := nameOf(leaf)
	if err != nil {
		return nil, err
	}
	return &Identity{
		Name: name, Incarnation: m.incarnation,
		cert: tls.Certificate{Certificate: [][]byte{m.cert}, PrivateKey: m.key, Leaf: leaf},
		ca:   ca, caKey: m.caKey, pool: pool, seal: m.seal, hb: m.hb,
	}, nil
}

// writeFile makes a new file 0600 and waits until it is on disk.
func writeFile(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
