package guard

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/core"
)

func drawHeartbeat(t *rapid.T) Heartbeat {
	name := rapid.StringMatching(`[a-z0-9-]{1,20}`)
	h := Heartbeat{
		Cluster: name.Draw(t, "cluster"), Node: core.NodeName(name.Draw(t, "node")),
		Instance: core.Instance(name.Draw(t, "instance")), Seq: rapid.Uint64().Draw(t, "seq"),
		Sent:     boottime.Time(rapid.Int64Range(0, 1<<60).Draw(t, "sent")),
		Flags:    Flags(rapid.Byte().Draw(t, "flags")) & flagBits,
		Watchdog: time.Duration(rapid.IntRange(0, 63).Draw(t, "watchdog")) * time.Second,
	}
	for range rapid.IntRange(0, 8).Draw(t, "services") {
		h.Services = append(h.Services, Held{
			Right{core.ServiceName(name.Draw(t, "service")), core.Epoch(rapid.Uint64().Draw(t, "epoch"))},
			HeldState(rapid.IntRange(0, 2).Draw(t, "state")),
		})
	}
	return h
}

func TestHeartbeatRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h, key := drawHeartbeat(t), Key{1}
		text, err := AppendHeartbeat(nil, h, &key)
		if err != nil {
			t.Fatal(err)
		}
		if node, err := Sender(text); err != nil || node != h.Node {
			t.Fatalf("sender %q, %v", node, err)
		}
		got, err := DecodeHeartbeat(text, &key)
		if err != nil || !reflect.DeepEqual(got, h) {
			t.Fatalf("got %+v, %v, want %+v", got, err, h)
		}
		if _, err := DecodeAck(text, &key); err == nil {
			t.Fatal("a heartbeat passed for an ack")
		}
		if _, err := DecodeHeartbeat(text, &Key{2}); !errors.Is(err, ErrForged) {
			t.Fatalf("wrong key: %v", err)
		}
		at := rapid.IntRange(0, len(text)-1).Draw(t, "at")
		text[at] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if _, err := DecodeHeartbeat(text, &key); err == nil {
			t.Fatalf("bit flipped in byte %d and accepted", at)
		}
	})
}

// A heartbeat has the length and the two flags that it always had, whatever it says of a watchdog, and never a shorter
// timeout than the real one.
func TestWatchdogInHeartbeat(t *testing.T) {
	plain, err := AppendHeartbeat(nil, Heartbeat{Cluster: "c", Node: "n", Flags: DaemonHealthy}, &Key{})
	if err != nil {
		t.Fatal(err)
	}
	for timeout, want := range map[time.Duration]time.Duration{
		-time.Second: 0, 0: 0, 1: time.Second, 30 * time.Second: 30 * time.Second, 29*time.Second + 1: 30 * time.Second,
		MaxWatchdog: 63 * time.Second, MaxWatchdog + 1: 0, time.Hour: 0,
	} {
		text, err := AppendHeartbeat(nil, Heartbeat{Cluster: "c", Node: "n", Flags: DaemonHealthy, Watchdog: timeout}, &Key{})
		if err != nil || len(text) != len(plain) {
			t.Fatalf("%s: %d bytes instead of %d, %v", timeout, len(text), len(plain), err)
		}
		h, err := DecodeHeartbeat(text, &Key{})
		if err != nil || h.Watchdog != want || h.Flags != DaemonHealthy {
			t.Errorf("%s is told as %s with flags %b, %v", timeout, h.Watchdog, h.Flags, err)
		}
	}
}

func TestAckRoundTrip(t *testing.T) {
	a := Ack{
		Cluster: "c", Node: "n1", Instance: "boot/1", Seq: 7, Sent: 8, Term: 9, Lease: 3 * time.Second,
		Grants: []Right{{"one", 4}, {"two", 5}}, Maintenance: time.Hour,
	}
	key := Key{3}
	text, err := AppendAck(nil, a, &key)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeAck(text, &key)
	if err != nil || !reflect.DeepEqual(got, a) {
		t.Fatalf("got %+v, %v", got, err)
	}
}

func TestTooLong(t *testing.T) {
	h := Heartbeat{Cluster: "c", Node: "n"}
	for range 100 {
		h.Services = append(h.Services, Held{Right: Right{"a-service-of-some-length", 1}})
	}
	if _, err := AppendHeartbeat(nil, h, &Key{}); !errors.Is(err, ErrTooLong) {
		t.Fatalf("got %v", err)
	}
}

func FuzzDatagram(f *testing.F) {
	key := Key{1}
	h, _ := AppendHeartbeat(nil, Heartbeat{Cluster: "c", Node: "n", Services: []Held{{Right: Right{"one", 1}}}}, &key)
	a, _ := AppendAck(nil, Ack{Cluster: "c", Node: "n", Grants: []Right{{"one", 1}}}, &key)
	f.Add(h[:len(h)-macSize])
	f.Add(a[:len(a)-macSize])
	f.Fuzz(func(t *testing.T, body []byte) {
		signed := append(append([]byte{}, body...), sign(body, &key)...) // past the MAC, into the decoder
		_, _ = Sender(body)
		if h, err := DecodeHeartbeat(signed, &key); err == nil {
			if again, err := AppendHeartbeat(nil, h, &key); err != nil || string(again) != string(signed) {
				t.Fatalf("heartbeat has two encodings: %+v, %v", h, err)
			}
		}
		if a, err := DecodeAck(signed, &key); err == nil {
			if again, err := AppendAck(nil, a, &key); err != nil || string(again) != string(signed) {
				t.Fatalf("ack has two encodings: %+v, %v", a, err)
			}
		}
	})
}
