package core

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// managedBed is bed under a cluster manager, with one given back.
func managedBed(t *testing.T, more ...Command) State {
	t.Helper()
	s := bed(t, vacate)
	s.Spec.Manager = ManagerPacemaker
	return apply(t, s, more...)
}

// claims makes the View in which nodes claim one that far.
func claims(v View, stage Stage, nodes ...NodeName) View {
	for _, name := range nodes {
		v.Nodes[name].Report.Claims = map[ServiceName]Stage{"one": stage}
	}
	return v
}

// TestManagedRequests: what a cluster manager orders is not asked of keepone; what keepone alone decides is.
func TestManagedRequests(t *testing.T) {
	run := []Command{giveToC, Started{Service: "one", Epoch: 2, Instance: "c1", Run: 1}}
	for name, c := range map[string]struct {
		ask     Ask
		refused bool
	}{
		"switchover": {switchover, true},
		"restart":    {Ask{What: RequestRestart, Service: "one"}, true},
		"failover":   {Ask{What: RequestFailover, Service: "one"}, false},
		"stop":       {stopOne, false},
		"drain":      {Ask{What: RequestDrain, Node: "c"}, false},
	} {
		s := managedBed(t, run...)
		_, err := Apply(s, Entry{At: s.Now, Command: c.ask})
		if c.refused != errors.Is(err, ErrRefused) || !c.refused && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if c.refused && !strings.Contains(err.Error(), "cluster manager") {
			t.Errorf("%s does not say who: %v", name, err)
		}
	}
}

// TestManagedStartAnswered: keepone starts nothing itself; with the stop taken back its part is done.
func TestManagedStartAnswered(t *testing.T) {
	s := managedBed(t, stopOne, Ask{What: RequestStart, Service: "one", Token: "s"})
	for _, a := range decided[Answer](s, online(s, "a")) {
		if a.State == RequestDone && strings.Contains(a.Answer, "cluster manager") {
			return
		}
	}
	t.Errorf("answers: %+v", decided[Answer](s, online(s, "a")))
}

// TestManagedDrainAnswer tells who has to move what is left.
func TestManagedDrainAnswer(t *testing.T) {
	s := managedBed(t, giveToC, Started{Service: "one", Epoch: 2, Instance: "c1", Run: 1}, Ask{What: RequestDrain, Node: "c"})
	got := decided[Answer](s, online(s, "a"))
	if len(got) != 1 || got[0].State != RequestOpen || !strings.Contains(got[0].Answer, "cluster manager") {
		t.Errorf("answers: %+v", got)
	}
	if len(decided[Release](s, online(s, "a"))) != 0 {
		t.Error("released under the cluster manager's feet")
	}
}

// deadDaemon makes the View in which the node's guard lives and its daemon does not.
func deadDaemon(v View, node NodeName) View {
	n := v.Nodes[node]
	n.Daemon, n.Report = false, nil
	v.Nodes[node] = n
	return v
}

// TestClaimedElsewhere: a holder whose daemon is dead is cut off once the service is started elsewhere, without a shot,
// and what else runs there is left alone, also by a second attempt.
func TestClaimedElsewhere(t *testing.T) {
	held := []Command{giveToC, Give{Service: "two", Node: "c", Instance: "c1"}}
	s := managedBed(t, held...)
	if got := decided[OrderFence](s, claims(online(s, "a"), "", "b")); len(got) != 0 {
		t.Errorf("fenced although its daemon speaks for itself: %+v", got)
	}
	if got := decided[OrderFence](s, deadDaemon(online(s, "a"), "c")); len(got) != 0 {
		t.Errorf("fenced although nobody waits: %+v", got)
	}
	v := claims(deadDaemon(online(s, "a"), "c"), "", "b")
	unfit := v.Nodes["b"].Report
	unfit.Ready = map[ServiceName]Ready{"one": {Reason: "no"}}
	if got := decided[OrderFence](s, v); len(got) != 0 {
		t.Errorf("fenced for one that can't take it: %+v", got)
	}
	unfit.Ready = map[ServiceName]Ready{"one": {OK: true}}
	orders := decided[OrderFence](s, v)
	if len(orders) != 1 || orders[0].Shoot || len(orders[0].Targets) != 1 || orders[0].Targets[0].Service != "one" {
		t.Fatalf("orders: %+v", orders)
	}
	s = apply(t, s, orders[0])
	if left := s.Leases("c1"); len(left) != 1 || left[0].Service != "two" {
		t.Errorf("leases: %+v", left)
	}
	s = apply(t, s, EndAttempt{Fence: openID(s), Attempt: 1})
	s.Now = s.Now.Add(time.Minute)
	again := decided[AssignFence](s, v)
	if len(again) != 1 || len(again[0].Targets) != 1 {
		t.Errorf("assigned again: %+v", again)
	}
}
