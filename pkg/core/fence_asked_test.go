package core

import (
	"strings"
	"testing"
	"time"
)

// fenceAsked is b's fence as somebody asks for it.
var fenceAsked = Ask{What: RequestFence, Node: "b", By: "somebody"}

// decideAll applies what the leader a decides, and returns what came of it.
func decideAll(t *testing.T, s State, v View) State {
	t.Helper()
	for _, c := range Decide(s, v, s.Now) {
		s = apply(t, s, c)
	}
	return s
}

// TestTwoRequestsOneShot: whoever asks second joins the first one's order.
func TestTwoRequestsOneShot(t *testing.T) {
	s := bed(t, fenceAsked)
	v := online(s, "a")
	s = decideAll(t, s, v)
	s = apply(t, s, fenceAsked)
	s = decideAll(t, s, v)
	if len(s.Fences) != 1 || s.Fences[0].Attempt != 1 || !s.Fences[0].Whole || !s.Fences[0].Shoot {
		t.Fatalf("fences: %+v", s.Fences)
	}
	s = apply(t, s, AddProof{Fence: openID(s), Proof: bmcOff})
	v.Nodes["b"] = NodeView{Live: LiveDown}
	s = decideAll(t, s, v)
	for _, r := range s.Requests {
		if r.State != RequestDone {
			t.Errorf("request %d is %s: %s", r.ID, r.State, r.Answer)
		}
	}
}

// TestOpenFenceIsWidened: the leader's own order becomes the one that was asked for; there are never two.
func TestOpenFenceIsWidened(t *testing.T) {
	s := bed(t, fenceB, fenceAsked)
	s = decideAll(t, s, online(s, "a"))
	f := s.Fences[0]
	if len(s.Fences) != 1 || !f.Whole || !f.Shoot || f.Attempt != 2 || f.Request == 0 {
		t.Errorf("fences: %+v", s.Fences)
	}
}

// TestFenceAnswers: what is proven of which life of the node, and when, answers a fence.
func TestFenceAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		first, then []Command
		change      func(View)
		want        RequestState
		says        string
	}{
		"off already":     {[]Command{evidence}, nil, func(v View) { v.Nodes["b"] = NodeView{Live: LiveDown} }, RequestDone, "already"},
		"off meanwhile":   {nil, []Command{evidence}, func(v View) { v.Nodes["b"] = NodeView{Live: LiveDown} }, RequestDone, "is fenced"},
		"off, back again": {[]Command{evidence}, nil, func(v View) { v.Nodes["b"] = NodeView{Live: LiveOnline, Instance: "b2"} }, RequestFailed, "ask again"},
		"rebooted":        {nil, []Command{Boot{Node: "b", Instance: "b2"}}, func(View) {}, RequestDone, "holding nothing"},
		"rebooted, not yet empty": {nil, []Command{Boot{Node: "b", Instance: "b2"}}, func(v View) {
			v.Nodes["b"].Report.Holds = []Target{{Service: "one", Epoch: 1}}
		}, RequestFailed, "another instance"},
		"only its clients": {[]Command{fenceOver}, []Command{storage(1, "b1", "one", 1)}, func(View) {}, RequestOpen, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := bed(t, c.first...)
			s = apply(t, s, fenceAsked)
			for _, then := range c.then {
				if p, ok := then.(AddProof); ok && p.Fence != 0 {
					p.Fence = openID(s)
					then = p
				}
				s = apply(t, s, then)
			}
			v := online(s, "a")
			c.change(v)
			s = decideAll(t, s, v)
			r := s.Requests[len(s.Requests)-1]
			if r.State != c.want || !strings.Contains(r.Answer, c.says) {
				t.Errorf("%s: %q", r.State, r.Answer)
			}
		})
	}
}

// TestFailedFenceIsTriedForWhoAsksAnew: the wait between two attempts is not for the one who has just come.
func TestFailedFenceIsTriedForWhoAsksAnew(t *testing.T) {
	s := bed(t, downB, fenceAsked)
	v := online(s, "a")
	v.Nodes["b"] = NodeView{Live: LiveDown, Silent: time.Minute}
	s = decideAll(t, s, v)
	s = apply(t, s, EndAttempt{Fence: openID(s), Attempt: s.Fences[0].Attempt, Note: "bmc: dead"})
	if again := decided[AssignFence](s, v); len(again) != 0 {
		t.Errorf("assigned at once without need: %+v", again)
	}
	s = apply(t, s, fenceAsked)
	if again := decided[AssignFence](s, v); len(again) != 1 {
		t.Errorf("assigned: %+v", again)
	}
}

// TestClientProofs: client scope is complete only with a proof for every grant, and never without one.
func TestClientProofs(t *testing.T) {
	s := bed(t, fenceOver)
	if _, all := s.ClientProofs("b1"); all {
		t.Error("nothing is proven yet")
	}
	s = apply(t, s, storage(openID(s), "b1", "one", 1))
	if proofs, all := s.ClientProofs("b1"); !all || len(proofs) != 1 {
		t.Errorf("%+v, all %t", proofs, all)
	}
	if _, all := s.ClientProofs("c1"); all {
		t.Error("c holds nothing: there is nothing to prove, and nothing proven")
	}
}
