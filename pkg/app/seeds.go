package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

// seeds are the members' addresses as they were last known, on disk. After a cold start Raft applies nothing before
// it has a leader, and finds no leader before it knows where the others are.
type seeds struct {
	path string

	mu       sync.Mutex
	links    map[core.NodeName][]netip.Addr
	election time.Duration // Raft's timeout by the document that was known last; 0: none was
}

const (
	seedsFile = "peers.json"
	paceFile  = "raft-election" // a duration
)

// loadSeeds reads what is there; without a file there are none.
func loadSeeds(dataDir string) (*seeds, error) {
	s := &seeds{path: filepath.Join(dataDir, seedsFile), links: map[core.NodeName][]netip.Addr{}}
	if text, err := os.ReadFile(filepath.Join(dataDir, paceFile)); err == nil {
		s.election, _ = time.ParseDuration(string(text)) // what can't be read is as one that was never known
	}
	text, err := os.ReadFile(s.path)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("load peers: %w", err)
	}
	if err := json.Unmarshal(text, &s.links); err != nil {
		return nil, fmt.Errorf("load peers: %s: %w; remove it if the other nodes run, they tell this one again", s.path, err)
	}
	return s, nil
}

// of returns a node's addresses.
func (s *seeds) of(name core.NodeName) []netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.links[name]
}

// save keeps the addresses of a document, on disk before it returns.
func (s *seeds) save(spec core.Spec) error {
	links := map[core.NodeName][]netip.Addr{}
	for _, n := range spec.Nodes {
		links[n.Name] = n.Links
	}
	text, err := json.Marshal(links)
	if err != nil {
		return fmt.Errorf("encode peers: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.links, s.election = links, spec.Timing.RaftElection
	pace := []byte(s.election.String())
	if err := errors.Join(replaceFile(s.path, text), replaceFile(filepath.Join(filepath.Dir(s.path), paceFile), pace)); err != nil {
		return fmt.Errorf("save peers: %w", err)
	}
	return nil
}

// replaceFile writes a file as one: a crash leaves the old or the new.
func replaceFile(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return os.Rename(f.Name(), path)
}
