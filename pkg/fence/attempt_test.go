package fence_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/drive/ipmi"
	"github.com/keepone-ha/keepone/pkg/fence"
	"github.com/keepone-ha/keepone/pkg/worker"
)

const gap = 150 * time.Millisecond

var (
	anyOf   = core.Policy{Require: core.RequireAny, Proofs: []core.ProofKind{core.ProofBMCOff, core.ProofStorage}}
	allOf   = core.Policy{Require: core.RequireAll, Proofs: []core.ProofKind{core.ProofBMCOff, core.ProofStorage}}
	bmcOnly = core.Policy{Require: core.RequireAny, Proofs: []core.ProofKind{core.ProofBMCOff}}
	ceph    = core.Policy{Require: core.RequireAny, Proofs: []core.ProofKind{core.ProofStorage}}
)

// scene is one row: what the world is like, and what an attempt in it must come to.
type scene struct {
	policy   core.Policy
	machine  machine
	noBMC    bool
	storage  storage
	noCeph   bool
	noShoot  bool
	lease    time.Duration // until it ends; negative: never
	noTarget bool
	whole    bool
	had      []core.Proof

	want     string        // proofs in order, "" for none
	fails    bool          // not confirmed
	orders   int           // of power-off; -1: any
	atLeast  time.Duration // how long it may take
	atMost   time.Duration
	noteSays string
}

func on() machine  { return machine{guid: ourGUID, slow: 10 * time.Millisecond} }
func off() machine { return machine{guid: ourGUID, slow: 10 * time.Millisecond, off: true} }

func with(m machine, change func(*machine)) machine { change(&m); return m }

func works() storage { return storage{took: 30 * time.Millisecond, say: cuts} }

func gives(say func(int) (worker.CutOffDid, error)) storage {
	return storage{took: 30 * time.Millisecond, say: say}
}

func scenes() map[string]scene {
	dead := machine{guid: ourGUID, dead: true}
	return map[string]scene{
		"already off": {
			policy: anyOf, machine: off(), storage: storage{took: time.Hour, say: cuts},
			want: "bmc-off", atLeast: gap, atMost: gap + 50*time.Millisecond,
		},
		"on, storage works":             {policy: anyOf, machine: on(), storage: works(), want: "storage", atMost: 40 * time.Millisecond},
		"bmc dead, storage works":       {policy: anyOf, machine: dead, storage: works(), want: "storage", atMost: 40 * time.Millisecond},
		"no bmc, storage works":         {policy: anyOf, noBMC: true, storage: works(), want: "storage", atMost: 40 * time.Millisecond},
		"storage waits for lease":       {policy: anyOf, machine: on(), storage: works(), lease: 3 * time.Second, want: "storage", atLeast: 3 * time.Second, atMost: 3100 * time.Millisecond},
		"lease never ends":              {policy: anyOf, machine: on(), storage: works(), lease: -1, fails: true, atLeast: 15 * time.Second, noteSays: "lease has not ended"},
		"lease never ends, off":         {policy: anyOf, machine: off(), storage: works(), lease: -1, want: "bmc-off", atLeast: gap, atMost: time.Second},
		"watchers left, may shoot":      {policy: anyOf, machine: on(), storage: gives(leavesWatchers), want: "bmc-off", orders: 1, atLeast: fence.DefaultPatience, atMost: 2 * time.Second},
		"watchers left, no shot":        {policy: anyOf, machine: on(), storage: gives(leavesWatchers), noShoot: true, fails: true, atLeast: 15 * time.Second, noteSays: "watchers of the old holder are left"},
		"stranger":                      {policy: anyOf, machine: on(), storage: gives(fails(worker.CodeImageStranger)), want: "bmc-off", orders: 1, atMost: time.Second},
		"stranger, no shot":             {policy: anyOf, machine: on(), storage: gives(fails(worker.CodeImageStranger)), noShoot: true, fails: true, atLeast: 15 * time.Second, noteSays: "power is on"},
		"stranger, bmc dead":            {policy: anyOf, machine: dead, storage: gives(fails(worker.CodeImageStranger)), fails: true, atLeast: 15 * time.Second, noteSays: "image-stranger"},
		"stranger, wrong password":      {policy: anyOf, machine: with(on(), func(m *machine) { m.fails = ipmi.ErrPassword }), storage: gives(fails(worker.CodeImageStranger)), fails: true, atMost: time.Second, noteSays: "nothing is left to try"},
		"storage unknown":               {policy: anyOf, machine: on(), storage: gives(fails(worker.CodeUnknown)), want: "bmc-off", orders: 1, atLeast: fence.DefaultPatience, atMost: 2 * time.Second},
		"ceph away":                     {policy: anyOf, machine: on(), storage: gives(fails(worker.CodeCephAway)), want: "bmc-off", orders: 1, atLeast: fence.DefaultPatience, atMost: 2 * time.Second},
		"storage hangs":                 {policy: anyOf, machine: on(), storage: storage{took: time.Hour, say: cuts}, want: "bmc-off", orders: 1, atLeast: fence.DefaultPatience, atMost: 2 * time.Second},
		"storage hangs, no shot":        {policy: anyOf, machine: on(), storage: storage{took: time.Hour, say: cuts}, noShoot: true, fails: true, atLeast: 15 * time.Second},
		"storage comes back":            {policy: anyOf, machine: dead, storage: gives(afterTries(4)), want: "storage", atLeast: 600 * time.Millisecond, atMost: 2 * time.Second},
		"no storage here":               {policy: anyOf, machine: on(), noCeph: true, want: "bmc-off", orders: 1, atMost: time.Second},
		"bmc only":                      {policy: bmcOnly, machine: on(), storage: works(), want: "bmc-off", orders: 1, atMost: time.Second},
		"bmc only, no shot":             {policy: bmcOnly, machine: on(), storage: works(), noShoot: true, fails: true, atLeast: 15 * time.Second},
		"bmc only, dead":                {policy: bmcOnly, machine: dead, storage: works(), fails: true, atLeast: 15 * time.Second, noteSays: "no answer in time"},
		"storage only never shoots":     {policy: ceph, machine: on(), storage: gives(fails(worker.CodeNoCap)), fails: true, atLeast: 15 * time.Second},
		"all, on":                       {policy: allOf, machine: on(), storage: works(), want: "storage bmc-off", orders: 1, atMost: time.Second},
		"all, off":                      {policy: allOf, machine: off(), storage: works(), want: "storage bmc-off", atMost: time.Second},
		"all, bmc dead":                 {policy: allOf, machine: dead, storage: works(), want: "storage", fails: true, atLeast: 15 * time.Second},
		"all, storage refused":          {policy: allOf, machine: off(), storage: gives(fails(worker.CodeNoCap)), want: "bmc-off", fails: true, atMost: time.Second},
		"slow to go off":                {policy: bmcOnly, machine: with(on(), func(m *machine) { m.lag = 5 * time.Second }), want: "bmc-off", orders: 3, atLeast: 5 * time.Second, atMost: 6 * time.Second},
		"slow bmc":                      {policy: bmcOnly, machine: with(on(), func(m *machine) { m.slow = 900 * time.Millisecond }), want: "bmc-off", orders: 1, atMost: 10 * time.Second},
		"lying bmc":                     {policy: bmcOnly, machine: with(on(), func(m *machine) { m.lies = true }), fails: true, orders: 8, atLeast: 15 * time.Second, noteSays: "power is on, power-off ordered 8 time(s)"},
		"refuses the order":             {policy: bmcOnly, machine: with(on(), func(m *machine) { m.noOff = ipmi.ErrRefused }), fails: true, atLeast: 15 * time.Second},
		"flapping":                      {policy: bmcOnly, machine: with(off(), func(m *machine) { m.flaps = gap }), noShoot: true, fails: true, atLeast: 15 * time.Second},
		"frozen reading":                {policy: bmcOnly, machine: with(off(), func(m *machine) { m.frozen = true }), noShoot: true, fails: true, atLeast: 15 * time.Second, noteSays: "contradict"},
		"swapped, reads off":            {policy: bmcOnly, machine: with(off(), func(m *machine) { m.guid = otherGUID }), fails: true, atMost: time.Second, noteSays: "swapped BMC addresses"},
		"swapped, reads on":             {policy: bmcOnly, machine: with(on(), func(m *machine) { m.guid = otherGUID }), fails: true, atMost: time.Second, noteSays: "swapped BMC addresses"},
		"swapped, hidden first":         {policy: bmcOnly, machine: with(on(), func(m *machine) { m.guid, m.hides = otherGUID, 1 }), fails: true, atMost: time.Second, noteSays: "swapped BMC addresses"},
		"identity unknown":              {policy: bmcOnly, machine: with(off(), func(m *machine) { m.noGUID = ipmi.ErrGUID }), fails: true, atMost: time.Second},
		"swapped, storage works":        {policy: anyOf, machine: with(off(), func(m *machine) { m.guid = otherGUID }), storage: works(), lease: time.Second, want: "storage", atLeast: time.Second, atMost: 2 * time.Second},
		"no target":                     {noTarget: true, machine: on(), want: "bmc-off", orders: 1, atMost: time.Second},
		"no target, no shot":            {noTarget: true, machine: on(), noShoot: true, fails: true, atLeast: 15 * time.Second},
		"no target, another life's":     {noTarget: true, machine: on(), noShoot: true, had: []core.Proof{{Kind: core.ProofBMCOff, Instance: "boot/0"}}, fails: true, atLeast: 15 * time.Second},
		"no target, client scope":       {noTarget: true, machine: on(), noShoot: true, had: []core.Proof{{Kind: core.ProofStorage, Instance: "boot/1", Service: "one", Epoch: 7}}, fails: true, atLeast: 15 * time.Second},
		"whole":                         {whole: true, policy: anyOf, machine: on(), storage: works(), lease: time.Second, want: "bmc-off", orders: 1, atMost: 500 * time.Millisecond},
		"whole, bmc dead":               {whole: true, policy: anyOf, machine: dead, storage: works(), lease: time.Second, want: "storage", fails: true, atLeast: 15 * time.Second},
		"whole, bmc dead, holder lives": {whole: true, policy: anyOf, machine: dead, storage: storage{say: func(int) (worker.CutOffDid, error) { panic("cut off a holder that has its lease") }}, lease: -1, fails: true, atLeast: 15 * time.Second, noteSays: "lease has not ended"},
		"whole, all":                    {whole: true, policy: allOf, machine: on(), storage: works(), lease: time.Second, want: "bmc-off storage", orders: 1, atLeast: time.Second, atMost: 2 * time.Second},
		"whole, client scope":           {whole: true, policy: anyOf, machine: on(), storage: works(), noShoot: true, had: []core.Proof{{Kind: core.ProofStorage, Instance: "boot/1", Service: "one", Epoch: 7}}, fails: true, want: "storage", atLeast: 15 * time.Second},
		"nothing at all":                {policy: anyOf, noBMC: true, noCeph: true, fails: true, atMost: 0, noteSays: "nothing is left to try"},
		"proven already":                {policy: anyOf, machine: on(), storage: works(), had: []core.Proof{{Kind: core.ProofHuman, Instance: "boot/1"}}},
		"another life's proof":          {policy: bmcOnly, machine: on(), noShoot: true, had: []core.Proof{{Kind: core.ProofBMCOff, Instance: "boot/0"}}, fails: true, atLeast: 15 * time.Second},
	}
}

func afterTries(n int) func(int) (worker.CutOffDid, error) {
	return func(call int) (worker.CutOffDid, error) {
		if call < n {
			return worker.CutOffDid{}, context.DeadlineExceeded
		}
		return cuts(call)
	}
}

// set lays the scene out; got collects proofs.
func (s *scene) set(t *testing.T, got *[]core.Proof) (fence.Order, fence.Parts) {
	lease := make(chan struct{})
	switch {
	case s.lease == 0:
		close(lease)
	case s.lease > 0:
		time.AfterFunc(s.lease, func() { close(lease) })
	}
	begin := time.Now()
	order := fence.Order{
		Node: "b", Instance: "boot/1", By: "a", Shoot: !s.noShoot, Whole: s.whole, GUID: ourGUID, Proofs: s.had, LeaseEnded: lease, Gap: gap,
		Targets: []fence.Target{{Target: core.Target{Service: "one", Epoch: 7}, Policy: s.policy}},
	}
	if s.noTarget {
		order.Targets = nil
	}
	parts := fence.Parts{
		Now: func() core.Time { return core.Time(time.Since(begin)) },
		Proved: func(p core.Proof) {
			*got = append(*got, p)
			if p.Kind == core.ProofStorage && (s.lease < 0 || time.Since(begin) < s.lease) {
				t.Errorf("storage proof %s after the begin, before the lease ended", time.Since(begin))
			}
		},
	}
	if !s.noBMC {
		parts.BMC = &s.machine
	}
	if !s.noCeph {
		parts.Storage = &s.storage
	}
	return order, parts
}

func kinds(proofs []core.Proof) string {
	var words []string
	for _, p := range proofs {
		words = append(words, string(p.Kind))
	}
	return strings.Join(words, " ")
}

func TestAttempt(t *testing.T) {
	for name, s := range scenes() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { s.play(t) })
		})
	}
}

func (s *scene) play(t *testing.T) {
	var got []core.Proof
	order, parts := s.set(t, &got)
	begin := time.Now()
	result := fence.Attempt(t.Context(), order, parts)
	took := time.Since(begin)
	if kinds(got) != s.want || result.Confirmed == s.fails {
		t.Errorf("proofs %q, confirmed %v; want %q, %v", kinds(got), result.Confirmed, s.want, !s.fails)
	}
	if len(s.machine.orders) != s.orders {
		t.Errorf("power-off ordered %d times, want %d", len(s.machine.orders), s.orders)
	}
	for i := 1; i < len(s.machine.orders); i++ {
		if pause := s.machine.orders[i].Sub(s.machine.orders[i-1]); pause < 1900*time.Millisecond {
			t.Errorf("order %d came %s after the one before", i, pause)
		}
	}
	if most := max(s.atMost, s.atLeast+gap); took < s.atLeast || took > most {
		t.Errorf("took %s, want %s to %s", took, s.atLeast, most)
	}
	if !strings.Contains(result.Note, s.noteSays) || result.Note == "" {
		t.Errorf("note %q does not say %q", result.Note, s.noteSays)
	}
	for _, p := range got {
		if p.Instance != "boot/1" || p.By != "a" || p.Reading == "" {
			t.Errorf("proof %+v", p)
		}
		if p.Kind == core.ProofStorage && (p.Service != "one" || p.Epoch != 7) {
			t.Errorf("proof %+v", p)
		}
	}
}

// A cut-off from before the lease's end is no proof: only one that began afterwards is (I3).
func TestStorageLooksAgainAfterTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []core.Proof
		s := scene{policy: anyOf, machine: on(), storage: works(), lease: time.Second}
		order, parts := s.set(t, &got)
		ended := time.Now().Add(time.Second)
		if !fence.Attempt(t.Context(), order, parts).Confirmed {
			t.Fatal("not confirmed")
		}
		if s.storage.calls != 2 || s.storage.began[1].Before(ended) {
			t.Errorf("%d cut-offs, began %v; lease ended %v", s.storage.calls, s.storage.began, ended)
		}
	})
}

// A cut-off during which the lease ended began too early to prove anything.
func TestLeaseEndsDuringTheCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []core.Proof
		s := scene{policy: ceph, machine: on(), storage: storage{took: 400 * time.Millisecond, say: cuts}, lease: 200 * time.Millisecond}
		order, parts := s.set(t, &got)
		if !fence.Attempt(t.Context(), order, parts).Confirmed || s.storage.calls != 2 {
			t.Errorf("%d cut-offs, proofs %v", s.storage.calls, got)
		}
	})
}

// Proofs that are had at the moment of the cancel are not handed out.
func TestNothingAfterTheCancel(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			var got []core.Proof
			s := scene{policy: ceph, machine: on(), storage: works()}
			order, parts := s.set(t, &got)
			for epoch := range core.Epoch(8) {
				order.Targets = append(order.Targets, fence.Target{Target: core.Target{Service: "more", Epoch: epoch}, Policy: ceph})
			}
			ctx, cancel := context.WithCancel(t.Context())
			parts.Proved = func(p core.Proof) { got = append(got, p); cancel() }
			if fence.Attempt(ctx, order, parts).Confirmed || len(got) != 1 {
				t.Errorf("%d proofs", len(got))
			}
		})
	}
}

// An owner that came up between the two looks is found by the second.
func TestStorageBeforeTheLeaseProvesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []core.Proof
		s := scene{policy: ceph, machine: on(), lease: time.Second, storage: gives(func(call int) (worker.CutOffDid, error) {
			if call == 1 {
				return cuts(call)
			}
			return leavesWatchers(call)
		})}
		order, parts := s.set(t, &got)
		if fence.Attempt(t.Context(), order, parts).Confirmed || len(got) != 0 {
			t.Errorf("proofs %v", got)
		}
	})
}

// Each of two services needs its own proof; one refused volume is enough to need power-off.
func TestTwoTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []core.Proof
		s := scene{policy: anyOf, machine: on(), storage: gives(func(call int) (worker.CutOffDid, error) {
			if call == 1 {
				return cuts(call)
			}
			return fails(worker.CodeImageStranger)(call)
		})}
		order, parts := s.set(t, &got)
		order.Targets = append(order.Targets, fence.Target{Target: core.Target{Service: "two", Epoch: 3}, Policy: anyOf})
		if !fence.Attempt(t.Context(), order, parts).Confirmed || kinds(got) != "storage bmc-off" {
			t.Errorf("proofs %q", kinds(got))
		}
	})
}

// Whenever the order's context ends, the attempt ends at once and hands out nothing more.
func TestCancelAtEachMoment(t *testing.T) {
	for name, s := range scenes() {
		for _, at := range []time.Duration{0, 5, 15, 25, 35, 100, 165, 175, 185, 400, 1510, 1600, 2900} {
			at *= time.Millisecond
			t.Run(fmt.Sprintf("%s/%s", name, at), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					play := scenes()[name]
					var got []core.Proof
					order, parts := play.set(t, &got)
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					begin := time.Now()
					time.AfterFunc(at, cancel)
					result := fence.Attempt(ctx, order, parts)
					if took := time.Since(begin); took > at {
						t.Errorf("ended %s after the cancel", took-at)
					}
					if result.Confirmed && s.fails {
						t.Error("confirmed")
					}
					for _, p := range got {
						if time.Duration(p.At) > at {
							t.Errorf("proof after the cancel: %+v", p)
						}
					}
				})
			})
		}
	}
}
