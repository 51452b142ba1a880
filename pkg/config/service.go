package config

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

// The default bounds of a service. A front-end with its database starts within seconds and stops in three; the
// bounds are for a cold cache and a file system that wants checking.
const (
	defaultStartLimit = 2 * time.Minute
	defaultStopLimit  = 30 * time.Second
)

// The probes' defaults: three failures in a row at this pace tell within 6 s and pass over a hiccup.
const (
	defaultProbeInterval = 2 * time.Second
	defaultProbeTimeout  = 2 * time.Second
	defaultProbeFailures = 3
	opennebulaPort       = 2633
)

func readService(s section, cluster string) servicePart {
	part := servicePart{at: s}
	part.Name = core.ServiceName(s.label("name", serviceLabel))
	part.Volume = readVolume(s.sub("volume"))
	part.Network = readNetwork(s.sub("network"), cluster, string(part.Name))
	for _, probe := range s.list("probe") {
		part.Probes = append(part.Probes, readProbe(probe))
	}
	part.Nodes = nodeNames(s.strings("nodes"))
	part.Prefer = nodeNames(s.strings("prefer"))
	if s.has("fencing") {
		policy := readPolicy(s.sub("fencing"))
		part.Policy = &policy
	}
	part.Restart = readRestart(s.sub("restart"))
	part.StartLimit = s.duration("start_limit", defaultStartLimit)
	part.StopLimit = s.duration("stop_limit", defaultStopLimit)
	return part
}

func nodeNames(texts []string) []core.NodeName {
	var names []core.NodeName
	for _, text := range texts {
		names = append(names, core.NodeName(text))
	}
	return names
}

func readVolume(s section) core.VolumeSpec {
	volume := core.VolumeSpec{
		Pool:      s.need("pool", "rbd"),
		Namespace: s.str("namespace", ""),
		Image:     s.need("image", "frontend"),
		FS:        s.oneOf("fs", "ext4", "ext4", "xfs"),
		Mapper:    s.oneOf("mapper", "krbd", "krbd", "librbd"),
	}
	for _, part := range []struct{ key, text string }{{"pool", volume.Pool}, {"namespace", volume.Namespace}, {"image", volume.Image}} {
		if strings.ContainsAny(part.text, "/@ \t\n\x00") {
			s.problem(part.key, fmt.Sprintf("%s is %q: it must not hold /, @ or blanks", s.full(part.key), part.text))
		}
	}
	return volume
}

func readNetwork(s section, cluster, service string) core.NetworkSpec {
	network := core.NetworkSpec{Bridge: s.need("bridge", "br0"), MAC: mac(cluster, service)}
	if len(network.Bridge) > 15 || strings.ContainsAny(network.Bridge, "/ \t\n\x00") {
		s.problem("bridge", fmt.Sprintf("%s is %q: that is no interface's name", s.full("bridge"), network.Bridge))
	}
	if text := s.str("mac", network.MAC); text != network.MAC {
		network.MAC = readMAC(s, text)
	}
	network.Addresses = readPrefixes(s)
	if text := s.str("gateway", ""); text != "" {
		network.Gateway = readGateway(s, text, network.Addresses)
	}
	return network
}

func readMAC(s section, text string) string {
	address, err := net.ParseMAC(text)
	if err != nil || len(address) != 6 {
		s.problem("mac", fmt.Sprintf("%s is %q: it must be a MAC address such as \"02:00:5e:10:00:01\"", s.full("mac"), text))
		return text
	}
	if address[0]&1 != 0 {
		s.problem("mac", fmt.Sprintf("%s is %s, a group address: the second digit must be even", s.full("mac"), address))
	}
	return address.String()
}

func readPrefixes(s section) []netip.Prefix {
	var list []netip.Prefix
	for _, p := range s.texts("addresses") {
		prefix, err := netip.ParsePrefix(p.text)
		switch {
		case err != nil:
			s.r.add(p.place, "%s: %q is no address with its prefix, such as \"10.0.0.10/24\"", s.full("addresses"), p.text)
		case prefix.Addr().IsUnspecified() || prefix.Addr().IsMulticast() || !prefix.IsSingleIP() && prefix.Masked().Addr() == prefix.Addr() && prefix.Bits() < prefix.Addr().BitLen()-1:
			s.r.add(p.place, "%s: %s is the address of a network, not of a container", s.full("addresses"), prefix)
		default:
			list = append(list, prefix)
		}
	}
	if !s.has("addresses") || s.isEmpty("addresses") {
		s.problem("addresses", fmt.Sprintf("%s is missing: addresses = [\"10.0.0.10/24\"]", s.full("addresses")))
	}
	return list
}

func readGateway(s section, text string, addresses []netip.Prefix) netip.Addr {
	gateway, err := netip.ParseAddr(text)
	if err != nil {
		s.problem("gateway", fmt.Sprintf("%s is %q: it must be an IP address", s.full("gateway"), text))
		return netip.Addr{}
	}
	for _, prefix := range addresses {
		if prefix.Contains(gateway) || gateway.IsLinkLocalUnicast() {
			return gateway
		}
	}
	if len(addresses) > 0 {
		s.problem("gateway", fmt.Sprintf("%s is %s, which none of the addresses reaches", s.full("gateway"), gateway))
	}
	return gateway
}

// The kinds of probe.
var probeKinds = []string{"tcp", "http", "opennebula", "raftstatus", "exec"}

func readProbe(s section) core.ProbeSpec {
	probe := core.ProbeSpec{
		Kind:     s.oneOf("kind", "", append([]string{}, probeKinds...)...),
		Path:     s.str("path", ""),
		Command:  s.strings("command"),
		User:     s.str("user", ""),
		Password: s.str("password", ""),
		Interval: s.duration("interval", defaultProbeInterval),
		Timeout:  s.duration("timeout", defaultProbeTimeout),
		Failures: s.number("failures", defaultProbeFailures, 1, 1000),
	}
	port := 0
	if probe.Kind == "opennebula" || probe.Kind == "raftstatus" {
		port = opennebulaPort
	}
	probe.Port = s.number("port", port, 1, 65535)
	switch {
	case probe.Kind == "exec" && len(probe.Command) == 0:
		s.problem("command", `an exec probe needs its command: command = ["/usr/bin/true"]`)
	case (probe.Kind == "tcp" || probe.Kind == "http") && probe.Port == 0:
		s.problem("port", fmt.Sprintf("a %s probe needs its port", probe.Kind))
	case probe.Kind == "http" && probe.Path == "":
		probe.Path = "/"
	}
	return probe
}

func readRestart(s section) core.RestartSpec {
	restart := DefaultRestart()
	restart.Failures = s.number("failures", restart.Failures, 1, 1000)
	restart.Window = s.duration("window", restart.Window)
	restart.Backoff = s.duration("backoff", restart.Backoff)
	restart.MaxBackoff = s.duration("max_backoff", max(restart.MaxBackoff, restart.Backoff))
	if restart.MaxBackoff < restart.Backoff {
		s.problem("max_backoff", fmt.Sprintf("%s is %s, less than backoff, which is %s",
			s.full("max_backoff"), words(restart.MaxBackoff), words(restart.Backoff)))
	}
	return restart
}
