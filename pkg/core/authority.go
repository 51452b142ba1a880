package core

import (
	"fmt"
	"reflect"
)

// Authority says whether a node may propose a command: what only the leader decides comes from no other node,
// and a node speaks for itself alone.
func Authority(s State, by NodeName, leader NodeName, c Command) error {
	speaks := func(node NodeName) error {
		if node != by {
			return fmt.Errorf("%s speaks for %s: %w", by, node, ErrRefused)
		}
		return nil
	}
	holder := func(name ServiceName) error {
		if g := s.Services[name].Grant; g != nil {
			return speaks(g.Node)
		}
		return nil // Apply refuses it as stale
	}
	executor := func(id uint64) error {
		for _, f := range s.Fences {
			if f.ID == id {
				return speaks(f.Executor)
			}
		}
		return nil
	}
	switch c := plain(c).(type) {
	case CommitClient:
		return holder(c.Service)
	case Started:
		return holder(c.Service)
	case Promoted:
		return holder(c.Service)
	case RunFailed:
		return holder(c.Service)
	case Vacated:
		return holder(c.Service)
	case Contained:
		return holder(c.Service)
	case AddProof:
		switch {
		case c.Proof.Kind == ProofHuman:
			return fmt.Errorf("a human's word comes by a request: %w", ErrRefused)
		case by != leader && c.Fence != 0 && c.Proof.Kind != ProofRebooted:
			return executor(c.Fence)
		}
	case EndAttempt:
		return executor(c.Fence)
	case Ask, Configure, Leave, IssueToken:
		return nil // an operator at any node
	case Join:
		return nil // through whichever member was asked: the token is what counts, and Apply uses it up
	}
	if by != leader {
		return fmt.Errorf("%s is for the leader to decide, not for %s: %w", c.Kind(), by, ErrRefused)
	}
	return nil
}

// plain gives a command by value, whether it was decoded or made.
func plain(c Command) Command {
	if v := reflect.ValueOf(c); v.Kind() == reflect.Pointer && !v.IsNil() {
		return v.Elem().Interface().(Command)
	}
	return c
}
