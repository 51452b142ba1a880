package app

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/guard"
	"github.com/keepone-ha/keepone/pkg/observe"
)

// leads is a leader's Raft. Its State may change between two looks.
type leads struct {
	*committed
	quorum error
	asked  int
	looked func() // after each look at State
}

func (l *leads) Leads() bool    { return true }
func (l *leads) Term() uint64   { return 7 }
func (l *leads) Now() core.Time { return core.Time(time.Minute) }

func (l *leads) VerifyQuorum(context.Context) error {
	l.asked++
	return l.quorum
}

func (l *leads) State() core.State {
	state, _ := l.watch()
	if l.looked != nil {
		l.looked()
	}
	return state
}

// acking is a leader that acknowledges b's heartbeats, an hour after its barrier.
func acking(t *testing.T) (*guardLink, *leads, *[]guard.Ack) {
	t.Helper()
	raft := &leads{committed: newCommitted(t)}
	a := &App{observer: observe.New("a", 0, func() {})}
	a.observer.Lead(0, raft.state.Spec.Timing)
	g := newGuardLink(a)
	acks := &[]guard.Ack{}
	g.raft = raft
	g.send = func(_ core.NodeName, ack guard.Ack) error {
		*acks = append(*acks, ack)
		return nil
	}
	return g, raft, acks
}

const arrived = boottime.Time(time.Hour)

func beatOf(instance core.Instance, seq uint64) guard.Arrival {
	return guard.Arrival{At: arrived, Heartbeat: guard.Heartbeat{Node: "b", Instance: instance, Seq: seq, Sent: 1}}
}

// TestAckNeedsQuorum: a heartbeat is acked only after a quorum was made sure of since it arrived (I5).
func TestAckNeedsQuorum(t *testing.T) {
	for _, quorum := range []error{nil, errors.New("no quorum")} {
		synctest.Test(t, func(t *testing.T) {
			g, raft, acks := acking(t)
			raft.quorum = quorum
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				g.answer(ctx)
			}()
			g.deliver(beatOf("b1", 1))
			time.Sleep(time.Second)
			cancel()
			<-done
			if got := len(*acks) == 1; got != (quorum == nil) || raft.asked != 1 {
				t.Errorf("quorum %v: %d acks, asked %d times", quorum, len(*acks), raft.asked)
			}
		})
	}
}

// TestAckNames: an ack names the grants of the very instance that was heard (I4), and what is being fenced no more (I3).
func TestAckNames(t *testing.T) {
	g, raft, acks := acking(t)
	g.ack(beatOf("b0", 1))
	if len(*acks) != 0 {
		t.Errorf("an earlier life is acked: %+v", *acks)
	}
	g.ack(beatOf("b1", 2))
	if len(*acks) != 1 || len((*acks)[0].Grants) != 1 || (*acks)[0].Term != 7 || (*acks)[0].Maintenance != 0 {
		t.Fatalf("acks: %+v", *acks)
	}
	raft.apply(core.OrderFence{Node: "b", Instance: "b1", Targets: []core.Target{{Service: "one", Epoch: 1}}, Executor: "a"})
	g.ack(beatOf("b1", 3))
	if len(*acks) != 2 || len((*acks)[1].Grants) != 0 {
		t.Errorf("what is being fenced has its lease renewed: %+v", *acks)
	}
}

// TestAckOfMaintenance: a holder is told of maintenance only once State knows that it may go without a lease (I5).
func TestAckOfMaintenance(t *testing.T) {
	g, raft, acks := acking(t)
	raft.apply(core.Ask{What: core.RequestMaintenance, For: time.Hour})
	g.ack(beatOf("b1", 1))
	raft.apply(core.AcceptMaintenance{Node: "b", Instance: "b1"})
	g.ack(beatOf("b1", 2))
	if len(*acks) != 2 || (*acks)[0].Maintenance != 0 || (*acks)[1].Maintenance == 0 {
		t.Errorf("acks: %+v", *acks)
	}
}

// TestAckIsNoted: before an ack is sent the ledger knows of it, else the leader could call the lease over first (I5).
func TestAckIsNoted(t *testing.T) {
	g, raft, _ := acking(t)
	sent := false
	g.send = func(core.NodeName, guard.Ack) error {
		sent = true
		fenced, _ := raft.watch()
		fenced, err := core.Apply(fenced, core.Entry{Command: core.Contained{Service: "one", Epoch: 1, Instance: "b1"}})
		if err != nil {
			t.Fatal(err)
		}
		if over := g.app.observer.View(fenced, arrived.Add(time.Second), nil).LeaseOver; len(over) != 0 {
			t.Errorf("called over as it is renewed: %v", over)
		}
		return nil
	}
	g.ack(beatOf("b1", 1))
	if !sent {
		t.Error("not acked")
	}
	g.app.observer.Follow()
	sent = false
	g.ack(beatOf("b1", 2))
	if sent {
		t.Error("acked without leading")
	}
}

// TestAckRacesFence: a fence that is ordered while an ack is being made counts on the lease as it was (I3).
func TestAckRacesFence(t *testing.T) {
	g, raft, acks := acking(t)
	raft.looked = func() {
		raft.looked = nil
		raft.apply(core.OrderFence{Node: "b", Instance: "b1", Targets: []core.Target{{Service: "one", Epoch: 1}}, Executor: "a"})
	}
	g.ack(beatOf("b1", 1))
	if len(*acks) != 0 {
		t.Errorf("sent after the fence was ordered: %+v", *acks)
	}
}
