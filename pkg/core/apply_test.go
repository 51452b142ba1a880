package core

import (
	"errors"
	"testing"
	"time"
)

// bed is a State made by commands, for tables: a, b, c are online, one is held by b (b1) at epoch 1, and runs.
func bed(t *testing.T, more ...Command) State {
	t.Helper()
	s := State{}
	run := func(c Command) {
		next, err := Apply(s, Entry{At: s.Now.Add(time.Second), Command: c})
		if err != nil {
			t.Fatalf("%s %+v: %v", c.Kind(), c, err)
		}
		s = next
	}
	run(Init{Cluster: "test", Spec: testSpec("a b c w+w", "one", "two")})
	for _, name := range []NodeName{"a", "b", "c", "w"} {
		run(IssueToken{ID: string(name), Hash: "h", Node: name, For: time.Hour})
		run(Join{Node: name, Incarnation: "1", TokenID: string(name), TokenHash: "h"})
		run(Boot{Node: name, Instance: Instance(name + "1")})
	}
	run(Give{Service: "one", Node: "b", Instance: "b1", Cause: CauseStart})
	run(CommitClient{Service: "one", Epoch: 1, Instance: "b1", Address: "b:1"})
	run(Started{Service: "one", Epoch: 1, Instance: "b1", Run: 1})
	for _, c := range more {
		run(c)
	}
	return s
}

var (
	vacate     = Vacated{Service: "one", Epoch: 1, Instance: "b1"}
	release    = Release{Service: "one", Epoch: 1, Cause: CauseSwitchover}
	contained  = Contained{Service: "one", Epoch: 1, Instance: "b1"}
	fenceB     = OrderFence{Node: "b", Instance: "b1", Targets: []Target{{Service: "one", Epoch: 1}}, Executor: "a"}
	fenceOver  = OrderFence{Node: "b", Instance: "b1", Targets: []Target{{Service: "one", Epoch: 1, LeaseOver: true}}, Executor: "a"}
	bmcOff     = Proof{Kind: ProofBMCOff, Instance: "b1", By: "a"}
	evidence   = AddProof{Node: "b", Proof: bmcOff}
	suspectB   = SetLife{Node: "b", Instance: "b1", Life: LifeSuspect}
	downB      = SetLife{Node: "b", Instance: "b1", Life: LifeDown}
	downC      = SetLife{Node: "c", Instance: "c1", Life: LifeDown}
	lose       = Lose{Service: "one", Epoch: 1}
	maintain   = Ask{What: RequestMaintenance, For: time.Minute}
	giveToC    = Give{Service: "one", Node: "c", Instance: "c1", Expect: 1}
	stopOne    = Ask{What: RequestStop, Service: "one"}
	confirmB   = Ask{What: RequestFenceConfirm, Node: "b", By: "op"}
	switchover = Ask{What: RequestSwitchover, Service: "one"}
)

// storage is the client proof of a grant.
func storage(fence uint64, instance Instance, service ServiceName, epoch Epoch) AddProof {
	return AddProof{Fence: fence, Proof: Proof{Kind: ProofStorage, Instance: instance, Service: service, Epoch: epoch, By: "a"}}
}

// openID is the id of the newest fence.
func openID(s State) uint64 { return s.Fences[len(s.Fences)-1].ID }

func TestRefusals(t *testing.T) {
	join := func(node NodeName, token string) Join {
		return Join{Node: node, Incarnation: "2", TokenID: token, TokenHash: "h"}
	}
	for name, c := range map[string]struct {
		first []Command
		then  Command
		want  error
	}{
		"give: held":                      {nil, giveToC, ErrHeld},
		"give: held though contained":     {[]Command{contained}, giveToC, ErrHeld},
		"give: held though down":          {[]Command{downB}, giveToC, ErrHeld},
		"give: stale epoch":               {[]Command{vacate}, Give{Service: "one", Node: "c", Instance: "c1", Expect: 0}, ErrStale},
		"give: epoch ahead":               {[]Command{vacate}, Give{Service: "one", Node: "c", Instance: "c1", Expect: 2}, ErrStale},
		"give: another instance":          {[]Command{vacate}, Give{Service: "one", Node: "c", Instance: "c0", Expect: 1}, ErrStale},
		"give: unknown node":              {[]Command{vacate}, Give{Service: "one", Node: "x", Instance: "c1", Expect: 1}, ErrUnknown},
		"give: unknown service":           {nil, Give{Service: "x", Node: "c", Instance: "c1"}, ErrUnknown},
		"give: maintenance":               {[]Command{vacate, maintain}, giveToC, ErrMaintenance},
		"give: being fenced":              {[]Command{vacate, OrderFence{Node: "c", Instance: "c1"}}, giveToC, ErrRefused},
		"give: proven off":                {[]Command{vacate, AddProof{Node: "c", Proof: Proof{Kind: ProofBMCOff, Instance: "c1"}}}, giveToC, ErrStale},
		"give: stopped":                   {[]Command{stopOne, vacate}, giveToC, ErrRefused},
		"give: witness":                   {[]Command{vacate}, Give{Service: "one", Node: "w", Instance: "w1", Expect: 1}, ErrRefused},
		"client: another instance":        {[]Command{vacate, giveToC}, CommitClient{Service: "one", Epoch: 2, Instance: "c2", Address: "c:1"}, ErrStale},
		"client: stale epoch":             {[]Command{vacate, giveToC}, CommitClient{Service: "one", Epoch: 1, Instance: "c1", Address: "c:1"}, ErrStale},
		"client: no address":              {[]Command{vacate, giveToC}, CommitClient{Service: "one", Epoch: 2, Instance: "c1"}, ErrRefused},
		"client: running":                 {nil, CommitClient{Service: "one", Epoch: 1, Instance: "b1", Address: "b:2"}, ErrStale},
		"client: releasing":               {[]Command{release}, CommitClient{Service: "one", Epoch: 1, Instance: "b1", Address: "b:2"}, ErrStale},
		"client: being fenced":            {[]Command{vacate, giveToC, OrderFence{Node: "c", Instance: "c1"}}, CommitClient{Service: "one", Epoch: 2, Instance: "c1", Address: "c:1"}, ErrRefused},
		"client: proven off":              {[]Command{vacate, giveToC, AddProof{Node: "c", Proof: Proof{Kind: ProofBMCOff, Instance: "c1"}}}, CommitClient{Service: "one", Epoch: 2, Instance: "c1", Address: "c:1"}, ErrRefused},
		"started: another run":            {[]Command{Restart{Service: "one", Epoch: 1, Run: 1}}, Started{Service: "one", Epoch: 1, Instance: "b1", Run: 1}, ErrStale},
		"started: another instance":       {[]Command{vacate, giveToC}, Started{Service: "one", Epoch: 2, Instance: "b1", Run: 1}, ErrStale},
		"failed: another run":             {nil, RunFailed{Service: "one", Epoch: 1, Instance: "b1", Run: 2}, ErrStale},
		"failed: another instance":        {nil, RunFailed{Service: "one", Epoch: 1, Instance: "b2", Run: 1}, ErrStale},
		"failed: releasing":               {[]Command{release}, RunFailed{Service: "one", Epoch: 1, Instance: "b1", Run: 1}, ErrStale},
		"restart: starting":               {[]Command{Restart{Service: "one", Epoch: 1, Run: 1}}, Restart{Service: "one", Epoch: 1, Run: 2}, ErrStale},
		"restart: stale epoch":            {nil, Restart{Service: "one", Epoch: 0, Run: 1}, ErrStale},
		"release: twice":                  {[]Command{release}, release, ErrStale},
		"release: contained":              {[]Command{contained}, release, ErrStale},
		"vacated: another life":           {nil, Vacated{Service: "one", Epoch: 1, Instance: "b2"}, ErrStale},
		"vacated: stale epoch":            {nil, Vacated{Service: "one", Epoch: 0, Instance: "b1"}, ErrStale},
		"vacated: another holder's":       {nil, Vacated{Service: "one", Epoch: 1, Instance: "c1"}, ErrStale},
		"contained: another life":         {nil, Contained{Service: "one", Epoch: 1, Instance: "b2"}, ErrStale},
		"contained: twice":                {[]Command{contained}, contained, ErrStale},
		"lose: nothing proven":            {nil, lose, ErrUnproven},
		"lose: down is no proof":          {[]Command{downB}, lose, ErrUnproven},
		"lose: contained is no proof":     {[]Command{contained}, lose, ErrUnproven},
		"lose: lease over is no proof":    {[]Command{fenceOver}, lose, ErrUnproven},
		"lose: proof of another life":     {[]Command{AddProof{Node: "b", Proof: Proof{Kind: ProofBMCOff, Instance: "b0"}}}, lose, ErrUnproven},
		"lose: stale epoch":               {[]Command{evidence}, Lose{Service: "one", Epoch: 0}, ErrStale},
		"raise: held":                     {nil, RaiseEpoch{Service: "one", Epoch: 9}, ErrHeld},
		"raise: not above":                {[]Command{vacate}, RaiseEpoch{Service: "one", Epoch: 1}, ErrStale},
		"raise: absurd":                   {[]Command{vacate}, RaiseEpoch{Service: "one", Epoch: 1 << 63}, ErrRefused},
		"order: open already":             {[]Command{fenceB}, fenceB, ErrStale},
		"order: never seen":               {nil, OrderFence{Node: "c"}, ErrRefused},
		"order: unknown node":             {nil, OrderFence{Node: "x", Instance: "x1"}, ErrUnknown},
		"proof: client proof, no order":   {nil, AddProof{Node: "b", Proof: Proof{Kind: ProofStorage, Instance: "b1", Service: "one", Epoch: 1}}, ErrRefused},
		"proof: no instance":              {nil, AddProof{Node: "b", Proof: Proof{Kind: ProofBMCOff}}, ErrRefused},
		"proof: rebooted, yet it lives":   {nil, AddProof{Node: "b", Proof: Proof{Kind: ProofRebooted, Instance: "b1"}}, ErrUnproven},
		"life: another instance":          {nil, SetLife{Node: "b", Instance: "b2", Life: LifeDown}, ErrStale},
		"life: fenced comes not back":     {[]Command{evidence}, SetLife{Node: "b", Instance: "b1", Life: LifeOnline}, ErrRefused},
		"life: fenced is not set":         {nil, SetLife{Node: "b", Instance: "b1", Life: LifeFenced}, ErrRefused},
		"boot: the same":                  {nil, Boot{Node: "b", Instance: "b1"}, ErrStale},
		"boot: proven off":                {[]Command{Boot{Node: "b", Instance: "b2"}, AddProof{Node: "b", Proof: bmcOff}}, Boot{Node: "b", Instance: "b1"}, ErrRefused},
		"join: online":                    {[]Command{IssueToken{ID: "t", Hash: "h", Node: "c", For: time.Hour}}, join("c", "t"), ErrRefused},
		"token: no end":                   {nil, IssueToken{ID: "t", Hash: "h", Node: "c"}, ErrRefused},
		"token: not in the document":      {nil, IssueToken{ID: "t", Hash: "h", Node: "x", For: time.Hour}, ErrRefused},
		"join: no incarnation":            {nil, Join{Node: "c"}, ErrRefused},
		"join: not in the document":       {nil, Join{Node: "x", Incarnation: "1"}, ErrRefused},
		"join: no token":                  {[]Command{downC}, join("c", "t"), ErrRefused},
		"join: token expired":             {[]Command{downC, IssueToken{ID: "t", Hash: "h", Node: "c", For: 1}}, join("c", "t"), ErrRefused},
		"join: token of another":          {[]Command{downC, IssueToken{ID: "t", Hash: "h", Node: "b", For: time.Hour}}, join("c", "t"), ErrRefused},
		"join: token not whole":           {[]Command{downC, IssueToken{ID: "t", Hash: "hh", Node: "c", For: time.Hour}}, join("c", "t"), ErrRefused},
		"leave: unknown node":             {nil, Leave{Node: "x"}, ErrUnknown},
		"life: unknown node":              {nil, SetLife{Node: "x", Life: LifeDown}, ErrUnknown},
		"boot: unknown node":              {nil, Boot{Node: "x", Instance: "x1"}, ErrUnknown},
		"ask: fence without a BMC":        {[]Command{Configure{Expect: 1, Spec: noBMC()}}, Ask{What: RequestFence, Node: "c"}, ErrRefused},
		"ask: fence of one never seen":    {[]Command{Leave{Node: "c"}, IssueToken{ID: "t", Hash: "h", Node: "c", For: time.Hour}, join("c", "t")}, Ask{What: RequestFence, Node: "c"}, ErrRefused},
		"leave: holds":                    {nil, Leave{Node: "b"}, ErrRefused},
		"leave: being fenced":             {[]Command{OrderFence{Node: "c", Instance: "c1"}}, Leave{Node: "c"}, ErrRefused},
		"init: twice":                     {nil, Init{}, ErrRefused},
		"configure: stale":                {nil, Configure{Expect: 7}, ErrStale},
		"configure: takes out what runs":  {nil, Configure{Expect: 1, Spec: testSpec("a b c w+w", "two")}, ErrRefused},
		"configure: takes out the uncut":  {[]Command{evidence, lose}, Configure{Expect: 1, Spec: testSpec("a b c w+w", "two")}, ErrRefused},
		"configure: another volume":       {nil, Configure{Expect: 1, Spec: otherVolume()}, ErrRefused},
		"configure: another, uncut":       {[]Command{evidence, lose}, Configure{Expect: 1, Spec: otherVolume()}, ErrRefused},
		"configure: takes out the holder": {nil, Configure{Expect: 1, Spec: testSpec("a c w+w", "one", "two")}, ErrRefused},
		"configure: takes out an uncut":   {[]Command{evidence, lose}, Configure{Expect: 1, Spec: testSpec("a c w+w", "one", "two")}, ErrRefused},
		"ask: confirm one online":         {nil, confirmB, ErrRefused},
		"ask: confirm one suspect":        {[]Command{suspectB}, confirmB, ErrRefused},
		"ask: move of the stopped":        {[]Command{stopOne}, switchover, ErrRefused},
		"ask: move twice":                 {[]Command{switchover}, switchover, ErrRefused},
		"ask: move to itself":             {nil, Ask{What: RequestSwitchover, Service: "one", Node: "b"}, ErrRefused},
		"ask: move to the witness":        {nil, Ask{What: RequestSwitchover, Service: "one", Node: "w"}, ErrRefused},
		"ask: move of what runs nowhere":  {nil, Ask{What: RequestSwitchover, Service: "two"}, ErrRefused},
		"ask: move in maintenance":        {[]Command{maintain}, switchover, ErrMaintenance},
		"ask: start in maintenance":       {[]Command{vacate, maintain}, Ask{What: RequestStart, Service: "one"}, ErrMaintenance},
		"ask: maintenance in a move":      {[]Command{switchover}, maintain, ErrRefused},
		"ask: maintenance twice":          {[]Command{maintain}, maintain, ErrRefused},
		"ask: maintenance for ever":       {nil, Ask{What: RequestMaintenance, For: 30 * 24 * time.Hour}, ErrRefused},
		"ask: no maintenance":             {nil, Ask{What: RequestMaintainOff}, ErrRefused},
		"ask: unknown service":            {nil, Ask{What: RequestStop, Service: "x"}, ErrUnknown},
		"ask: unknown node":               {nil, Ask{What: RequestDrain, Node: "x"}, ErrUnknown},
		"ask: unknown kind":               {nil, Ask{What: "dance"}, ErrUnknown},
		"ask: undrain of what is not":     {nil, Ask{What: RequestUndrain, Node: "b"}, ErrRefused},
		"ask: restart of what is not":     {nil, Ask{What: RequestRestart, Service: "two"}, ErrRefused},
		"maintenance: before its end":     {[]Command{maintain}, EndMaintenance{}, ErrStale},
		"accept: no maintenance":          {nil, AcceptMaintenance{Node: "b", Instance: "b1"}, ErrStale},
		"accept: another instance":        {[]Command{maintain}, AcceptMaintenance{Node: "b", Instance: "b2"}, ErrStale},
		"accept: end while it is on":      {[]Command{maintain, AcceptMaintenance{Node: "b", Instance: "b1"}}, AcceptMaintenance{Node: "b", Instance: "b1", Off: true}, ErrStale},
		"answer: unknown":                 {nil, Answer{Request: 9999, State: RequestDone}, ErrUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			s := bed(t, c.first...)
			before := deepCopy(t, s)
			is, err := Apply(s, Entry{At: s.Now.Add(time.Second), Command: c.then})
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			mustEqual(t, "a refused command changed the State", before, is)
		})
	}
}

func noBMC() Spec {
	spec := testSpec("a b c w+w", "one", "two")
	spec.Node("c").BMC = nil
	return spec
}

func otherVolume() Spec {
	spec := testSpec("a b c w+w", "one", "two")
	spec.Services[0].Volume.Image = "other"
	return spec
}

// TestFenceRefusals is what is refused of a fence that is open, by its id.
func TestFenceRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		order OrderFence
		then  func(id uint64) Command
		want  error
	}{
		"storage before the lease is over":   {fenceB, func(id uint64) Command { return storage(id, "b1", "one", 1) }, ErrUnproven},
		"storage of another grant":           {fenceOver, func(id uint64) Command { return storage(id, "b1", "one", 2) }, ErrUnproven},
		"storage of another service":         {fenceOver, func(id uint64) Command { return storage(id, "b1", "two", 1) }, ErrUnproven},
		"proof of another instance":          {fenceOver, func(id uint64) Command { return storage(id, "b2", "one", 1) }, ErrStale},
		"proof of no instance":               {fenceOver, func(id uint64) Command { return storage(id, "", "one", 1) }, ErrStale},
		"end of another attempt":             {fenceB, func(id uint64) Command { return EndAttempt{Fence: id, Attempt: 2} }, ErrStale},
		"assignment after another attempt":   {fenceB, func(id uint64) Command { return AssignFence{Fence: id, Attempt: 2} }, ErrStale},
		"unknown fence":                      {fenceB, func(id uint64) Command { return CloseFence{Fence: id + 99} }, ErrUnknown},
		"storage of an unknown fence":        {fenceB, func(id uint64) Command { return storage(id+99, "b1", "one", 1) }, ErrUnknown},
		"rebooted while it lives as the old": {fenceB, func(id uint64) Command { return AddProof{Fence: id, Proof: Proof{Kind: ProofRebooted, Instance: "b1"}} }, ErrUnproven},
	} {
		t.Run(name, func(t *testing.T) {
			s := bed(t, c.order)
			if _, err := Apply(s, Entry{At: s.Now, Command: c.then(openID(s))}); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
	s := bed(t, fenceOver)
	s = apply(t, s, CloseFence{Fence: openID(s)})
	for _, late := range []Command{
		storage(openID(s), "b1", "one", 1),
		CloseFence{Fence: openID(s)},
		AssignFence{Fence: openID(s), Attempt: 1},
		EndAttempt{Fence: openID(s), Attempt: 1},
		SettleLease{Fence: openID(s), Services: []ServiceName{"one"}},
	} {
		if _, err := Apply(s, Entry{At: s.Now, Command: late}); !errors.Is(err, ErrStale) {
			t.Errorf("%s of a fence that is moot: got %v", late.Kind(), err)
		}
	}
}

func apply(t *testing.T, s State, commands ...Command) State {
	t.Helper()
	for _, c := range commands {
		is, err := Apply(s, Entry{At: s.Now.Add(time.Second), Command: c})
		if err != nil {
			t.Fatalf("%s %+v: %v", c.Kind(), c, err)
		}
		if err := Check(s, Entry{At: s.Now, Command: c}, is); err != nil {
			t.Fatal(err)
		}
		s = is
	}
	return s
}

// TestLosing is what ends a grant without its holder's word, by policy (I3).
func TestLosing(t *testing.T) {
	s := bed(t, fenceOver)
	s = apply(t, s, storage(openID(s), "b1", "one", 1))
	if f := s.Fences[0]; f.State != FenceConfirmed || len(s.Leases("b1")) != 0 {
		t.Errorf("fence is %s, leases %v", f.State, s.Leases("b1"))
	}
	s = apply(t, s, lose)
	if svc := s.Services["one"]; svc.Grant != nil || len(svc.Uncut) != 1 || svc.Uncut[0].Addresses[0] != "b:1" {
		t.Errorf("lost: %+v", svc)
	}
	s = apply(t, s, giveToC)
	if len(s.Services["one"].Uncut) != 1 {
		t.Error("the next holder does not know whom to cut off")
	}
	s = apply(t, s, CommitClient{Service: "one", Epoch: 2, Instance: "c1", Address: "c:1"})
	if len(s.Services["one"].Uncut) != 0 {
		t.Error("uncut though the new client owns the lock")
	}

	s = bed(t, contained)
	s.Spec.Fencing = policies["bmc-only"]
	s = apply(t, s, fenceOver)
	s = apply(t, s, storage(openID(s), "b1", "one", 1))
	if _, off := s.FencedOff(s.Services["one"]); !off {
		t.Error("what is contained needs its clients cut off, nothing else")
	}
	s = bed(t, downB, confirmB, lose)
	if s.Services["one"].From.Proof != ProofHuman || s.Nodes["b"].Life != LifeFenced {
		t.Errorf("by a human's word: %+v", s.Services["one"].From)
	}
}

// TestAnswersOnce: a request that is closed stays as it was answered.
func TestAnswersOnce(t *testing.T) {
	s := bed(t, Ask{What: RequestDrain, Node: "c"})
	id := s.Requests[0].ID
	s = apply(t, s, Answer{Request: id, State: RequestDone})
	if _, err := Apply(s, Entry{At: s.Now, Command: Answer{Request: id, State: RequestFailed}}); !errors.Is(err, ErrStale) {
		t.Errorf("answered twice: %v", err)
	}
}

// TestRejoinStaysFenced: a fenced instance that joins anew is still proven off, so nothing may be given to it (I3).
func TestRejoinStaysFenced(t *testing.T) {
	s := bed(t, evidence, lose, IssueToken{ID: "t", Hash: "h", Node: "b", For: time.Hour}, Join{Node: "b", Incarnation: "2", TokenID: "t", TokenHash: "h"})
	if _, err := Apply(s, Entry{At: s.Now, Command: Give{Service: "one", Node: "b", Instance: "b1", Expect: 1}}); err == nil {
		t.Error("given to an instance that is proven off")
	}
	if s.Nodes["b"].Life != LifeFenced {
		t.Errorf("life is %s", s.Nodes["b"].Life)
	}
}

// TestServiceComesBack: a service that was taken out of the document and put back goes on above its old epoch, for its
// image carries that one (I2).
func TestServiceComesBack(t *testing.T) {
	s := bed(t, vacate, Configure{Expect: 1, Spec: testSpec("a b c w+w", "two")})
	s = apply(t, s, Configure{Expect: 2, Spec: testSpec("a b c w+w", "one", "two")}, giveToC)
	if g := s.Services["one"].Grant; g.Epoch != 2 {
		t.Errorf("granted at epoch %d", g.Epoch)
	}
}
