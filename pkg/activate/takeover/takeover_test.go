package takeover_test

import (
	"net/netip"
	"testing"

	"github.com/keepone-ha/keepone/pkg/activate/takeover"
	"github.com/keepone-ha/keepone/pkg/activate/takeover/takeovertest"
)

func TestFake(t *testing.T) {
	t.Parallel()
	takeovertest.Run(t, netip.MustParseAddr("127.0.0.1"), takeovertest.NewFake)
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
