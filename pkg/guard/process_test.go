package guard

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/release"
)

const (
	testBeat  = 10 * time.Millisecond
	testLease = time.Second      // far above what a busy machine delays
	patience  = 10 * time.Second // a busy machine
)

// bench is a guard on loopback with a leader that answers as it is told to.
type bench struct {
	t         *testing.T
	dir       string
	conf      Conf
	receiver  *Receiver
	naming    atomic.Pointer[[]Right] // what acks name; nil: no ack
	heard     chan Heartbeat
	contained chan release.Record
	result    atomic.Pointer[release.Contained]
	skew      atomic.Int64 // added to the guard's clock
	kennel    func(string, time.Duration) (Watchdog, error)
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, dir: t.TempDir(), heard: make(chan Heartbeat, 1), contained: make(chan release.Record, 100)}
	b.result.Store(&release.Contained{Done: true})
	key := Key{9}
	guardAt, daemonAt := freePort(t), freePort(t)
	b.conf = Conf{
		Cluster: "c", Node: "n1", Heartbeat: testBeat, Lease: testLease, Links: []netip.AddrPort{guardAt},
		Peers: []Peer{{Node: "n1", Key: key, Links: []netip.AddrPort{daemonAt}}},
	}
	var err error
	b.receiver, err = NewReceiver(ReceiverConf{
		Cluster: "c", Node: "n1", Links: []netip.AddrPort{daemonAt}, Log: slog.New(slog.DiscardHandler),
		Peers:   []Peer{{Node: "n1", Key: key, Links: []netip.AddrPort{guardAt}}},
		Deliver: b.deliver,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { _ = b.receiver.Run(ctx) })
	t.Cleanup(func() { cancel(); work.Wait() })
	return b
}

func (b *bench) deliver(a Arrival) {
	if rights := b.naming.Load(); rights != nil {
		h := a.Heartbeat
		_ = b.receiver.SendAck(-1, "n1", Ack{
			Instance: h.Instance, Seq: h.Seq, Sent: h.Sent, Term: 1, Lease: testLease, Grants: *rights,
		})
	}
	select {
	case <-b.heard:
	default:
	}
	b.heard <- a.Heartbeat
}

// start runs a guard until the returned function, or the test, ends it.
func (b *bench) start() (stop func()) {
	b.t.Helper()
	g, err := New(Options{
		RunDir: b.dir, Log: slog.New(slog.DiscardHandler), Watchdog: b.kennel,
		Now: func() boottime.Time { return boottime.Now().Add(time.Duration(b.skew.Load())) },
		Contain: func(_ context.Context, r release.Record, reason string) release.Contained {
			c := *b.result.Load()
			if c.Done {
				_ = release.Mark(b.dir, r.Service, r.Epoch, r.Attempt, release.MarkContained, reason)
			}
			b.contained <- r
			return c
		},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() {
		if err := g.Run(ctx); err != nil {
			b.t.Error(err)
		}
	})
	stop = func() { cancel(); work.Wait() }
	b.t.Cleanup(stop)
	return stop
}

func (b *bench) configure() {
	b.t.Helper()
	if err := WriteConf(b.dir, b.conf); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) record(service core.ServiceName, epoch core.Epoch, attempt int) {
	b.t.Helper()
	if err := (release.Record{Service: service, Epoch: epoch, Attempt: attempt}).Save(b.dir); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) name(rights ...Right) { b.naming.Store(&rights) }

// until waits for a heartbeat that satisfies ok.
func (b *bench) until(what string, ok func(Heartbeat) bool) Heartbeat {
	b.t.Helper()
	limit := time.After(patience)
	for {
		select {
		case h := <-b.heard:
			if ok(h) {
				return h
			}
		case <-limit:
			b.t.Fatalf("no heartbeat says that %s", what)
		}
	}
}

func (b *bench) containment(what string) release.Record {
	b.t.Helper()
	select {
	case r := <-b.contained:
		return r
	case <-time.After(patience):
		b.t.Fatalf("not contained: %s", what)
		return release.Record{}
	}
}

func freePort(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := openSocket(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(sa.(*unix.SockaddrInet4).Port))
}

func states(h Heartbeat) map[core.ServiceName]HeldState {
	m := map[core.ServiceName]HeldState{}
	for _, s := range h.Services {
		m[s.Service] = s.State
	}
	return m
}

// I5: acks keep a service, their end contains it, whatever is acked meanwhile for another.
// leased is a client of the guard, once it has said that a right has its lease. A busy machine may be slower than a
// client's own patience.
func (b *bench) leased(service core.ServiceName, epoch core.Epoch) *Client {
	b.t.Helper()
	var err error
	for limit := time.Now().Add(patience); time.Now().Before(limit); time.Sleep(testBeat) {
		var client *Client
		if client, err = Dial(b.dir); err != nil {
			continue
		}
		var ok bool
		if _, ok, err = client.Lease(b.t.Context(), service, epoch); ok {
			return client
		}
		_ = client.Close()
	}
	b.t.Fatalf("no lease of %s within %s: %v", service, patience, err)
	return nil
}

func TestContainsAtTheEndOfTheLease(t *testing.T) {
	b := newBench(t)
	one, two := Right{"one", 1}, Right{"two", 7}
	b.name(one, two)
	b.start() // guard.conf comes later
	b.configure()
	client := b.leased("one", 1)
	defer func() { _ = client.Close() }()
	if _, ok, _ := client.Lease(t.Context(), "one", 2); ok {
		t.Error("a lease for an epoch that was not granted (I4)")
	}
	b.record("one", 1, 1)
	b.record("two", 7, 1)
	first := b.until("both run", func(h Heartbeat) bool { return len(h.Services) == 2 })
	b.until("both still run after two leases", func(h Heartbeat) bool {
		return h.Sent.Sub(first.Sent) > 2*testLease
	})
	if len(b.contained) > 0 {
		t.Fatalf("contained under a live lease: %+v", <-b.contained)
	}
	b.name(two)
	if r := b.containment("one"); r.Service != "one" {
		t.Fatalf("contained %s", r.Service)
	}
	h := b.until("one is contained, two runs", func(h Heartbeat) bool { return states(h)["one"] == HeldContained })
	if states(h)["two"] != HeldRunning {
		t.Error("the other service was hit too")
	}
	st, err := client.Status(t.Context())
	if err != nil || len(st.Services) != 2 || st.Services[0].State != "contained" || st.Leader != "n1" {
		t.Errorf("status %+v, %v", st, err)
	}
}

func TestHealthFlag(t *testing.T) {
	b := newBench(t)
	b.configure()
	b.start()
	b.until("the daemon is not well", func(h Heartbeat) bool { return h.Flags&DaemonHealthy == 0 })
	client, err := Dial(b.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	if err := client.Healthy(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.until("the daemon is well", func(h Heartbeat) bool { return h.Flags&DaemonHealthy != 0 })
}

// I5: a record that never had a lease gets one lease time, then it is contained; a new attempt is looked at anew.
func TestContainsWhatNeverHadALease(t *testing.T) {
	b := newBench(t)
	b.configure()
	b.start()
	b.until("the guard is there", func(Heartbeat) bool { return true })
	b.record("one", 3, 1)
	b.containment("attempt 1")
	b.record("one", 3, 2)
	if r := b.containment("attempt 2"); r.Attempt != 2 {
		t.Fatalf("contained attempt %d", r.Attempt)
	}
}

// I5: a restarted guard knows the true deadlines; one whose memory is gone gives no grace.
func TestRestart(t *testing.T) {
	for _, lost := range []bool{false, true} {
		b := newBench(t)
		b.configure()
		b.name(Right{"one", 1})
		stop := b.start()
		b.record("one", 1, 1)
		first := b.until("one runs", func(h Heartbeat) bool { return len(h.Services) == 1 })
		last := b.until("it was acked for a while", func(h Heartbeat) bool { return h.Sent.Sub(first.Sent) > testLease })
		stop()
		b.naming.Store(nil)
		if lost {
			if err := unix.Unlink(b.dir + "/" + memoryName); err != nil {
				t.Fatal(err)
			}
		}
		g, err := New(Options{RunDir: b.dir, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		g.scan(boottime.Now()) // its first look: what it does not know of has no grace
		deadline := g.leases.Deadline(Right{"one", 1})
		if lost && deadline > boottime.Now() {
			t.Error("memory lost, and a grace was given")
		}
		if !lost && (deadline < last.Sent || deadline > boottime.Now().Add(testLease)) {
			t.Errorf("deadline %v is not that of the last ack, sent %v", deadline, last.Sent)
		}
		b.start()
		b.containment("after the restart")
	}
}

// A guard that was paused or suspended sees at once that its clock has passed the deadline, before it hears acks.
func TestPastDeadlineComesFirst(t *testing.T) {
	b := newBench(t)
	b.configure()
	b.name(Right{"one", 1})
	b.start()
	b.record("one", 1, 1)
	b.until("one runs", func(h Heartbeat) bool { return len(h.Services) == 1 })
	b.skew.Store(int64(time.Hour)) // acks go on
	b.containment("an hour later")
}

// What can't be contained is said and tried again, and the others go on.
func TestStuck(t *testing.T) {
	b := newBench(t)
	b.configure()
	b.result.Store(&release.Contained{Reasons: []string{"pid 1 (x) in state D"}})
	b.start()
	b.record("one", 1, 1)
	b.until("one is stuck", func(h Heartbeat) bool { return states(h)["one"] == HeldStuck })
	b.result.Store(&release.Contained{Done: true})
	b.until("one is contained", func(h Heartbeat) bool { return states(h)["one"] == HeldContained })
}

// An ack that was meant for an earlier life, or another cluster, gives nothing (I4).
func TestAckIsForThisLife(t *testing.T) {
	g, err := New(Options{RunDir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	key := Key{9}
	g.conf = Conf{Cluster: "c", Node: "n1", Peers: []Peer{{Node: "n2", Key: key}}}
	good := Ack{Cluster: "c", Node: "n2", Instance: g.instance, Seq: 5, Sent: sec, Term: 1, Lease: testLease, Grants: []Right{{"one", 1}}}
	g.leases.Sent(5, sec)
	earlier, other := good, good
	earlier.Instance, other.Cluster = "an/earlier", "d"
	for i, a := range []Ack{earlier, other, good} {
		datagram, err := AppendAck(nil, a, &key)
		if err != nil {
			t.Fatal(err)
		}
		g.take1(datagram)
		if _, live := g.leases.Until(Right{"one", 1}, sec); live != (i == 2) {
			t.Errorf("ack %+v: live %t", a, live)
		}
	}
}

func TestReceiverDropsReplaysAndForgeries(t *testing.T) {
	b := newBench(t)
	key := &b.conf.Peers[0].Key
	good, _ := AppendHeartbeat(nil, Heartbeat{Cluster: "c", Node: "n1", Instance: "i", Seq: 5}, key)
	older, _ := AppendHeartbeat(nil, Heartbeat{Cluster: "c", Node: "n1", Instance: "i", Seq: 4}, key)
	forged, _ := AppendHeartbeat(nil, Heartbeat{Cluster: "c", Node: "n1", Instance: "i", Seq: 6}, &Key{})
	stranger, _ := AppendHeartbeat(nil, Heartbeat{Cluster: "c", Node: "n9", Instance: "i", Seq: 6}, key)
	cluster, _ := AppendHeartbeat(nil, Heartbeat{Cluster: "d", Node: "n1", Instance: "i", Seq: 6}, key)
	if _, ok := b.receiver.open(0, good); !ok {
		t.Fatal("a good heartbeat was dropped")
	}
	for name, datagram := range map[string][]byte{
		"replayed": good, "older": older, "forged": forged, "stranger": stranger, "other cluster": cluster, "empty": nil,
	} {
		if _, ok := b.receiver.open(0, datagram); ok {
			t.Errorf("%s passed", name)
		}
	}
	if _, ok := b.receiver.open(1, good); !ok {
		t.Error("the same heartbeat over the other link was dropped")
	}
}

func TestMissingLinkHindersNobody(t *testing.T) {
	b := newBench(t)
	missing := netip.MustParseAddrPort("192.0.2.77:7482") // TEST-NET-1: nobody has it
	b.conf.Links = []netip.AddrPort{missing, b.conf.Links[0]}
	b.conf.Peers[0].Links = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.78:7481"), b.conf.Peers[0].Links[0]}
	b.configure()
	b.start()
	b.until("the other link works", func(Heartbeat) bool { return true })
}
