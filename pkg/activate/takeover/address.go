package takeover

import (
	"net/netip"
	"strconv"
	"strings"
)

// Address is a Ceph client's entity address. Its text is IP:PORT/NONCE, IPv6 in brackets; port is 0 for clients.
type Address struct {
	IP    netip.Addr
	Port  uint16
	Nonce uint64
}

// ParseAddress reads an entity address as Ceph prints it, with or without the messenger's version in front.
func ParseAddress(text string) (Address, bool) {
	for _, version := range []string{"v1:", "v2:", "any:"} {
		text = strings.TrimPrefix(text, version)
	}
	slash := strings.LastIndexByte(text, '/')
	if slash < 0 {
		return Address{}, false
	}
	nonce, err := strconv.ParseUint(text[slash+1:], 10, 64)
	if err != nil {
		return Address{}, false
	}
	host, err := netip.ParseAddrPort(text[:slash])
	if err != nil {
		return Address{}, false
	}
	return Address{IP: host.Addr().Unmap(), Port: host.Port(), Nonce: nonce}, true
}

func (a Address) String() string {
	return netip.AddrPortFrom(a.IP, a.Port).String() + "/" + strconv.FormatUint(a.Nonce, 10)
}

// canonical makes two spellings of one address equal. What can't be parsed stands for itself.
func canonical(text string) string {
	if a, ok := ParseAddress(text); ok {
		return a.String()
	}
	return text
}

// crowd is whom a take-over may cut off.
type crowd struct {
	addresses map[string]bool
	from      map[netip.Addr]bool
}

func newCrowd(addresses []string, from []netip.Addr) crowd {
	c := crowd{map[string]bool{}, map[netip.Addr]bool{}}
	for _, a := range addresses {
		c.addresses[canonical(a)] = true
	}
	for _, ip := range from {
		c.from[ip.Unmap()] = true
	}
	return c
}

func (c crowd) has(address string) bool {
	a, ok := ParseAddress(address)
	return c.addresses[canonical(address)] || (ok && c.from[a.IP])
}

func (c crowd) among(addresses []string) []string {
	var in []string
	for _, a := range addresses {
		if c.has(a) {
			in = append(in, a)
		}
	}
	return in
}

// stranger returns the first owner that is not to be cut off, or "".
func (c crowd) stranger(owners []string) string {
	for _, o := range owners {
		if !c.has(o) {
			return o
		}
	}
	return ""
}
