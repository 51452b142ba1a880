package pki

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
)

const (
	sealKeySize = 32 // AES-256
	sealPrefix  = "sealed:"
)

// Seal hides a secret that is replicated or written down, so that only a member can open it: AES-256-GCM with the
// key that every member has, a random nonce in front. The same text never seals to the same twice.
func (id *Identity) Seal(plain string) (string, error) {
	aead, err := id.aead()
	if err != nil {
		return "", fmt.Errorf("seal secret: %w", err)
	}
	nonce := make([]byte, aead.NonceSize())
	rand.Read(nonce)
	return sealPrefix + base64.StdEncoding.EncodeToString(aead.Seal(nonce, nonce, []byte(plain), nil)), nil
}

// Unseal opens what Seal made on any member. The error never holds the text.
func (id *Identity) Unseal(sealed string) (string, error) {
	text, ok := strings.CutPrefix(sealed, sealPrefix)
	if !ok {
		return "", fmt.Errorf("unseal secret: does not begin with %q: %w", sealPrefix, ErrSealed)
	}
	aead, err := id.aead()
	if err != nil {
		return "", fmt.Errorf("unseal secret: %w", err)
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) < aead.NonceSize() {
		return "", fmt.Errorf("unseal secret: not base64, or too short: %w", ErrSealed)
	}
	plain, err := aead.Open(nil, raw[:aead.NonceSize()], raw[aead.NonceSize():], nil)
	if err != nil {
		return "", fmt.Errorf("unseal secret: %w", ErrSealed)
	}
	return string(plain), nil
}

func (id *Identity) aead() (cipher.AEAD, error) {
	block, err := aes.NewCipher(id.seal)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// PairKey returns the key that this node shares with one other alone, for their heartbeats' MAC. Both ends get the
// same; with its own public key a node gets the key for its own guard and daemon.
func (id *Identity) PairKey(peerPublic []byte) ([]byte, error) {
	peer, err := ecdh.X25519().NewPublicKey(peerPublic)
	if err != nil {
		return nil, fmt.Errorf("derive pair key: %w", err)
	}
	shared, err := id.hb.ECDH(peer)
	if err != nil {
		return nil, fmt.Errorf("derive pair key: %w", err)
	}
	first, second := id.Public(), peerPublic
	if bytes.Compare(first, second) > 0 {
		first, second = second, first
	}
	salt := append(append([]byte{}, first...), second...)
	key, err := hkdf.Key(sha256.New, shared, salt, "keepone heartbeat 1", 32)
	if err != nil {
		return nil, fmt.Errorf("derive pair key: %w", err)
	}
	return key, nil
}
