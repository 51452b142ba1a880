//go:build lab

// Package cephtest brings up a real Ceph for tests: one mon and one OSD on memstore, on loopback, with mons tuned
// as for a small cluster.
package cephtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepone-ha/keepone/pkg/drive"
	"github.com/keepone-ha/keepone/pkg/worker"
)

// Pool is the pool that the cluster has.
const Pool = "rbd"

// Cluster is a running Ceph.
type Cluster struct {
	Dir string
	FS  string // fsid
}

const fsid = "5f1d1c1e-0a6b-4f5c-9a53-1d6e6b3f0c11"

var conf = template.Must(template.New("ceph.conf").Parse(`[global]
fsid = {{.FSID}}
mon_host = [v2:127.0.0.1:{{.Port}}/0,v1:127.0.0.1:{{.PortV1}}/0]
public_network = 127.0.0.0/8
keyring = {{.Dir}}/keyring
run_dir = {{.Dir}}
admin_socket = {{.Dir}}/$name.asok
log_file = {{.Dir}}/$name.log
pid_file = {{.Dir}}/$name.pid
crash_dir = {{.Dir}}
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pg_autoscale_mode = off
mon_allow_pool_size_one = true
osd_crush_chooseleaf_type = 0
[mon]
paxos_propose_interval = 0.05
paxos_min_wait = 0.02
mon_data = {{.Dir}}/mon
mon_cluster_log_file = {{.Dir}}/cluster.log
auth_allow_insecure_global_id_reclaim = false
mon_data_avail_warn = 1
mon_data_avail_crit = 1
[osd]
osd_data = {{.Dir}}/osd
osd_objectstore = memstore
memstore_device_bytes = 2147483648
osd_max_object_name_len = 256
[client]
log_file =
admin_socket =
`))

// Start brings a cluster up in dir, within a minute.
func Start(dir string) (*Cluster, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := &Cluster{Dir: dir, FS: fsid}
	if err := c.prepare(); err != nil {
		return nil, err
	}
	addrs, err := c.writeConf()
	if err != nil {
		return nil, err
	}
	f := func(name string) string { return filepath.Join(dir, name) }
	for _, argv := range [][]string{
		{"ceph-authtool", "--create-keyring", f("keyring"), "--gen-key", "-n", "mon.", "--cap", "mon", "allow *"},
		{"ceph-authtool", f("keyring"), "--gen-key", "-n", "client.admin", "--cap", "mon", "allow *", "--cap", "osd", "allow *"},
		{"ceph-authtool", f("keyring"), "--gen-key", "-n", "osd.0", "--cap", "mon", "allow profile osd", "--cap", "osd", "allow *"},
		{"ceph-authtool", f("keyring"), "--gen-key", "-n", "client.ha", "--cap", "mon", "profile rbd", "--cap", "osd", "profile rbd"},
		{
			"ceph-authtool", f("keyring"), "--gen-key", "-n", "client.mender",
			"--cap", "mon", `profile rbd, allow command "osd blocklist" with blocklistop=rm`, "--cap", "osd", "profile rbd",
		},
		{"ceph-authtool", f("keyring"), "--gen-key", "-n", "client.weak", "--cap", "mon", "allow r", "--cap", "osd", "profile rbd"},
		{"monmaptool", "--create", "--fsid", fsid, "--addv", "a", addrs, f("monmap")},
		{"ceph-mon", "-c", f("ceph.conf"), "--mkfs", "-i", "a", "--monmap", f("monmap"), "--keyring", f("keyring")},
		{"ceph-mon", "-c", f("ceph.conf"), "-i", "a"},
		{"ceph", "-c", f("ceph.conf"), "--connect-timeout", "20", "osd", "new", "33333333-2222-3333-4444-555555555555"},
		{"ceph", "-c", f("ceph.conf"), "auth", "import", "-i", f("keyring")},
		{"ceph-osd", "-c", f("ceph.conf"), "-i", "0", "--mkfs", "--osd-uuid", "33333333-2222-3333-4444-555555555555"},
		{"ceph-osd", "-c", f("ceph.conf"), "-i", "0"},
		{"ceph", "-c", f("ceph.conf"), "osd", "pool", "create", Pool, "8", "8"},
		{"rbd", "-c", f("ceph.conf"), "pool", "init", Pool},
	} {
		if _, err := drive.Run(ctx, argv...); err != nil {
			return nil, errors.Join(fmt.Errorf("start ceph: %w", err), c.Stop())
		}
	}
	return c, nil
}

func (c *Cluster) prepare() error {
	for _, d := range []string{"mon", "osd"} {
		if err := os.MkdirAll(filepath.Join(c.Dir, d), 0o755); err != nil {
			return fmt.Errorf("make ceph directory: %w", err)
		}
	}
	return nil
}

func (c *Cluster) writeConf() (addrs string, err error) {
	v2, err := freePort()
	if err != nil {
		return "", err
	}
	v1, err := freePort()
	if err != nil {
		return "", err
	}
	out, err := os.Create(filepath.Join(c.Dir, "ceph.conf"))
	if err != nil {
		return "", fmt.Errorf("make ceph.conf: %w", err)
	}
	err = conf.Execute(out, map[string]any{"FSID": fsid, "Port": v2, "PortV1": v1, "Dir": c.Dir})
	if err = errors.Join(err, out.Close()); err != nil {
		return "", fmt.Errorf("write ceph.conf: %w", err)
	}
	return fmt.Sprintf("[v2:127.0.0.1:%d/0,v1:127.0.0.1:%d/0]", v2, v1), nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// Client says how client.USER reaches the cluster: admin, ha (as keepone should have it), weak (may not blocklist).
func (c *Cluster) Client(user string) worker.Ceph {
	return worker.Ceph{Conf: filepath.Join(c.Dir, "ceph.conf"), Keyring: filepath.Join(c.Dir, "keyring"), User: user}
}

// Run runs one of Ceph's tools as admin.
func (c *Cluster) Run(ctx context.Context, tool string, args ...string) ([]byte, error) {
	return drive.Run(ctx, append([]string{tool, "-c", filepath.Join(c.Dir, "ceph.conf")}, args...)...)
}

// Signal sends sig to mon and OSD.
func (c *Cluster) Signal(sig unix.Signal) error {
	var errs []error
	for _, name := range []string{"osd.0.pid", "mon.a.pid"} {
		text, err := os.ReadFile(filepath.Join(c.Dir, name))
		if err != nil {
			continue // not started
		}
		if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && pid > 1 {
			errs = append(errs, unix.Kill(pid, sig))
		}
	}
	return errors.Join(errs...)
}

// Stop kills the cluster and removes its directory.
func (c *Cluster) Stop() error {
	return errors.Join(c.Signal(unix.SIGKILL), os.RemoveAll(c.Dir))
}
