package observe

import (
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/guard"
)

const ms = boottime.Time(time.Millisecond)

var timing = core.Timing{
	Suspect: time.Second, Down: 3 * time.Second, Lease: 3 * time.Second, LeaseMargin: 500 * time.Millisecond,
}

func state() core.State {
	return core.State{
		Spec:     core.Spec{Timing: timing},
		Nodes:    map[core.NodeName]core.Node{"a": {Name: "a", Instance: "a1"}, "b": {Name: "b", Instance: "b1"}},
		Services: map[core.ServiceName]core.Service{"one": {Name: "one", Epoch: 4, Grant: &core.Grant{Node: "b", Instance: "b1", Epoch: 4}}},
	}
}

// contained is state once the grant is renewed no more.
func contained() core.State {
	s := state()
	s.Services["one"].Grant.Phase = core.PhaseContained
	return s
}

func listening() (*Observer, *int) {
	news := new(int)
	return New("a", 0, func() { *news++ }), news
}

func beat(o *Observer, at boottime.Time, link int, instance core.Instance, seq uint64, flags guard.Flags) {
	o.Heard(guard.Arrival{Link: link, At: at, Heartbeat: guard.Heartbeat{Node: "b", Instance: instance, Seq: seq, Flags: flags}})
}

func b(o *Observer, at boottime.Time) core.NodeView { return o.View(state(), at, nil).Nodes["b"] }

func TestLiveness(t *testing.T) {
	for _, tt := range []struct {
		name   string
		heard  boottime.Time // 0: never
		at     boottime.Time
		want   core.Liveness
		silent time.Duration
	}{
		{"just begun to listen", 0, 0, core.LiveUnknown, 0},
		{"never heard, could be up", 0, 2999 * ms, core.LiveUnknown, 2999 * time.Millisecond},
		{"never heard for the down bound", 0, 3000 * ms, core.LiveDown, 3 * time.Second},
		{"heard", 10_000 * ms, 10_999 * ms, core.LiveOnline, 999 * time.Millisecond},
		{"silent for the suspect bound", 10_000 * ms, 11_000 * ms, core.LiveSuspect, time.Second},
		{"almost down", 10_000 * ms, 12_999 * ms, core.LiveSuspect, 2999 * time.Millisecond},
		{"silent for the down bound", 10_000 * ms, 13_000 * ms, core.LiveDown, 3 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o, _ := listening()
			if tt.heard != 0 {
				beat(o, tt.heard, 0, "b1", 1, 0)
			}
			if v := b(o, tt.at); v.Live != tt.want || v.Silent != tt.silent {
				t.Errorf("%q silent for %s, want %q %s", v.Live, v.Silent, tt.want, tt.silent)
			}
		})
	}
}

func TestAnyLinkCounts(t *testing.T) {
	o, _ := listening()
	beat(o, 1000*ms, 0, "b1", 1, 0)
	beat(o, 1900*ms, 1, "b1", 2, 0)
	if v := b(o, 2500*ms); v.Live != core.LiveOnline {
		t.Errorf("%q with one link alive", v.Live)
	}
	if got := o.Links("b", 2500*ms); got[0] != 1500*time.Millisecond || got[1] != 600*time.Millisecond {
		t.Errorf("links %v", got)
	}
	// The slower link brings an older heartbeat: it counts as heard, and what it says is old.
	beat(o, 2600*ms, 1, "b1", 4, guard.DaemonHealthy)
	beat(o, 2700*ms, 0, "b1", 3, 0)
	if v := b(o, 2700*ms); !v.Daemon || v.Silent != 0 {
		t.Errorf("view %+v", v)
	}
}

func TestNews(t *testing.T) {
	o, news := listening()
	for i, tt := range []struct {
		at    boottime.Time
		inst  core.Instance
		flags guard.Flags
		want  int
	}{
		{2000 * ms, "b1", 0, 1},
		{2200 * ms, "b1", 0, 1},                   // as ever
		{2400 * ms, "b1", guard.DaemonHealthy, 2}, // its daemon came
		{3500 * ms, "b1", guard.DaemonHealthy, 3}, // back from a silence
		{3600 * ms, "b2", guard.DaemonHealthy, 4}, // another life
	} {
		beat(o, tt.at, 0, tt.inst, uint64(i+1), tt.flags)
		if *news != tt.want {
			t.Errorf("heartbeat %d: %d calls, want %d", i, *news, tt.want)
		}
	}
}

// TestWatchdog: what the newest heartbeat of this life says counts, however late an older one comes; another life starts
// without.
func TestWatchdog(t *testing.T) {
	o, news := listening()
	say := func(at boottime.Time, instance core.Instance, seq uint64, timeout time.Duration) time.Duration {
		o.Heard(guard.Arrival{At: at, Heartbeat: guard.Heartbeat{Node: "b", Instance: instance, Seq: seq, Watchdog: timeout}})
		return b(o, at).Watchdog
	}
	for i, tt := range []struct {
		inst core.Instance
		seq  uint64
		says time.Duration
		want time.Duration
		news int
	}{
		{"b1", 1, 30 * time.Second, 30 * time.Second, 1},
		{"b1", 2, 30 * time.Second, 30 * time.Second, 1},
		{"b1", 4, 0, 0, 2}, // it has failed
		{"b1", 3, 30 * time.Second, 0, 3},
		{"b1", 5, 20 * time.Second, 20 * time.Second, 4},
		{"b2", 1, 0, 0, 5},
		{"b1", 6, 30 * time.Second, 0, 5},
	} {
		if got := say(boottime.Time(1000+i*200)*ms, tt.inst, tt.seq, tt.says); got != tt.want || *news != tt.news {
			t.Errorf("heartbeat %d: %s, %d calls, want %s, %d", i, got, *news, tt.want, tt.news)
		}
	}
}

// TestOldLifeNeverComesBack: a late or replayed heartbeat of a life that was replaced changes nothing.
func TestOldLifeNeverComesBack(t *testing.T) {
	o, _ := listening()
	beat(o, 1000*ms, 0, "b1", 900, 0)
	beat(o, 9000*ms, 0, "b2", 1, 0)
	o.ReadOff("b", 9500*ms, core.Proof{Kind: core.ProofBMCOff, Instance: "b2"})
	beat(o, 9600*ms, 1, "b1", 901, guard.DaemonHealthy)
	if v := b(o, 12_000*ms); v.Instance != "b2" || v.Daemon || v.Live != core.LiveDown || v.Off == nil {
		t.Errorf("an ended life made %+v", v)
	}
	beat(o, 12_100*ms, 0, "b3", 1, 0)
	for _, old := range []core.Instance{"b1", "b2"} {
		beat(o, 12_200*ms, 0, old, 5000, 0)
	}
	if v := b(o, 12_200*ms); v.Instance != "b3" {
		t.Errorf("instance %s", v.Instance)
	}
}

func TestReadOff(t *testing.T) {
	off := func(instance core.Instance) core.Proof { return core.Proof{Kind: core.ProofBMCOff, Instance: instance} }
	for _, tt := range []struct {
		name string
		do   func(*Observer)
		at   boottime.Time
		want bool
	}{
		{"silent since", func(o *Observer) { beat(o, 1000*ms, 0, "b1", 1, 0); o.ReadOff("b", 2100*ms, off("b1")) }, 2500 * ms, true},
		{"heard while it was read", func(o *Observer) { beat(o, 2200*ms, 0, "b1", 1, 0); o.ReadOff("b", 2100*ms, off("b1")) }, 3500 * ms, false},
		{"heard as it began", func(o *Observer) { beat(o, 2100*ms, 0, "b1", 1, 0); o.ReadOff("b", 2100*ms, off("b1")) }, 3500 * ms, false},
		{"void by a heartbeat", func(o *Observer) {
			beat(o, 1000*ms, 0, "b1", 1, 0)
			o.ReadOff("b", 2100*ms, off("b1"))
			beat(o, 2500*ms, 0, "b1", 2, 0)
		}, 9000 * ms, false},
		{"of another life", func(o *Observer) { beat(o, 1000*ms, 0, "b1", 1, 0); o.ReadOff("b", 2100*ms, off("b0")) }, 2500 * ms, false},
		{"never heard", func(o *Observer) { o.ReadOff("b", 2100*ms, off("b1")) }, 3500 * ms, true},
		{"read during a blip", func(o *Observer) { beat(o, 1000*ms, 0, "b1", 1, 0); o.ReadOff("b", 1100*ms, off("b1")) }, 1200 * ms, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o, _ := listening()
			tt.do(o)
			if v := b(o, tt.at); (v.Off != nil) != tt.want {
				t.Errorf("off: %v at %q", v.Off, v.Live)
			}
		})
	}
}

func TestReportGoesStale(t *testing.T) {
	o, news := listening()
	o.Reported("b", 1000*ms, core.Report{Instance: "b1", Ready: map[core.ServiceName]core.Ready{"one": {OK: true}}})
	if *news != 1 {
		t.Error("a report is no news")
	}
	v := b(o, 1000*ms+boottime.Time(reportFresh)-1)
	if v.Report == nil || !v.Report.Ready["one"].OK {
		t.Fatalf("report %+v", v.Report)
	}
	delete(v.Report.Ready, "one") // a View is its holder's own
	if v := b(o, 1000*ms); !v.Report.Ready["one"].OK {
		t.Error("a View shares what the observer keeps")
	}
	if v := b(o, 1000*ms+boottime.Time(reportFresh)); v.Report != nil {
		t.Error("a stale report speaks")
	}
}

func TestSuspects(t *testing.T) {
	o, _ := listening()
	if got := o.Suspects(state(), 2900*ms); len(got) != 0 {
		t.Errorf("suspects %v of nodes that could not be heard yet", got)
	}
	if got := o.Suspects(state(), 3000*ms); !maps.Equal(got, map[core.NodeName]core.Instance{"b": "b1"}) { // committed
		t.Errorf("suspects %v", got)
	}
	beat(o, 3000*ms, 0, "b2", 1, 0)
	if got := o.Suspects(state(), 4000*ms); !maps.Equal(got, map[core.NodeName]core.Instance{"b": "b2"}) { // heard
		t.Errorf("suspects %v", got)
	}
}

func TestOnlyALeaderAcks(t *testing.T) {
	o, _ := listening()
	right := []guard.Right{{Service: "one", Epoch: 4}}
	if o.Acking(right, 1000*ms) {
		t.Error("acked without leading")
	}
	if v := o.View(contained(), 1_000_000*ms, nil); len(v.LeaseOver) != 0 || v.Settled {
		t.Errorf("a follower calls leases over: %+v", v)
	}
	o.Lead(2000*ms, timing)
	if !o.Acking(right, 2100*ms) {
		t.Error("a leader can't ack")
	}
	o.Follow()
	if o.Acking(right, 2200*ms) {
		t.Error("acked after leading")
	}
}

func TestSettled(t *testing.T) {
	o, _ := listening()
	o.Lead(10_000*ms, timing)
	for at, want := range map[boottime.Time]bool{10_000 * ms: false, 11_999 * ms: false, 12_000 * ms: true} {
		if v := o.View(state(), at, []core.NodeName{"a"}); v.Settled != want || !slices.Equal(v.Voters, []core.NodeName{"a"}) {
			t.Errorf("at %d: settled %t", at, v.Settled)
		}
	}
}

// TestLeaseOverOutlastsTheHolder: whatever is acked and lost, when the View calls a lease over, the holder's own
// arithmetic says so too (I3, I5), across leaders, with a holder whose clock runs at another rate.
func TestLeaseOverOutlastsTheHolder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o, _ := listening()
		right := guard.Right{Service: "one", Epoch: 4}
		holder := guard.NewLeases(timing.Lease)
		rate := rapid.Int64Range(-500, 500).Draw(t, "ppm")
		own := func(at boottime.Time) boottime.Time { return at + at*boottime.Time(rate)/1_000_000 }
		now, term := 1000*ms, uint64(1)
		o.Lead(now, timing)
		for seq := range uint64(rapid.IntRange(1, 40).Draw(t, "beats")) {
			sent := now
			holder.Sent(seq+1, own(sent))
			now += boottime.Time(rapid.Int64Range(0, 900).Draw(t, "way")) * ms
			arrived := now
			switch rapid.SampledFrom([]string{"ack", "ack", "ack lost", "lost", "new leader"}).Draw(t, "what") {
			case "ack":
				o.Acking([]guard.Right{right}, arrived)
				now += boottime.Time(rapid.Int64Range(0, 900).Draw(t, "back")) * ms
				_, _ = holder.Ack(guard.Ack{Seq: seq + 1, Sent: own(sent), Term: term, Lease: timing.Lease, Grants: []guard.Right{right}})
			case "ack lost":
				o.Acking([]guard.Right{right}, arrived)
			case "new leader":
				term++
				o.Follow()
				o.Lead(now, timing)
			case "lost":
			}
			now += boottime.Time(rapid.Int64Range(0, 5000).Draw(t, "pause")) * ms
			over := o.View(contained(), now, nil).LeaseOver["one"] == 4
			if _, live := holder.Until(right, own(now)); over && live {
				t.Fatalf("called over at %d ms while the holder has it", now/ms)
			}
		}
		now += 5000 * ms
		if o.View(contained(), now, nil).LeaseOver["one"] != 4 {
			t.Fatal("a silent holder's lease is never over")
		}
		if v := o.View(state(), now, nil); len(v.LeaseOver) != 0 {
			t.Fatal("called over while an ack that names it may be on its way")
		}
	})
}
