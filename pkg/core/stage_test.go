package core

import (
	"errors"
	"strings"
	"testing"
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
