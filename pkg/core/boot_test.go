package core

import "testing"

// A node that boots is heard again: its next failover counts its silence from its own last heartbeat, not from one
// of an earlier life.
func TestBootForgetsTheSilenceBefore(t *testing.T) {
	s := State{Nodes: map[NodeName]Node{"a": {Name: "a", Instance: "old", Life: LifeOnline}}}
	for _, c := range []Command{
		SetLife{Node: "a", Instance: "old", Life: LifeSuspect, Heard: 5, Reason: "silent"},
		Boot{Node: "a", Instance: "new"},
		SetLife{Node: "a", Instance: "new", Life: LifeSuspect, Heard: 90, Reason: "silent"},
	} {
		var err error
		if s, err = Apply(s, Entry{At: s.Now + 10, Command: c}); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.Nodes["a"].Heard; got != 90 {
		t.Errorf("heard at %d, want 90: of this life", got)
	}
}

// A node that boots again before anybody missed it was not silent: the silence before the life that has just ended is over
// too, and counts for no failover.
func TestBootAgainUnnoticed(t *testing.T) {
	s := State{Nodes: map[NodeName]Node{"a": {Name: "a", Instance: "old", Life: LifeOnline}}}
	for _, c := range []Command{
		SetLife{Node: "a", Instance: "old", Life: LifeDown, Heard: 5, Reason: "silent"},
		Boot{Node: "a", Instance: "new"},
		Boot{Node: "a", Instance: "newer"},
	} {
		var err error
		if s, err = Apply(s, Entry{At: s.Now + 10, Command: c}); err != nil {
			t.Fatal(err)
		}
		if got := s.Nodes["a"].Heard; s.Nodes["a"].Instance == "new" && got != 5 {
			t.Errorf("heard at %d, want 5: the silence that the boot ended", got)
		}
	}
	if got := s.Nodes["a"].Heard; got != 0 {
		t.Errorf("heard at %d, want 0: it was not silent", got)
	}
}
