package takeover_test

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/keepone-ha/keepone/pkg/activate/takeover"
	"github.com/keepone-ha/keepone/pkg/activate/takeover/takeovertest"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/worker"
)

func TestFake(t *testing.T) {
	t.Parallel()
	takeovertest.Run(t, netip.MustParseAddr("127.0.0.1"), takeovertest.NewFake)
}

// scripted is an image and a holder that write down what is asked of them.
type scripted struct {
	did    []string
	owners []string
}

func (s *scripted) do(words ...string) { s.did = append(s.did, strings.Join(words, " ")) }

func (s *scripted) RaiseEpoch(_ context.Context, to core.Epoch) (core.Epoch, error) {
	s.do("epoch")
	return to, nil
}

func (s *scripted) Clients(context.Context) (takeover.Clients, error) {
	return takeover.Clients{Owners: slices.Clone(s.owners)}, nil
}

func (s *scripted) Blocklist(_ context.Context, addresses []string) (uint64, error) {
	s.do(append([]string{"blocklist"}, addresses...)...)
	return 1, nil
}

func (s *scripted) Break(_ context.Context, owner string) error {
	s.do("break", owner)
	s.owners = slices.DeleteFunc(s.owners, func(o string) bool { return o == owner })
	return nil
}

func (s *scripted) Barrier(context.Context) error { s.do("barrier"); return nil }
func (s *scripted) Lock(context.Context) error    { s.do("lock"); return nil }
func (s *scripted) Unlock(context.Context) error  { s.do("unlock"); return nil }

func (s *scripted) want(t *testing.T, did ...string) {
	t.Helper()
	if !slices.Equal(s.did, did) {
		t.Errorf("did %q, want %q", s.did, did)
	}
}

// TestOwnerWithoutWatch: a client that was paused for so long that its watch is gone still owns the lock, and may wake: it
// is blocklisted before its lock is broken (I6).
func TestOwnerWithoutWatch(t *testing.T) {
	t.Parallel()
	s := &scripted{owners: []string{"192.0.2.7:0/78"}}
	order := worker.CutOff{Epoch: 2, From: []netip.Addr{netip.MustParseAddr("192.0.2.7")}}
	if _, err := takeover.CutOff(t.Context(), s, order); err != nil {
		t.Fatal(err)
	}
	s.want(t, "epoch", "blocklist 192.0.2.7:0/78", "break 192.0.2.7:0/78")
}

// TestAcquireOrder: the map that carries the blocklist comes before the lock, lease and tombstone right before it, and the
// epoch is read again behind it (I2, I4, I6).
func TestAcquireOrder(t *testing.T) {
	t.Parallel()
	s := &scripted{}
	err := takeover.Acquire(t.Context(), s, 2, func(context.Context) error { s.do("ready"); return nil })
	if err != nil {
		t.Fatal(err)
	}
	s.want(t, "barrier", "ready", "lock", "epoch")
}

func TestParseAddress(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"10.0.0.1:0/123":            "10.0.0.1:0/123",
		"v1:10.0.0.1:0/123":         "10.0.0.1:0/123",
		"[fd00::1]:0/4294967295":    "[fd00::1]:0/4294967295",
		"any:[::ffff:10.0.0.1]:0/1": "10.0.0.1:0/1",
		"10.0.0.1":                  "",
		"10.0.0.1:0/":               "",
		"":                          "",
	} {
		got, ok := takeover.ParseAddress(text)
		if ok != (want != "") || (ok && got.String() != want) {
			t.Errorf("parse %q: %v, %v; want %q", text, got, ok, want)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	f.Add("v2:10.0.0.1:0/123")
	f.Fuzz(func(t *testing.T, text string) {
		a, ok := takeover.ParseAddress(text)
		if !ok {
			return
		}
		if again, ok := takeover.ParseAddress(a.String()); !ok || again != a {
			t.Fatalf("%q reads as %v, that reads as %v", text, a, again)
		}
	})
}
