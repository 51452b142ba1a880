//go:build lab

package guard

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/release"
)

// The lab tests run the real program against a real cgroup. They need root and cgroup v2.

type labGuard struct {
	t      *testing.T
	runDir string
	cmd    *exec.Cmd
	held   *exec.Cmd // the process of the service
	naming atomic.Bool
	ready  chan struct{}
}

const labLease = time.Second

func newLabGuard(t *testing.T) *labGuard {
	if os.Geteuid() != 0 {
		t.Fatal("the lab tests of pkg/guard need root")
	}
	runDir, err := os.MkdirTemp("/dev/shm", "keepone-guard-") // tmpfs, as /run is
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(runDir) })
	l := &labGuard{t: t, runDir: runDir, ready: make(chan struct{}, 1)}
	conf := Conf{Cluster: "c", Node: "n0", Heartbeat: 200 * time.Millisecond, Lease: labLease}
	for link := range 2 {
		conf.Links = append(conf.Links, labAddr(t, link))
	}
	for node := range 5 {
		peer := Peer{Node: core.NodeName("n" + strconv.Itoa(node)), Key: Key{byte(node)}}
		for link := range 2 {
			peer.Links = append(peer.Links, labAddr(t, link))
		}
		l.daemon(conf, peer)
		conf.Peers = append(conf.Peers, peer)
	}
	if err := WriteConf(l.runDir, conf); err != nil {
		t.Fatal(err)
	}
	l.start(filepath.Join(buildGuard(t), "keepone-guard"))
	return l
}

// labAddr is a free port of a link: 127.0.0.1 is the first, 127.0.0.2 the second.
func labAddr(t *testing.T, link int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, byte(link + 1)}), freePort(t).Port())
}

func buildGuard(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("go", "build", "-trimpath", "-o", dir, "github.com/keepone-ha/keepone/cmd/keepone-guard")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build guard: %v: %s", err, out)
	}
	return dir
}

// daemon is one node's end; the first node's leads and acks.
func (l *labGuard) daemon(conf Conf, peer Peer) {
	var r *Receiver
	var err error
	made := make(chan struct{})
	r, err = NewReceiver(ReceiverConf{
		Cluster: "c", Node: peer.Node, Links: peer.Links, Log: slog.New(slog.DiscardHandler),
		Peers: []Peer{{Node: "n0", Key: peer.Key, Links: conf.Links}},
		Deliver: func(a Arrival) {
			<-made
			if peer.Node != "n0" || !l.naming.Load() {
				return
			}
			h := a.Heartbeat
			_ = r.SendAck(a.Link, "n0", Ack{
				Instance: h.Instance, Seq: h.Seq, Sent: h.Sent, Term: 1, Lease: labLease, Grants: []Right{{"one", 1}},
			})
			if len(h.Services) > 0 {
				select {
				case l.ready <- struct{}{}:
				default:
				}
			}
		},
	})
	if err != nil {
		l.t.Fatal(err)
	}
	close(made)
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { _ = r.Run(ctx) })
	l.t.Cleanup(func() { cancel(); work.Wait() })
}

func (l *labGuard) start(program string) {
	l.cmd = exec.Command(program, "--run-dir", l.runDir)
	l.cmd.Stderr = os.Stderr
	if err := l.cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = l.cmd.Process.Kill(); _ = l.cmd.Wait() })
}

// run puts a process into a cgroup with a record of it, and waits until the guard names it.
func (l *labGuard) run() {
	l.t.Helper()
	root := "/sys/fs/cgroup"
	var st unix.Statfs_t
	if unix.Statfs(root, &st) != nil || st.Type != unix.CGROUP2_SUPER_MAGIC {
		root = "/sys/fs/cgroup/unified"
	}
	group := filepath.Join(root, fmt.Sprintf("keepone-guard-%d", os.Getpid()))
	if err := os.MkdirAll(group, 0o755); err != nil {
		l.t.Fatal(err)
	}
	dir, err := os.Open(group)
	if err != nil {
		l.t.Fatal(err)
	}
	defer func() { _ = dir.Close() }()
	l.held = exec.Command("sleep", "600")
	l.held.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	l.naming.Store(true)
	l.leased()
	if err := l.held.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = l.held.Process.Kill(); _ = l.held.Wait(); _ = os.Remove(group) })
	r := release.Record{Service: "one", Epoch: 1, Attempt: 1, Cgroups: release.Cgroups{Run: group}}
	if err := r.Save(l.runDir); err != nil {
		l.t.Fatal(err)
	}
	select {
	case <-l.ready:
	case <-time.After(patience):
		l.t.Fatal("the guard does not name the service")
	}
}

// leased waits until the guard has a lease for the service, as an activation does.
func (l *labGuard) leased() {
	l.t.Helper()
	for limit := time.Now().Add(patience); time.Now().Before(limit); {
		client, err := Dial(l.runDir)
		if err != nil {
			continue
		}
		_, ok, err := client.Lease(l.t.Context(), "one", 1)
		_ = client.Close()
		if err == nil && ok {
			return
		}
	}
	l.t.Fatal("no lease is given")
}

// dies waits for the service's process and returns how long it took.
func (l *labGuard) dies(limit time.Duration) time.Duration {
	l.t.Helper()
	p, err := release.ProcessOf(l.held.Process.Pid)
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(l.t.Context(), limit)
	defer cancel()
	started := time.Now()
	if err := p.Wait(ctx); err != nil {
		l.t.Fatalf("the service runs on after its lease: %v", err)
	}
	return time.Since(started)
}

func (l *labGuard) alive() bool {
	p, err := release.ProcessOf(l.held.Process.Pid)
	if err != nil {
		return false
	}
	alive, _ := p.Alive()
	return alive
}

// I5: no ack any more, and the service is dead one lease later.
func TestLabLeaseEnds(t *testing.T) {
	l := newLabGuard(t)
	l.run()
	l.naming.Store(false)
	took := l.dies(labLease + 2*time.Second)
	t.Logf("dead %v after the last ack", took)
}

// I5: a guard that was stopped beyond the lease contains first of all when it wakes, acks waiting or not.
func TestLabStoppedGuardWakes(t *testing.T) {
	l := newLabGuard(t)
	l.run()
	if err := unix.Kill(l.cmd.Process.Pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	<-time.After(labLease + labLease/2) // the lease ends in real time: CLOCK_BOOTTIME can't be faked for a process
	if !l.alive() {
		t.Fatal("somebody else contained it")
	}
	if err := unix.Kill(l.cmd.Process.Pid, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	t.Logf("dead %v after the wake", l.dies(time.Second))
}

// I5: a guard that was killed and started again knows the deadline that was.
func TestLabKilledGuardIsReplaced(t *testing.T) {
	l := newLabGuard(t)
	l.run()
	program := l.cmd.Path
	if err := l.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = l.cmd.Wait()
	l.naming.Store(false)
	l.start(program)
	t.Logf("dead %v after the guard was killed", l.dies(labLease+time.Second))
}

// The guard of a node among five, on two links, stays within its share.
func TestLabFootprint(t *testing.T) {
	l := newLabGuard(t)
	l.run()
	before := cpuTime(t, l.cmd.Process.Pid)
	const watched = 10 * time.Second
	<-time.After(watched) // a measurement
	share := 100 * float64(cpuTime(t, l.cmd.Process.Pid)-before) / float64(watched)
	rss := statusLine(t, l.cmd.Process.Pid, "VmRSS:")
	t.Logf("RSS %d kB, CPU %.2f %% of a core", rss, share)
	if rss > 8<<10 {
		t.Errorf("RSS %d kB is above 8 MB", rss)
	}
	if !l.alive() {
		t.Error("contained under a live lease")
	}
}

// cpuTime of all threads, as the scheduler counts it: ticks are too coarse for so little.
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(files) == 0 {
		t.Fatalf("no schedstat: %v", err)
	}
	var sum time.Duration
	for _, file := range files {
		text, _ := os.ReadFile(file)
		field, _, _ := strings.Cut(string(text), " ")
		nanos, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += time.Duration(nanos)
	}
	return sum
}

func statusLine(t *testing.T, pid int, key string) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == key {
			n, _ := strconv.Atoi(f[1])
			return n
		}
	}
	t.Fatalf("no %s in status", key)
	return 0
}
