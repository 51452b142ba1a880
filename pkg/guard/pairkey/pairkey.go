// Package pairkey derives the keys of the heartbeats. It is apart from pkg/guard so that the guard's process does
// not carry the curves: the daemon computes the keys and writes them to guard.conf.
package pairkey

import (
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"fmt"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/guard"
)

// Derive returns the key that self shares with peer. Both ends get the same one; it is bound to the cluster and
// to the two names. The key of a node with itself takes its own public key.
func Derive(private *ecdh.PrivateKey, peerPublic []byte, cluster string, self, peer core.NodeName) (guard.Key, error) {
	public, err := ecdh.X25519().NewPublicKey(peerPublic)
	if err != nil {
		return guard.Key{}, fmt.Errorf("read public key of %s: %w", peer, err)
	}
	secret, err := private.ECDH(public)
	if err != nil {
		return guard.Key{}, fmt.Errorf("derive key with %s: %w", peer, err)
	}
	info := fmt.Sprintf("keepone heartbeat 1\x00%s\x00%s\x00%s", cluster, min(self, peer), max(self, peer))
	derived, err := hkdf.Key(sha256.New, secret, nil, info, len(guard.Key{}))
	if err != nil {
		return guard.Key{}, fmt.Errorf("derive key with %s: %w", peer, err)
	}
	return guard.Key(derived), nil
}

// Generate draws a node's private key.
func Generate() (*ecdh.PrivateKey, error) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate heartbeat key: %w", err)
	}
	return key, nil
}
