package corosync

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Quorum is what corosync-quorumtool -s -p prints.
type Quorum struct {
	Quorate  bool // corosyncQuorate
	NodeID   uint32
	RingID   string
	Expected int // votes
	Total    int // votes that are there
	Needed   int // votes for a quorum
	Members  []Member
}

// Member is a node of this node's partition.
type Member struct {
	ID    uint32
	Votes int
	Name  string // its address if corosync.conf names none
	Local bool
}

// ParseQuorum reads the answer of corosync-quorumtool -s -p (3.1). One without the line "Quorate" is refused: quorum
// is never taken for granted.
func ParseQuorum(text []byte) (Quorum, error) {
	var q Quorum
	told, members := false, false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "Nodeid") {
			members = true
			continue
		}
		if members {
			if m, ok := member(line); ok {
				q.Members = append(q.Members, m)
			}
			continue
		}
		key, value, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		value = strings.TrimSpace(value)
		switch key {
		case "Quorate":
			told, q.Quorate = true, value == "Yes"
		case "Node ID":
			q.NodeID = uint32(number(value, 32))
		case "Ring ID":
			q.RingID = value
		case "Expected votes":
			q.Expected = int(number(value, 31))
		case "Total votes":
			q.Total = int(number(value, 31))
		case "Quorum":
			q.Needed = int(number(value, 31)) // "2 Activity blocked" without quorum
		}
	}
	if !told {
		return Quorum{}, errors.New("read corosync's quorum: corosync-quorumtool does not say whether it is quorate: is it of corosync 3?")
	}
	return q, nil
}

// member reads "1  1  NR n1 (local)": id, votes, a column for the quorum device where -p is given, name.
func member(line string) (Member, bool) {
	line, local := strings.CutSuffix(line, " (local)")
	fields := strings.Fields(line)
	if len(fields) < 3 {
		return Member{}, false
	}
	id, err := strconv.ParseUint(fields[0], 10, 32)
	if err != nil || id == 0 { // 0: the quorum device
		return Member{}, false
	}
	votes, err := strconv.ParseUint(fields[1], 10, 31)
	if err != nil {
		return Member{}, false
	}
	return Member{ID: uint32(id), Votes: int(votes), Name: fields[len(fields)-1], Local: local}, true
}

// number is the number that a text begins with, 0 if it begins with none.
func number(text string, bits int) uint64 {
	digits, _, _ := strings.Cut(text, " ")
	n, err := strconv.ParseUint(digits, 10, bits)
	if err != nil {
		return 0
	}
	return n
}

// Totem is the timing that corosync runs with.
type Totem struct {
	Token     time.Duration
	Consensus time.Duration
}

// ParseTotem reads the answer of corosync-cmapctl, lines such as "runtime.config.totem.token (u32) = 1000".
func ParseTotem(text []byte) (Totem, error) {
	var t Totem
	for line := range strings.Lines(string(text)) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), " = ")
		if !ok {
			continue
		}
		name, _, _ := strings.Cut(key, " ")
		switch name {
		case "runtime.config.totem.token":
			t.Token = time.Duration(number(value, 32)) * time.Millisecond
		case "runtime.config.totem.consensus":
			t.Consensus = time.Duration(number(value, 32)) * time.Millisecond
		}
	}
	if t.Token == 0 || t.Consensus == 0 {
		return Totem{}, fmt.Errorf("read corosync's timing: token %s, consensus %s: corosync-cmapctl names them not", t.Token, t.Consensus)
	}
	return t, nil
}
