package guard

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/release"
)

const sec = boottime.Time(time.Second)

func TestLeases(t *testing.T) {
	one, two := Right{"one", 1}, Right{"one", 2}
	grant := func(seq uint64, sent boottime.Time, term uint64, rights ...Right) Ack {
		return Ack{Seq: seq, Sent: sent, Term: term, Lease: 3 * time.Second, Grants: rights}
	}
	for _, tt := range []struct {
		name  string
		acks  []Ack
		right Right
		want  boottime.Time
		err   error // of the last ack
	}{
		{"from the sending", []Ack{grant(1, 10*sec, 1, one)}, one, 13 * sec, nil},
		{"only what is named", []Ack{grant(1, 10*sec, 1, one)}, two, 0, nil},
		{"an older ack never shortens", []Ack{grant(2, 11*sec, 1, one), grant(1, 10*sec, 1, one)}, one, 14 * sec, nil},
		{"never sent", []Ack{grant(9, 10*sec, 1, one)}, one, 0, ErrNotSent},
		{"sent at another time", []Ack{grant(1, 99*sec, 1, one)}, one, 0, ErrNotSent},
		{"number zero", []Ack{grant(0, 0, 1, one)}, one, 0, ErrNotSent},
		{"lower term", []Ack{grant(1, 10*sec, 5, one), grant(2, 11*sec, 4, one)}, one, 13 * sec, ErrOldTerm},
		{"lower term as first", []Ack{grant(1, 10*sec, 5), grant(2, 11*sec, 4, one)}, one, 0, ErrOldTerm},
		{"unnamed is not renewed", []Ack{grant(1, 10*sec, 1, one), grant(2, 11*sec, 1, two)}, one, 13 * sec, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := NewLeases(3 * time.Second)
			l.Sent(1, 10*sec)
			l.Sent(2, 11*sec)
			var err error
			for _, a := range tt.acks {
				_, err = l.Ack(a)
			}
			if !errors.Is(err, tt.err) || (tt.err == nil && err != nil) {
				t.Errorf("error %v, want %v", err, tt.err)
			}
			if got, ok := l.Until(tt.right, 12*sec); got != tt.want || ok != (tt.want > 12*sec) {
				t.Errorf("until %v %t, want %v", got, ok, tt.want)
			}
			if _, ok := l.Until(tt.right, tt.want); ok {
				t.Error("a lease still runs at its very end")
			}
		})
	}
}

// TestLateAcksOfCoarseClock: a heartbeat's number is a reading of a clock, which may go in steps; an ack that comes after
// the next heartbeat counts all the same.
func TestLateAcksOfCoarseClock(t *testing.T) {
	one := Right{"one", 1}
	l := NewLeases(3 * time.Second)
	step := boottime.Time(200 * time.Millisecond)
	for i := range boottime.Time(sentKept + 10) {
		l.Sent(uint64(sec+i*step), sec+i*step)
	}
	newest := sec + boottime.Time(sentKept+9)*step
	for _, tt := range []struct {
		ago  boottime.Time
		want error
	}{{10, nil}, {1, nil}, {0, nil}, {sentKept - 1, nil}, {sentKept, ErrNotSent}} {
		sent := newest - tt.ago*step
		if _, err := l.Ack(Ack{Seq: uint64(sent), Sent: sent, Term: 1, Lease: 3 * time.Second, Grants: []Right{one}}); !errors.Is(err, tt.want) {
			t.Errorf("ack of the heartbeat %d ago: %v, want %v", tt.ago, err, tt.want)
		}
	}
}

func TestNeverLeased(t *testing.T) {
	l := NewLeases(3 * time.Second)
	right := Right{"one", 1}
	if l.Deadline(right) != 0 {
		t.Error("a right that was never seen has a deadline in the future")
	}
	l.See(right, 10*sec)
	l.See(right, 20*sec)
	if got := l.Deadline(right); got != 13*sec {
		t.Errorf("deadline %v, want one lease after the first look", got)
	}
	if _, ok := l.Until(right, 11*sec); ok {
		t.Error("grace passed for a lease (I4)")
	}
}

func TestMaintenance(t *testing.T) {
	l := NewLeases(3 * time.Second)
	right := Right{"one", 1}
	l.Sent(1, 10*sec)
	l.Sent(2, 11*sec)
	l.Sent(3, 12*sec)
	ack := func(seq uint64, sent boottime.Time, left time.Duration) {
		if _, err := l.Ack(Ack{Seq: seq, Sent: sent, Term: 1, Lease: 3 * time.Second, Grants: []Right{right}, Maintenance: left}); err != nil {
			t.Fatal(err)
		}
	}
	ack(2, 11*sec, time.Hour)
	if got := l.Deadline(right); got != 11*sec+3600*sec {
		t.Errorf("deadline %v, want the end of maintenance", got)
	}
	if _, ok := l.Until(Right{"one", 2}, 12*sec); ok {
		t.Error("maintenance gave a lease that nobody granted (I4)")
	}
	ack(1, 10*sec, 0)
	if !l.InMaintenance(20 * sec) {
		t.Error("an older ack ended maintenance")
	}
	ack(3, 12*sec, 0)
	if l.InMaintenance(13*sec) || l.Deadline(right) != 15*sec {
		t.Errorf("maintenance was ended, deadline %v", l.Deadline(right))
	}
}

// The slow obvious version: every ack ever taken is kept, and each question goes through all of them.
func TestLeasesAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := NewLeases(3 * time.Second)
		var taken []Ack
		var highest uint64
		sent := map[uint64]boottime.Time{}
		for i := range rapid.IntRange(1, 40).Draw(t, "steps") {
			seq := uint64(i + 1)
			sent[seq] = boottime.Time(i+1) * sec
			l.Sent(seq, sent[seq])
			of := uint64(rapid.IntRange(1, i+1).Draw(t, "of"))
			a := Ack{
				Seq: of, Sent: sent[of], Term: uint64(rapid.IntRange(1, 3).Draw(t, "term")),
				Lease:  time.Duration(rapid.IntRange(1, 5).Draw(t, "lease")) * time.Second,
				Grants: []Right{{"one", core.Epoch(rapid.IntRange(1, 3).Draw(t, "epoch"))}},
			}
			if rapid.Bool().Draw(t, "forged") {
				a.Sent++
			}
			_, _ = l.Ack(a)
			if a.Sent == sent[of] && a.Term >= highest {
				taken, highest = append(taken, a), a.Term
			}
			for epoch := core.Epoch(1); epoch <= 3; epoch++ {
				var want boottime.Time
				for _, a := range taken {
					if a.Grants[0].Epoch == epoch {
						want = max(want, a.Sent.Add(a.Lease))
					}
				}
				if got, _ := l.Until(Right{"one", epoch}, 0); got != want {
					t.Fatalf("epoch %d until %v, want %v", epoch, got, want)
				}
			}
		}
	})
}

// Whatever the delays are, the leader calls no lease ended that its holder still counts (I5). The holder's clock runs
// apart from the leader's and slower by up to 500 ppm.
func TestLedgerOutlastsLeases(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const lease, margin = 3 * time.Second, 500 * time.Millisecond
		offset := boottime.Time(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "offset"))
		holder := func(real boottime.Time) boottime.Time { return offset + real - real/2000 }
		l := NewLeases(lease)
		old, fresh := NewLedger(0, lease, margin), (*Ledger)(nil)
		right, now := Right{"one", 1}, boottime.Time(0)
		ledger := old
		for i := range rapid.IntRange(1, 30).Draw(t, "beats") {
			now += boottime.Time(rapid.Int64Range(1, int64(2*time.Second)).Draw(t, "gap"))
			seq, sent := uint64(i+1), holder(now)
			l.Sent(seq, sent)
			arrived := now + boottime.Time(rapid.Int64Range(0, int64(time.Second)).Draw(t, "delay"))
			if fresh == nil && rapid.IntRange(0, 9).Draw(t, "election") == 0 {
				fresh = NewLedger(arrived, lease, margin) // what the old one acked, it does not know
				ledger = fresh
			}
			ledger.Acked(right, arrived)
			if rapid.Bool().Draw(t, "lost") {
				continue
			}
			_, _ = l.Ack(Ack{Seq: seq, Sent: sent, Term: 1, Lease: lease, Grants: []Right{right}})
			ends := ledger.EndsAt(right)
			if !ledger.LeaseEnded(right, ends) || ledger.LeaseEnded(right, ends-1) {
				t.Fatal("LeaseEnded does not follow EndsAt")
			}
			if until := l.Deadline(right); holder(ends) < until {
				t.Fatalf("leader calls it ended at %v, holder counts until %v", holder(ends), until)
			}
		}
	})
}

func TestNewLeaderCountsOneLease(t *testing.T) {
	l := NewLedger(100*sec, 3*time.Second, 500*time.Millisecond)
	if l.LeaseEnded(Right{"never-heard", 1}, 103*sec+sec/2) {
		t.Error("ended before one lease and margin from the barrier")
	}
	if !l.LeaseEnded(Right{"never-heard", 1}, 104*sec) {
		t.Error("never ends")
	}
	l.Acked(Right{"one", 1}, 110*sec)
	l.Acked(Right{"one", 1}, 105*sec)
	if l.LeaseEnded(Right{"one", 1}, 113*sec) {
		t.Error("an older arrival shortened it")
	}
}

// TestLedgerCount: the leader's count of a lease is longer than the holder's by what its clock may lag and what
// scheduling may take (I5).
func TestLedgerCount(t *testing.T) {
	l := NewLedger(0, 3*time.Second, 500*time.Millisecond)
	l.Acked(Right{"one", 1}, 10*sec)
	want := (10 * sec).Add(3*time.Second + 3*time.Second/500 + 500*time.Millisecond)
	if got := l.EndsAt(Right{"one", 1}); got != want {
		t.Errorf("ends at %v, want %v", got, want)
	}
}

func TestMemoryRoundTrip(t *testing.T) {
	l := NewLeases(3 * time.Second)
	l.Sent(1, 10*sec)
	l.See(Right{"two", 3}, 9*sec)
	if _, err := l.Ack(Ack{Seq: 1, Sent: 10 * sec, Term: 4, Lease: 3 * time.Second, Grants: []Right{{"one", 1}}, Maintenance: time.Minute}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := l.saveMemory(dir); err != nil {
		t.Fatal(err)
	}
	again := NewLeases(3 * time.Second)
	if err := again.loadMemory(dir); err != nil {
		t.Fatal(err)
	}
	for _, right := range []Right{{"one", 1}, {"two", 3}, {"three", 1}} {
		if got, want := again.Deadline(right), l.Deadline(right); got != want {
			t.Errorf("%v: %v, want %v", right, got, want)
		}
	}
	if again.Term() != 4 {
		t.Errorf("term %d", again.Term())
	}
	text := string(l.Encode())
	if err := again.Decode(text[:len(text)/2]); !errors.Is(err, errMemory) {
		t.Errorf("half a file: %v", err)
	}
}

func FuzzMemory(f *testing.F) {
	f.Add("keepone-leases 1\nterm 1\nmaintenance 0 1 2\nuntil one 1 2\nseen one 1 2\nend\n")
	f.Fuzz(func(t *testing.T, text string) {
		l := NewLeases(0)
		if l.Decode(text) == nil {
			if err := NewLeases(0).Decode(string(l.Encode())); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// What a guard that has lost its memory knows can be read by the next one, on a node that has just booted too.
func TestLostMemoryIsReadable(t *testing.T) {
	dir := t.TempDir()
	if err := (release.Record{Service: "one", Epoch: 1, Attempt: 1}).Save(dir); err != nil {
		t.Fatal(err)
	}
	now := boottime.Time(time.Minute)
	g, err := New(Options{RunDir: dir, Log: slog.New(slog.DiscardHandler), Now: func() boottime.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	if g.leases.Deadline(Right{"one", 1}) > now {
		t.Error("a grace was given")
	}
	if err := NewLeases(time.Second).Decode(string(g.leases.Encode())); err != nil {
		t.Error(err)
	}
}
