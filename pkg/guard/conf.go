package guard

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

const confName = "guard.conf"

// Conf is guard.conf: the guard's whole knowledge, written by the daemon.
type Conf struct {
	Cluster   string
	Node      core.NodeName
	Heartbeat time.Duration    // between two heartbeats
	Lease     time.Duration    // until an ack says otherwise: grace of a record that never had a lease
	Links     []netip.AddrPort // own addresses to send from, one for each link
	Peers     []Peer           // every node, this one included
	Watchdog  WatchdogConf
}

// Peer is one node as seen from this one.
type Peer struct {
	Node  core.NodeName
	Key   Key
	Links []netip.AddrPort // in the order of the own links: of its daemon in guard.conf, of its guard for a Receiver
}

// ErrConf says that guard.conf is not what a daemon writes.
var ErrConf = errors.New("guard.conf is damaged")

// WriteConf replaces guard.conf in the run directory as one, 0600. The guard takes it up with its next heartbeat.
func WriteConf(runDir string, c Conf) error {
	text := c.Marshal()
	if _, err := ParseConf(text); err != nil {
		return fmt.Errorf("write guard.conf: %w", err)
	}
	if err := replaceFile(filepath.Join(runDir, confName), text); err != nil {
		return fmt.Errorf("write guard.conf: %w", err)
	}
	return nil
}

// Marshal writes one "key value" a line; the last line is "end", so that half a file is seen to be one.
func (c Conf) Marshal() []byte {
	var b []byte
	b = fmt.Appendf(b, "keepone-guard 1\ncluster %s\nnode %s\nheartbeat %d\nlease %d\n", c.Cluster, c.Node, c.Heartbeat, c.Lease)
	for _, link := range c.Links {
		b = fmt.Appendf(b, "link %s\n", link)
	}
	for _, p := range c.Peers {
		b = fmt.Appendf(b, "peer %s %s", p.Node, hex.EncodeToString(p.Key[:]))
		for _, link := range p.Links {
			b = fmt.Appendf(b, " %s", link)
		}
		b = append(b, '\n')
	}
	if c.Watchdog.Device != "" { // an older guard refuses a key that it does not know
		b = fmt.Appendf(b, "watchdog %s %d\n", c.Watchdog.Device, c.Watchdog.Timeout)
	}
	return append(b, "end\n"...)
}

// ParseConf reads what Marshal wrote.
func ParseConf(text []byte) (Conf, error) {
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	if lines[0] != "keepone-guard 1" || lines[len(lines)-1] != "end" || len(lines) < 2 {
		return Conf{}, fmt.Errorf("%w: no whole file of version 1", ErrConf)
	}
	var c Conf
	for i, line := range lines[1 : len(lines)-1] {
		if err := c.parseLine(strings.Split(line, " ")); err != nil {
			return Conf{}, fmt.Errorf("%w: line %d: %w", ErrConf, i+2, err)
		}
	}
	switch {
	case c.Cluster == "" || c.Node == "" || len(c.Links) == 0:
		return Conf{}, fmt.Errorf("%w: cluster, node or link is missing", ErrConf)
	case c.Heartbeat <= 0 || c.Lease < c.Heartbeat:
		return Conf{}, fmt.Errorf("%w: heartbeat %v and lease %v do not fit", ErrConf, c.Heartbeat, c.Lease)
	}
	return c, nil
}

func (c *Conf) parseLine(f []string) error {
	if len(f) < 2 || f[1] == "" {
		return errors.New("no value")
	}
	var err error
	switch {
	case f[0] == "peer" && len(f) >= 3:
		var p Peer
		p, err = parsePeer(f)
		c.Peers = append(c.Peers, p)
	case f[0] == "watchdog" && len(f) == 3:
		c.Watchdog.Device = f[1]
		c.Watchdog.Timeout, err = parseNanos(f[2])
	case len(f) != 2:
		err = errors.New("too many values")
	case f[0] == "cluster" && len(f[1]) <= maxName:
		c.Cluster = f[1]
	case f[0] == "node" && len(f[1]) <= maxName:
		c.Node = core.NodeName(f[1])
	case f[0] == "heartbeat":
		c.Heartbeat, err = parseNanos(f[1])
	case f[0] == "lease":
		c.Lease, err = parseNanos(f[1])
	case f[0] == "link":
		var link netip.AddrPort
		link, err = netip.ParseAddrPort(f[1])
		c.Links = append(c.Links, link)
	default:
		err = errors.New("unknown key or too long a value")
	}
	return err
}

// maxTiming is more than any timing that pkg/config lets pass, and keeps sums far from overflow.
const maxTiming = uint64(24 * time.Hour)

func parseNanos(s string) (time.Duration, error) {
	var n uint64
	if _, err := fmt.Sscanf(s, "%d", &n); err != nil || n > maxTiming || fmt.Sprint(n) != s {
		return 0, errors.New("no duration in nanoseconds up to a day")
	}
	return time.Duration(n), nil
}

func parsePeer(f []string) (Peer, error) {
	p := Peer{Node: core.NodeName(f[1])}
	key, err := hex.DecodeString(f[2])
	if err != nil || len(key) != len(p.Key) || len(f[1]) > maxName {
		return p, errors.New("no key of 32 bytes in hex, or too long a name")
	}
	copy(p.Key[:], key)
	for _, text := range f[3:] {
		link, err := netip.ParseAddrPort(text)
		if err != nil {
			return p, fmt.Errorf("address of peer: %w", err)
		}
		p.Links = append(p.Links, link)
	}
	return p, nil
}
