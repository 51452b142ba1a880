package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"github.com/keepone-ha/keepone/pkg/core"
)

// maxVoters is how many members vote: more make every commit slower and survive no more than two losses in practice.
const maxVoters = 5

// Member is one server of Raft's configuration.
type Member struct {
	Name        core.NodeName
	Incarnation string
	Voter       bool
}

func (m Member) id() raft.ServerID { return serverID(m.Name, m.Incarnation) }

func (r *Replica) servers() []raft.Server {
	f := r.raft.GetConfiguration()
	if f.Error() != nil {
		return nil
	}
	return f.Configuration().Servers
}

// Members returns Raft's configuration as this node knows it, by name.
func (r *Replica) Members() []Member {
	var all []Member
	for _, s := range r.servers() {
		all = append(all, Member{nameOf(s.ID), incarnationOf(s.ID), s.Suffrage == raft.Voter})
	}
	slices.SortFunc(all, func(a, b Member) int { return strings.Compare(string(a.id()), string(b.id())) })
	return all
}

// AddNonvoter makes the node a member that gets the log and does not vote. An earlier incarnation of it is removed
// first: what that one voted and stored is gone. On the leader only.
func (r *Replica) AddNonvoter(ctx context.Context, name core.NodeName, incarnation string) error {
	return r.add(ctx, name, incarnation, r.raft.AddNonvoter)
}

// AddVoter is AddNonvoter with a vote; it also promotes a member.
func (r *Replica) AddVoter(ctx context.Context, name core.NodeName, incarnation string) error {
	return r.add(ctx, name, incarnation, r.raft.AddVoter)
}

type addFunc func(raft.ServerID, raft.ServerAddress, uint64, time.Duration) raft.IndexFuture

func (r *Replica) add(ctx context.Context, name core.NodeName, incarnation string, add addFunc) error {
	id := serverID(name, incarnation)
	for _, m := range r.Members() {
		if m.Name == name && m.Incarnation != incarnation {
			if err := r.ask(ctx, func() raft.Future { return r.raft.RemoveServer(m.id(), 0, proposeLimit) }); err != nil {
				return fmt.Errorf("remove earlier member %s: %w", m.id(), err)
			}
		}
	}
	if err := r.ask(ctx, func() raft.Future { return add(id, raft.ServerAddress(name), 0, proposeLimit) }); err != nil {
		return fmt.Errorf("add member %s: %w", id, err)
	}
	return nil
}

// Demote takes a member's vote. On the leader only.
func (r *Replica) Demote(ctx context.Context, name core.NodeName) error {
	return r.each(ctx, name, "take vote of", r.raft.DemoteVoter)
}

// Remove takes a node out of Raft, whatever its incarnation. On the leader only; a leader that removes itself steps
// down. A node that is no member is no error.
func (r *Replica) Remove(ctx context.Context, name core.NodeName) error {
	return r.each(ctx, name, "remove member", r.raft.RemoveServer)
}

func (r *Replica) each(ctx context.Context, name core.NodeName, what string,
	f func(raft.ServerID, uint64, time.Duration) raft.IndexFuture,
) error {
	var errs []error
	for _, m := range r.Members() {
		if m.Name != name {
			continue
		}
		if err := r.ask(ctx, func() raft.Future { return f(m.id(), 0, proposeLimit) }); err != nil {
			errs = append(errs, fmt.Errorf("%s %s: %w", what, m.id(), err))
		}
	}
	return errors.Join(errs...)
}

// VoterChange is one step towards the right set of voters.
type VoterChange struct {
	Name    core.NodeName
	Promote bool // otherwise: demote
}

// PlanVoters returns the next single step towards 1, 3 or 5 living voters, or nil if all is well. An even number is
// never aimed at: it costs a vote more and survives no more. alive says who is heard; a dead voter gives its place
// up only if a living member can take it. A witness is first to vote, since it has nothing else to do.
func PlanVoters(members []Member, alive, witness func(core.NodeName) bool) *VoterChange {
	var voters, deadVoters, spare []Member
	for _, m := range members {
		switch {
		case m.Voter && alive(m.Name):
			voters = append(voters, m)
		case m.Voter:
			deadVoters = append(deadVoters, m)
		case alive(m.Name):
			spare = append(spare, m)
		}
	}
	slices.SortStableFunc(spare, func(a, b Member) int {
		switch {
		case witness(a.Name) == witness(b.Name):
			return strings.Compare(string(a.Name), string(b.Name))
		case witness(a.Name):
			return -1
		default:
			return 1
		}
	})
	want := min(maxVoters, (len(members)-1)|1) // 1, 1, 3, 3, 5, 5, ...
	have := len(voters) + len(deadVoters)
	switch {
	case have > want && len(deadVoters) > 0:
		return &VoterChange{Name: deadVoters[0].Name}
	case have > want:
		return &VoterChange{Name: voters[len(voters)-1].Name}
	case have < want && len(spare) > 0:
		return &VoterChange{Name: spare[0].Name, Promote: true}
	case have == want && len(deadVoters) > 0 && len(spare) > 0:
		return &VoterChange{Name: deadVoters[0].Name} // its place is taken in the next step
	}
	return nil
}
