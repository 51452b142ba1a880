package faultdisk

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

func write(at int64, n int, b byte) change {
	return change{at, bytes.Repeat([]byte{b}, n)}
}

// What was synced outlasts every cut; what was not may be there, in part or not.
func TestCut(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(100) {
		s := &shadow{}
		s.pending = append(s.pending, write(0, 2*sector, 'a'))
		s.sync()
		s.pending = append(s.pending, write(sector, 2*sector, 'b'), change{at: 2 * sector})
		content := s.cut(rand.New(rand.NewPCG(seed, 0)))
		if !bytes.Equal(content[:sector], bytes.Repeat([]byte{'a'}, sector)) {
			t.Fatalf("seed %d: what was synced is gone", seed)
		}
		seen[string(bytes.ReplaceAll(bytes.ReplaceAll(content, bytes.Repeat([]byte{'a'}, sector), []byte{'a'}), bytes.Repeat([]byte{'b'}, sector), []byte{'b'}))] = true
	}
	for _, want := range []string{"aa", "ab", "abb"} {
		if !seen[want] {
			t.Errorf("no cut left %q: %v", want, seen)
		}
	}
}

// After a failed fsync the next one says nothing about what the first was for.
func TestSyncFailed(t *testing.T) {
	s := &shadow{pending: []change{write(0, sector, 'a')}}
	s.syncFailed()
	s.pending = append(s.pending, write(sector, sector, 'b'))
	s.sync()
	lost := false
	for seed := range uint64(20) {
		content := s.cut(rand.New(rand.NewPCG(seed, 0)))
		lost = lost || content[0] != 'a'
		if content[sector] != 'b' {
			t.Fatal("what was synced is gone")
		}
	}
	if !lost {
		t.Error("the failed write is always there")
	}
}
