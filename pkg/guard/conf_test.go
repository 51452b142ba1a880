package guard

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

func exampleConf() Conf {
	return Conf{
		Cluster: "c1", Node: "n1", Heartbeat: 200 * time.Millisecond, Lease: 3 * time.Second,
		Links:    []netip.AddrPort{netip.MustParseAddrPort("10.1.0.1:7482"), netip.MustParseAddrPort("[fd00::1]:7482")},
		Peers:    []Peer{{Node: "n2", Key: Key{1, 2}, Links: []netip.AddrPort{netip.MustParseAddrPort("10.1.0.2:7481")}}},
		Watchdog: WatchdogConf{"/dev/watchdog0", 30 * time.Second},
	}
}

func TestConfRoundTrip(t *testing.T) {
	dir, c := t.TempDir(), exampleConf()
	if err := WriteConf(dir, c); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, confName)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseConf(text)
	if err != nil || !reflect.DeepEqual(got, c) {
		t.Fatalf("got %+v, %v", got, err)
	}
	if _, err := ParseConf(text[:len(text)-5]); err == nil {
		t.Error("half a file passed")
	}
	c.Lease = 0
	if WriteConf(dir, c) == nil {
		t.Error("a lease of 0 was written")
	}
}

func FuzzConf(f *testing.F) {
	f.Add(exampleConf().Marshal())
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := ParseConf(text)
		if err != nil {
			return
		}
		again, err := ParseConf(c.Marshal())
		if err != nil || !reflect.DeepEqual(c, again) {
			t.Fatalf("%+v became %+v, %v", c, again, err)
		}
	})
}
