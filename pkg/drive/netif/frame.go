package netif

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// Numbers on the wire.
const (
	etherARP  = 0x0806
	etherIPv6 = 0x86DD
	arpLen    = 28 // of an ARP packet for Ethernet and IPv4

	arpRequest = 1
	arpReply   = 2

	icmpSolicitation  = 135 // RFC 4861 §4.3
	icmpAdvertisement = 136 // RFC 4861 §4.4
	flagOverride      = 0x20
	optionSourceMAC   = 1 // RFC 4861 §4.6.1
	optionTargetMAC   = 2
)

var broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// garp is an ARP announcement (RFC 5227 §3): a request that asks for the address that its sender says is its
// own. A request rather than a reply, since all hosts update their caches from it.
func garp(mac net.HardwareAddr, addr netip.Addr) []byte {
	return arp(mac, mac, addr, addr)
}

// arpProbe asks who has addr without claiming it (RFC 5227 §2.1.1): the sender's protocol address is zero, so
// nobody's cache changes.
func arpProbe(mac net.HardwareAddr, addr netip.Addr) []byte {
	return arp(mac, mac, netip.IPv4Unspecified(), addr)
}

func arp(from, sender net.HardwareAddr, senderAddr, target netip.Addr) []byte {
	frame := ethernet(broadcast, from, etherARP)
	frame = binary.BigEndian.AppendUint16(frame, 1)      // Ethernet
	frame = binary.BigEndian.AppendUint16(frame, 0x0800) // IPv4
	frame = append(frame, 6, 4)
	frame = binary.BigEndian.AppendUint16(frame, arpRequest)
	frame = append(frame, sender...)
	frame = append(frame, senderAddr.AsSlice()...)
	frame = append(frame, make([]byte, 6)...) // RFC 5227: the target hardware address is zero
	return append(frame, target.AsSlice()...)
}

// unsolicited is a neighbour advertisement to all nodes with the override flag (RFC 4861 §7.2.6).
func unsolicited(mac net.HardwareAddr, addr netip.Addr) []byte {
	allNodes := netip.IPv6LinkLocalAllNodes()
	body := []byte{icmpAdvertisement, 0, 0, 0, flagOverride, 0, 0, 0}
	body = append(body, addr.AsSlice()...)
	body = append(body, optionTargetMAC, 1)
	body = append(body, mac...)
	return icmp6(mac, addr, allNodes, body)
}

// solicitation asks who has addr as duplicate address detection does (RFC 4862 §5.4.2): from the unspecified
// address and without a source link-layer option, so nobody's cache changes.
func solicitation(mac net.HardwareAddr, addr netip.Addr) []byte {
	body := []byte{icmpSolicitation, 0, 0, 0, 0, 0, 0, 0}
	body = append(body, addr.AsSlice()...)
	return icmp6(mac, netip.IPv6Unspecified(), solicitedNode(addr), body)
}

// icmp6 wraps an ICMPv6 message to a multicast address. The hop limit of 255 proves to receivers that no
// router passed it on (RFC 4861 §7.1).
func icmp6(from net.HardwareAddr, source, target netip.Addr, body []byte) []byte {
	binary.BigEndian.PutUint16(body[2:], 0)
	binary.BigEndian.PutUint16(body[2:], icmp6Checksum(source, target, body))
	frame := ethernet(multicastMAC(target), from, etherIPv6)
	frame = append(frame, 0x60, 0, 0, 0)
	frame = binary.BigEndian.AppendUint16(frame, uint16(len(body)))
	frame = append(frame, 58, 255) // ICMPv6, hop limit
	frame = append(frame, source.AsSlice()...)
	frame = append(frame, target.AsSlice()...)
	return append(frame, body...)
}

func ethernet(to, from net.HardwareAddr, kind uint16) []byte {
	frame := make([]byte, 0, 128)
	frame = append(frame, to...)
	frame = append(frame, from...)
	return binary.BigEndian.AppendUint16(frame, kind)
}

// solicitedNode is the multicast address of those who may have addr (RFC 4291 §2.7.1).
func solicitedNode(addr netip.Addr) netip.Addr {
	a := addr.As16()
	return netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 11: 0x01, 12: 0xff, 13: a[13], 14: a[14], 15: a[15]})
}

// multicastMAC is the Ethernet address of an IPv6 multicast address (RFC 2464 §7).
func multicastMAC(group netip.Addr) net.HardwareAddr {
	a := group.As16()
	return net.HardwareAddr{0x33, 0x33, a[12], a[13], a[14], a[15]}
}

// icmp6Checksum is RFC 4443 §2.3's: over the pseudo header of RFC 8200 §8.1 and the message.
func icmp6Checksum(source, target netip.Addr, body []byte) uint16 {
	pseudo := append(source.AsSlice(), target.AsSlice()...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(body)))
	pseudo = append(pseudo, 0, 0, 0, 58)
	sum := onesSum(pseudo) + onesSum(body)
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func onesSum(b []byte) uint32 {
	sum := uint32(0)
	for len(b) >= 2 {
		sum += uint32(binary.BigEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	return sum
}

// claims reads a received frame and returns who claims addr, nil if the frame does not. ARP: any packet whose
// sender protocol address is addr (RFC 5227 §2.1.1). IPv6: a neighbour advertisement for it.
func claims(frame []byte, addr netip.Addr) net.HardwareAddr {
	if len(frame) < 14 {
		return nil
	}
	payload := frame[14:]
	switch binary.BigEndian.Uint16(frame[12:]) {
	case etherARP:
		return arpClaims(payload, addr)
	case etherIPv6:
		return advertisementClaims(frame, payload, addr)
	}
	return nil
}

func arpClaims(p []byte, addr netip.Addr) net.HardwareAddr {
	if len(p) < arpLen || !addr.Is4() || p[4] != 6 || p[5] != 4 {
		return nil
	}
	if operation := binary.BigEndian.Uint16(p[6:]); operation != arpRequest && operation != arpReply {
		return nil
	}
	if netip.AddrFrom4([4]byte(p[14:18])) != addr {
		return nil
	}
	return append(net.HardwareAddr(nil), p[8:14]...)
}

func advertisementClaims(frame, p []byte, addr netip.Addr) net.HardwareAddr {
	const header, fixed = 40, 24
	if len(p) < header+fixed || addr.Is4() || p[6] != 58 || p[7] != 255 || p[header] != icmpAdvertisement {
		return nil
	}
	message := p[header:]
	if netip.AddrFrom16([16]byte(message[8:24])) != addr {
		return nil
	}
	for options := message[fixed:]; len(options) >= 8; {
		size := int(options[1]) * 8
		if size == 0 || size > len(options) {
			break
		}
		if options[0] == optionTargetMAC {
			return append(net.HardwareAddr(nil), options[2:8]...)
		}
		options = options[size:]
	}
	return append(net.HardwareAddr(nil), frame[6:12]...) // no option: the sender of the frame
}
