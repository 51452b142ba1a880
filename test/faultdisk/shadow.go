package faultdisk

import (
	"math/rand/v2"
	"slices"
)

// sector is what a disk writes as a whole: a torn write ends at such a border.
const sector = 512

// change is one write, or a new length if it has no data.
type change struct {
	at   int64
	data []byte
}

func (c change) to(content []byte) []byte {
	if c.data == nil {
		return append(content[:min(len(content), int(c.at))], make([]byte, max(0, int(c.at)-len(content)))...)
	}
	if end := int(c.at) + len(c.data); end > len(content) {
		content = append(content, make([]byte, end-len(content))...)
	}
	copy(content[c.at:], c.data)
	return content
}

// shadow is what a disk has of one file, apart from what the file system shows of it.
type shadow struct {
	synced  []byte   // on the platter
	pending []change // in the cache: fsync brings them there
	lost    []change // an fsync of them failed: no later one tries again, as Linux has it
}

func (s *shadow) sync() {
	for _, c := range s.pending {
		s.synced = c.to(s.synced)
	}
	s.pending = nil
}

func (s *shadow) syncFailed() {
	s.lost = append(s.lost, s.pending...)
	s.pending = nil
}

// cut is what the disk has after its power went: what was synced, and of the rest, in its order, some whole, some in part, some not.
func (s *shadow) cut(r *rand.Rand) []byte {
	content := slices.Clone(s.synced)
	for _, c := range slices.Concat(s.lost, s.pending) {
		switch r.IntN(3) {
		case 0:
			continue
		case 1:
			if n := len(c.data) / sector; c.data != nil {
				c.data = c.data[:sector*r.IntN(n+1)]
			}
		}
		content = c.to(content)
	}
	return content
}
