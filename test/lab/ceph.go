package lab

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// Pool is the RBD pool that the lab makes.
	Pool = "rbd"
	// CephUser is the client whose keyring every node has, with the caps that keepone asks for.
	CephUser = "client.keepone"

	cephFsid = "11111111-2222-3333-4444-555555555555"
	// cephBound is for one call of a Ceph tool while the cluster forms.
	cephBound = 20 * time.Second
)

// ceph is the lab's storage cluster: real mons and OSDs on memstore.
type ceph struct {
	lab    *Lab
	dir    string // in the room; nodes have a copy of what they need
	spread bool
	keys   map[string]string // by entity

	mu      sync.Mutex
	daemons map[string]*cephDaemon // by entity, mon.a or osd.0
}

// cephDaemon is one running mon or OSD. On a node its pid is that of nsenter's child, found by its cgroup.
type cephDaemon struct {
	cmd   *exec.Cmd
	ended chan struct{}
	node  *Node // nil in the room
}

func newCeph(l *Lab) *ceph {
	c := &ceph{
		lab: l, dir: filepath.Join(l.Work, "ceph"), spread: l.opts.CephSpread,
		keys: map[string]string{}, daemons: map[string]*cephDaemon{},
	}
	for _, entity := range append([]string{"mon.", "client.admin", CephUser}, c.osds()...) {
		c.keys[entity] = newCephKey()
	}
	return c
}

// newCephKey is a secret as Ceph writes it: type 1 (AES), creation time, length, 16 bytes.
func newCephKey() string {
	raw := make([]byte, 12, 28)
	binary.LittleEndian.PutUint16(raw[0:], 1)
	binary.LittleEndian.PutUint32(raw[2:], uint32(time.Now().Unix()))
	binary.LittleEndian.PutUint16(raw[10:], 16)
	secret := make([]byte, 16)
	_, _ = rand.Read(secret) // never fails (crypto/rand)
	return base64.StdEncoding.EncodeToString(append(raw, secret...))
}

func (c *ceph) count() int {
	if c.spread {
		return 3
	}
	return 1
}

func (c *ceph) osds() []string {
	names := make([]string, 0, 3)
	for i := range c.count() {
		names = append(names, fmt.Sprintf("osd.%d", i))
	}
	return names
}

// monAddress is where mon i listens, ports 3300 and 6789.
func (c *ceph) monAddress(i int) string {
	if c.spread {
		return LinkAddress(i+1, 0)
	}
	return RoomAddress
}

func monName(i int) string { return string(rune('a' + i)) }

// conf is the cluster's configuration. dir is where the daemons' data is, "" for a client's.
func (c *ceph) conf(dir, keyring string) string {
	hosts := make([]string, 0, 3)
	for i := range c.count() {
		hosts = append(hosts, c.monAddress(i))
	}
	var text strings.Builder
	fmt.Fprintf(&text, `[global]
fsid = %s
mon_host = %s
public_network = 10.77.0.0/24
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
admin_socket =
keyring = %s
%s`, cephFsid, strings.Join(hosts, ","), keyring, c.sessionTuning())
	if dir == "" {
		return text.String()
	}
	size, minSize := 1, 1
	if c.spread {
		size, minSize = 3, 2
	}
	fmt.Fprintf(&text, `run_dir = %[1]s
log_file = %[1]s/$name.log
crash_dir = %[1]s
osd_pool_default_size = %[2]d
osd_pool_default_min_size = %[3]d
osd_pool_default_pg_num = 8
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_allow_pool_delete = true
[mon]
mon_data = %[1]s/mon-$id
mon_cluster_log_file = %[1]s/cluster.log
auth_allow_insecure_global_id_reclaim = false
mon_data_avail_warn = 1
mon_data_avail_crit = 1
%[4]s[osd]
osd_data = %[1]s/osd-$id
osd_objectstore = memstore
memstore_device_bytes = 4294967296
osd_memory_target = 1073741824
osd_class_update_on_start = true
`, dir, size, minSize, c.tuning())
	if c.lab.writers != nil {
		text.WriteString(writersConf)
	}
	if c.spread {
		text.WriteString("osd_heartbeat_interval = 1\nosd_heartbeat_grace = 4\nosd_mon_report_interval = 1\n")
	}
	return text.String()
}

func (c *ceph) tuning() string {
	var t string
	if !c.lab.opts.DefaultPaxos {
		t = "paxos_propose_interval = 0.05\npaxos_min_wait = 0.02\n"
	}
	if c.spread {
		t += "mon_lease = 1\nmon_election_timeout = 1\nmon_tick_interval = 1\n" +
			"mon_osd_min_down_reporters = 1\nmon_osd_adjust_heartbeat_grace = false\nosd_heartbeat_grace = 4\n"
	}
	return t
}

// sessionTuning is for every client and daemon: by default a session with a mon that lost its power is given up
// after 30 s only, which hides how fast everything else is.
func (c *ceph) sessionTuning() string {
	if !c.spread {
		return ""
	}
	return "mon_client_ping_interval = 1\nmon_client_ping_timeout = 3\n"
}

// CephWords says in words how the mons and OSDs are set, for whoever reads a measurement.
func (l *Lab) CephWords() string {
	if l.ceph == nil {
		return "no Ceph"
	}
	words := "one mon and one OSD (memstore, size 1)"
	if l.opts.CephSpread {
		words = "a mon and an OSD in each of three nodes (memstore, size 3, min_size 2; mon_lease 1 s, " +
			"mon_election_timeout 1 s, mon_tick_interval 1 s, osd_heartbeat_interval 1 s, osd_heartbeat_grace 4 s, " +
			"osd_mon_report_interval 1 s, one reporter marks an OSD down; for clients too mon_client_ping_interval 1 s, " +
			"mon_client_ping_timeout 3 s)"
	}
	if l.opts.DefaultPaxos {
		return words + ", default paxos timing"
	}
	return words + ", paxos_propose_interval 0.05 s, paxos_min_wait 0.02 s"
}

func (c *ceph) keyring(entities ...string) string {
	caps := map[string]string{
		"mon.":         "\tcaps mon = \"allow *\"\n",
		"client.admin": "\tcaps mon = \"allow *\"\n\tcaps osd = \"allow *\"\n\tcaps mgr = \"allow *\"\n",
		CephUser:       "\tcaps mon = \"profile rbd\"\n\tcaps osd = \"profile rbd\"\n",
	}
	var text strings.Builder
	for _, e := range entities {
		cap, known := caps[e]
		if !known {
			cap = "\tcaps mon = \"allow profile osd\"\n\tcaps osd = \"allow *\"\n\tcaps mgr = \"allow profile osd\"\n"
		}
		fmt.Fprintf(&text, "[%s]\n\tkey = %s\n%s", e, c.keys[e], cap)
	}
	return text.String()
}

// ClientConf and ClientKeyring are where every node finds its access to Ceph.
const (
	ClientConf    = "/etc/ceph/ceph.conf"
	ClientKeyring = "/etc/ceph/ceph." + CephUser + ".keyring"
)

func (c *ceph) writeClientFiles() error {
	for _, n := range c.lab.nodes {
		err := errors.Join(
			writeFile(n.Path(ClientConf), c.conf("", "/etc/ceph/ceph.$name.keyring"), 0o644),
			writeFile(n.Path(ClientKeyring), c.keyring(CephUser), 0o600),
		)
		if err != nil {
			return fmt.Errorf("write Ceph client files: %w", err)
		}
	}
	keyring := filepath.Join(c.dir, "keyring")
	all := append([]string{"mon.", "client.admin", CephUser}, c.osds()...)
	err := errors.Join(
		writeFile(keyring, c.keyring(all...), 0o600),
		writeFile(filepath.Join(c.dir, "ceph.conf"), c.conf(c.dir, keyring), 0o600),
	)
	if err != nil {
		return fmt.Errorf("write Ceph files: %w", err)
	}
	return nil
}

// SetCaps gives a Ceph user of the nodes other caps, as a keyring of an older setup has them.
func (l *Lab) SetCaps(ctx context.Context, user string, caps ...string) error {
	_, err := l.Ceph(ctx, append([]string{"auth", "caps", user}, caps...)...)
	return err
}

// admin runs a tool in the room as client.admin.
func (c *ceph) admin(ctx context.Context, stdin string, argv ...string) (string, error) {
	argv = append([]string{argv[0], "-c", filepath.Join(c.dir, "ceph.conf")}, argv[1:]...)
	return runWith(ctx, cephBound, strings.NewReader(stdin), argv...)
}

// Ceph runs `ceph ARGS` as administrator in the room; it takes most of a second.
func (l *Lab) Ceph(ctx context.Context, args ...string) (string, error) {
	return l.ceph.admin(ctx, "", append([]string{"ceph", "--connect-timeout", "10"}, args...)...)
}

// RBD runs `rbd ARGS` as administrator in the room.
func (l *Lab) RBD(ctx context.Context, args ...string) (string, error) {
	return l.ceph.admin(ctx, "", append([]string{"rbd"}, args...)...)
}

// CreateImage makes an image in Pool with the features that keepone wants (layering, exclusive-lock).
func (l *Lab) CreateImage(ctx context.Context, name string, megabytes int) error {
	_, err := l.RBD(ctx, "create", Pool+"/"+name, "--size", fmt.Sprintf("%dM", megabytes),
		"--image-feature", "layering,exclusive-lock")
	if err != nil {
		return fmt.Errorf("create image %s: %w", name, err)
	}
	return nil
}

// close ends the daemons in the room; those in nodes went with them.
func (c *ceph) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for name, d := range c.daemons {
		_ = d.cmd.Process.Signal(syscall.SIGKILL)
		select {
		case <-d.ended:
		case <-time.After(killGrace):
			errs = append(errs, fmt.Errorf("end %s: it is not gone", name))
		}
	}
	return errors.Join(errs...)
}

// logOf opens a file for what a daemon says before its own log is open; its own log itself if the lab reads along.
func (c *ceph) logOf(name string, watched bool) (*os.File, error) {
	end := ".out"
	if watched {
		end = ".log"
	}
	return os.OpenFile(filepath.Join(c.dir, name+end), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}
