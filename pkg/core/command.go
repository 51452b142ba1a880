package core

import (
	"maps"
	"slices"
	"time"
)

// Command is one change of State. Only this package has commands; pkg/wire encodes them by their Kind.
type Command interface {
	// Kind names the command on the wire. It never changes.
	Kind() string
	// apply returns the changed State, or why the command is refused; then nothing has changed.
	apply(s *next) error
}

// Entry is a command as it is committed.
type Entry struct {
	At   Time      // the proposing leader's cluster time
	Wall time.Time // its wall clock, for people alone
	By   NodeName  // the node that asked: for a forwarded command, the one its certificate names
	Command
}

// kinds makes an empty command of each kind, for decoding.
var kinds = map[string]func() Command{
	Init{}.Kind():              func() Command { return &Init{} },
	IssueToken{}.Kind():        func() Command { return &IssueToken{} },
	Join{}.Kind():              func() Command { return &Join{} },
	Leave{}.Kind():             func() Command { return &Leave{} },
	Configure{}.Kind():         func() Command { return &Configure{} },
	SetLife{}.Kind():           func() Command { return &SetLife{} },
	Boot{}.Kind():              func() Command { return &Boot{} },
	Give{}.Kind():              func() Command { return &Give{} },
	CommitClient{}.Kind():      func() Command { return &CommitClient{} },
	Started{}.Kind():           func() Command { return &Started{} },
	Promoted{}.Kind():          func() Command { return &Promoted{} },
	Raise{}.Kind():             func() Command { return &Raise{} },
	RunFailed{}.Kind():         func() Command { return &RunFailed{} },
	Restart{}.Kind():           func() Command { return &Restart{} },
	Release{}.Kind():           func() Command { return &Release{} },
	Vacated{}.Kind():           func() Command { return &Vacated{} },
	Contained{}.Kind():         func() Command { return &Contained{} },
	Lose{}.Kind():              func() Command { return &Lose{} },
	Block{}.Kind():             func() Command { return &Block{} },
	RaiseEpoch{}.Kind():        func() Command { return &RaiseEpoch{} },
	OrderFence{}.Kind():        func() Command { return &OrderFence{} },
	AssignFence{}.Kind():       func() Command { return &AssignFence{} },
	SettleLease{}.Kind():       func() Command { return &SettleLease{} },
	AddProof{}.Kind():          func() Command { return &AddProof{} },
	EndAttempt{}.Kind():        func() Command { return &EndAttempt{} },
	CloseFence{}.Kind():        func() Command { return &CloseFence{} },
	Ask{}.Kind():               func() Command { return &Ask{} },
	Answer{}.Kind():            func() Command { return &Answer{} },
	EndMaintenance{}.Kind():    func() Command { return &EndMaintenance{} },
	AcceptMaintenance{}.Kind(): func() Command { return &AcceptMaintenance{} },
}

// NewCommand returns a pointer to an empty command of the kind, for decoding into; false if no such kind is known.
func NewCommand(kind string) (Command, bool) {
	make, ok := kinds[kind]
	if !ok {
		return nil, false
	}
	return make(), true
}

// Kinds returns every kind of command, in order.
func Kinds() []string { return slices.Sorted(maps.Keys(kinds)) }
