package netif

import (
	"bytes"
	"encoding/hex"
	"net"
	"net/netip"
	"strings"
	"testing"
)

var (
	testMAC  = net.HardwareAddr{0x02, 0x00, 0x5e, 0x10, 0x20, 0x30}
	otherMAC = net.HardwareAddr{0x02, 0x00, 0x5e, 0x10, 0x20, 0x31}
	addr4    = netip.MustParseAddr("192.0.2.7")
	addr6    = netip.MustParseAddr("2001:db8::7:8:9")
)

func fromHex(t *testing.T, parts ...string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(strings.Join(parts, ""), " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestFrames(t *testing.T) {
	for name, row := range map[string]struct{ got, want []byte }{
		"announcement": {garp(testMAC, addr4), fromHex(t,
			"ffffffffffff 02005e102030 0806", "0001 0800 06 04 0001",
			"02005e102030 c0000207", "000000000000 c0000207")},
		"ARP probe": {arpProbe(testMAC, addr4), fromHex(t,
			"ffffffffffff 02005e102030 0806", "0001 0800 06 04 0001",
			"02005e102030 00000000", "000000000000 c0000207")},
		"advertisement": {unsolicited(testMAC, addr6), fromHex(t,
			"333300000001 02005e102030 86dd", "60000000 0020 3a ff",
			"20010db8000000000000000700080009", "ff020000000000000000000000000001",
			"88 00", "7abd", "20000000", "20010db8000000000000000700080009", "02 01 02005e102030")},
		"solicitation": {solicitation(testMAC, addr6), fromHex(t,
			"3333ff080009 02005e102030 86dd", "60000000 0018 3a ff",
			"00000000000000000000000000000000", "ff0200000000000000000001ff080009",
			"87 00", "4cc6", "00000000", "20010db8000000000000000700080009")},
	} {
		t.Run(name, func(t *testing.T) {
			if !bytes.Equal(row.got, row.want) {
				t.Errorf("got  %x\nwant %x", row.got, row.want)
			}
		})
	}
}

// A right checksum makes the sum over pseudo header and message all ones (RFC 1071).
func TestChecksumVerifies(t *testing.T) {
	for _, frame := range [][]byte{unsolicited(testMAC, addr6), solicitation(otherMAC, addr6)} {
		source, target := netip.AddrFrom16([16]byte(frame[22:38])), netip.AddrFrom16([16]byte(frame[38:54]))
		if got := icmp6Checksum(source, target, frame[54:]); got != 0 {
			t.Errorf("checksum of %x is off by %#x", frame, got)
		}
	}
}

func TestClaims(t *testing.T) {
	reply := arp(otherMAC, otherMAC, addr4, netip.MustParseAddr("192.0.2.1"))
	reply[21] = arpReply
	noOption := unsolicited(otherMAC, addr6)[:14+40+24]
	for name, row := range map[string]struct {
		frame []byte
		addr  netip.Addr
		want  net.HardwareAddr
	}{
		"ARP reply":               {reply, addr4, otherMAC},
		"announcement":            {garp(otherMAC, addr4), addr4, otherMAC},
		"ARP probe by another":    {arpProbe(otherMAC, addr4), addr4, nil},
		"another address":         {garp(otherMAC, netip.MustParseAddr("192.0.2.8")), addr4, nil},
		"advertisement":           {unsolicited(otherMAC, addr6), addr6, otherMAC},
		"without an option":       {noOption, addr6, otherMAC},
		"another IPv6 address":    {unsolicited(otherMAC, netip.MustParseAddr("2001:db8::1")), addr6, nil},
		"solicitation by another": {solicitation(otherMAC, addr6), addr6, nil},
		"short":                   {reply[:30], addr4, nil},
		"shorter":                 {reply[:3], addr4, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if got := claims(row.frame, row.addr); got.String() != row.want.String() {
				t.Errorf("claims = %s, want %s", got, row.want)
			}
		})
	}
}

// A routed or forged message has lost hop limit 255 (RFC 4861 §7.1.2).
func TestRoutedAdvertisementClaimsNothing(t *testing.T) {
	frame := unsolicited(otherMAC, addr6)
	frame[14+7] = 254
	if got := claims(frame, addr6); got != nil {
		t.Errorf("claims = %s", got)
	}
}

func FuzzClaims(f *testing.F) {
	f.Add(garp(testMAC, addr4))
	f.Add(unsolicited(testMAC, addr6))
	f.Fuzz(func(t *testing.T, frame []byte) {
		for _, addr := range []netip.Addr{addr4, addr6} {
			if who := claims(frame, addr); who != nil && len(who) != 6 {
				t.Errorf("claimed by %v", who)
			}
		}
	})
}
