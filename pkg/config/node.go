package config

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

// NodePath is where the node file is unless a flag says otherwise.
const NodePath = "/etc/keepone/node.toml"

// FoundingFile in the data directory makes the daemon's next start found the cluster: `keepone init` leaves the
// document there, sealed.
const FoundingFile = "founding.toml"

// NodeFile is what a node must know before it can know the cluster. It is never replicated.
type NodeFile struct {
	Name       core.NodeName
	Links      []netip.Addr // this node's address on each link, the same order on every node
	Ports      Ports
	DataDir    string // Raft's log, certificates and keys
	RunDir     string // on a tmpfs: it dies with the node
	VolumesDir string // mount points
	CgroupRoot string
	Ceph       Ceph
	Metrics    string // host:port of Prometheus metrics, empty: off
	Watchdog   Watchdog
	Log        slog.Level
}

// Watchdog is the one that this node's guard arms.
type Watchdog struct {
	Device  string // empty: none
	Timeout time.Duration
}

// The bounds of a watchdog's timeout. A guard that is restarted takes a second, a machine that stalls takes more; and a
// heartbeat can say no more than a minute.
const (
	leastWatchdog   = 10 * time.Second
	mostWatchdog    = time.Minute
	defaultWatchdog = 30 * time.Second
)

// watchdogDevice is what the kernel's watchdog core calls its devices: /dev/watchdog alone may be another driver's.
var watchdogDevice = regexp.MustCompile(`^/dev/watchdog[0-9]+$`)

// Ports of a node, the same on each of its addresses.
type Ports struct {
	API       uint16 // TCP: Raft, the node API and join
	Heartbeat uint16 // UDP: the daemon, receives heartbeats
	Guard     uint16 // UDP: the guard, sends heartbeats and receives acknowledgements
}

// Ceph says how this node reaches its Ceph cluster.
type Ceph struct {
	Conf    string
	Keyring string
	User    string // without "client."
}

// DefaultPorts are the ports of a node whose file names none.
func DefaultPorts() Ports { return Ports{API: 7480, Heartbeat: 7481, Guard: 7482} }

// LoadNode reads the node file at path. What is wrong in it comes as a Problems.
func LoadNode(path string) (NodeFile, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return NodeFile{}, fmt.Errorf("read node file: %w; `keepone init` or `keepone join` writes one", err)
	}
	return ParseNode(string(text), path)
}

// ParseNode reads the text of a node file; file is its name in problems.
func ParseNode(text, file string) (NodeFile, error) {
	r := newReader(file, text)
	if err := r.problems.err(); err != nil && r.broken {
		return NodeFile{}, err
	}
	root := r.section()
	node := NodeFile{
		Name:       core.NodeName(root.label("name", 63)),
		Links:      root.addrs("links"),
		Ports:      readPorts(root.sub("ports")),
		DataDir:    root.file("data_dir", "/var/lib/keepone"),
		RunDir:     root.file("run_dir", "/run/keepone"),
		CgroupRoot: root.file("cgroup_root", "/sys/fs/cgroup/keepone"),
	}
	node.VolumesDir = root.file("volumes_dir", filepath.Join(node.DataDir, "volumes"))
	ceph := root.sub("ceph")
	node.Ceph = Ceph{
		Conf:    ceph.file("conf", "/etc/ceph/ceph.conf"),
		Keyring: ceph.file("keyring", "/etc/ceph/ceph.client.keepone.keyring"),
		User:    strings.TrimPrefix(ceph.str("user", "keepone"), "client."),
	}
	node.Metrics = readListen(root.sub("metrics"))
	node.Watchdog = readWatchdog(root.sub("watchdog"))
	node.Log = readLevel(root.sub("log"))
	if len(node.Links) == 0 {
		root.problem("links", "a node needs the address of at least one link: links = [\"10.0.0.1\"]")
	}
	root.unknown()
	return node, r.problems.err()
}

func readPorts(s section) Ports {
	ports := DefaultPorts()
	for _, p := range []struct {
		key  string
		port *uint16
	}{{"api", &ports.API}, {"heartbeat", &ports.Heartbeat}, {"guard", &ports.Guard}} {
		*p.port = uint16(s.number(p.key, int(*p.port), 1, 65535))
	}
	if ports.Heartbeat == ports.Guard {
		s.problem("guard", fmt.Sprintf("heartbeat and guard are both UDP port %d: they need one each", ports.Guard))
	}
	return ports
}

func readListen(s section) string {
	listen := s.str("listen", "")
	if listen == "" {
		return ""
	}
	if _, err := netip.ParseAddrPort(listen); err != nil {
		s.problem("listen", fmt.Sprintf("%q is no address with a port, such as \"10.0.0.1:9480\"", listen))
	}
	return listen
}

func readWatchdog(s section) Watchdog {
	w := Watchdog{Device: s.str("device", ""), Timeout: s.duration("timeout", defaultWatchdog)}
	switch {
	case w.Device == "" && s.has("timeout"):
		s.problem("timeout", fmt.Sprintf(`%s is set and no device: name one, device = "/dev/watchdog0"`, s.full("timeout")))
	case w.Device != "" && !watchdogDevice.MatchString(w.Device):
		s.problem("device", fmt.Sprintf("%s is %q: it must be one with a number, such as \"/dev/watchdog0\"; ls /sys/class/watchdog", s.full("device"), w.Device))
	case w.Timeout < leastWatchdog || w.Timeout > mostWatchdog || w.Timeout%time.Second != 0:
		s.problem("timeout", fmt.Sprintf("%s is %s: it must be whole seconds, from %s to %s", s.full("timeout"), words(w.Timeout), words(leastWatchdog), words(mostWatchdog)))
	}
	if w.Device == "" {
		return Watchdog{}
	}
	return w
}

func readLevel(s section) slog.Level {
	text := s.oneOf("level", "info", "debug", "info", "warn", "error")
	var level slog.Level
	if err := level.UnmarshalText([]byte(text)); err != nil {
		return slog.LevelInfo // oneOf has told it
	}
	return level
}

// Text returns the node file that ParseNode reads back as n, with what a person may want to change.
func (n NodeFile) Text() string {
	links := make([]string, len(n.Links))
	for i, link := range n.Links {
		links[i] = quote(link.String())
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# The node file of keepone: what this node must know before it can know the cluster.\n")
	fmt.Fprintf(&b, "name = %s\n", quote(string(n.Name)))
	fmt.Fprintf(&b, "links = [%s] # one address for each link, the same order on every node\n", strings.Join(links, ", "))
	fmt.Fprintf(&b, "data_dir = %s\nrun_dir = %s\n", quote(n.DataDir), quote(n.RunDir))
	fmt.Fprintf(&b, "volumes_dir = %s\ncgroup_root = %s\n", quote(n.VolumesDir), quote(n.CgroupRoot))
	fmt.Fprintf(&b, "\n[ports]\napi = %d\nheartbeat = %d\nguard = %d\n", n.Ports.API, n.Ports.Heartbeat, n.Ports.Guard)
	fmt.Fprintf(&b, "\n[ceph]\nconf = %s\nkeyring = %s\nuser = %s\n", quote(n.Ceph.Conf), quote(n.Ceph.Keyring), quote(n.Ceph.User))
	if n.Metrics != "" {
		fmt.Fprintf(&b, "\n[metrics]\nlisten = %s\n", quote(n.Metrics))
	}
	if n.Watchdog.Device != "" {
		fmt.Fprintf(&b, "\n[watchdog]\ndevice = %s\ntimeout = %s\n", quote(n.Watchdog.Device), quote(n.Watchdog.Timeout.String()))
	}
	fmt.Fprintf(&b, "\n[log]\nlevel = %s\n", quote(strings.ToLower(n.Log.String())))
	return b.String()
}
