//go:build lab

package replica

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/test/faultdisk"
)

func TestMain(m *testing.M) {
	faultdisk.Main()
	os.Exit(m.Run())
}

// promises opens a disk as openDisk does, and keeps what the disk said is on it: entries, term and vote.
type promises struct {
	mu    sync.Mutex
	logs  map[uint64]raft.Log
	said  map[string]string // by key
	asked map[string]string // the newest write of a key, whether it was done or not
}

func newPromises() *promises {
	return &promises{logs: map[uint64]raft.Log{}, said: map[string]string{}, asked: map[string]string{}}
}

func (p *promises) open(dir string) (raft.LogStore, raft.StableStore, raft.SnapshotStore, func() error, error) {
	logs, stable, snaps, closeDisk, err := openDisk(dir)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	return &promisedLogs{logs, p}, &promisedStable{stable, p}, snaps, closeDisk, nil
}

type promisedLogs struct {
	raft.LogStore
	p *promises
}

func (s *promisedLogs) StoreLogs(l []*raft.Log) error {
	err := s.LogStore.StoreLogs(l)
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	for _, e := range l {
		if err == nil {
			s.p.logs[e.Index] = raft.Log{Index: e.Index, Term: e.Term, Type: e.Type, Data: bytes.Clone(e.Data)}
		}
	}
	return err
}

func (s *promisedLogs) DeleteRange(lo, hi uint64) error {
	s.p.mu.Lock()
	for i := lo; i <= hi; i++ {
		delete(s.p.logs, i) // begun is enough
	}
	s.p.mu.Unlock()
	return s.LogStore.DeleteRange(lo, hi)
}

type promisedStable struct {
	raft.StableStore
	p *promises
}

func (s *promisedStable) note(key []byte, value string, write func() error) error {
	s.p.mu.Lock()
	s.p.asked[string(key)] = value
	s.p.mu.Unlock()
	err := write()
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	if err == nil {
		s.p.said[string(key)] = value
	}
	return err
}

func (s *promisedStable) Set(key, value []byte) error {
	return s.note(key, string(value), func() error { return s.StableStore.Set(key, value) })
}

func (s *promisedStable) SetUint64(key []byte, value uint64) error {
	return s.note(key, fmt.Sprint(value), func() error { return s.StableStore.SetUint64(key, value) })
}

// keptBy is an error unless the disk in dir has all that was promised.
func (p *promises) keptBy(dir string) error {
	logs, stable, _, closeDisk, err := openDisk(filepath.Join(dir, "raft"))
	if err != nil {
		return err
	}
	errs := []error{nil}
	for i, want := range p.logs {
		var got raft.Log
		if err := logs.GetLog(i, &got); err != nil || got.Term != want.Term || got.Type != want.Type || !bytes.Equal(got.Data, want.Data) {
			errs = append(errs, fmt.Errorf("entry %d of term %d was stored and is not there: %v of term %d", i, want.Term, err, got.Term))
		}
	}
	for key, want := range p.said {
		var got string
		if strings.HasSuffix(key, "Cand") {
			value, err := stable.Get([]byte(key))
			errs, got = append(errs, err), string(value)
		} else {
			value, err := stable.GetUint64([]byte(key))
			errs, got = append(errs, err), fmt.Sprint(value)
		}
		if got != want && got != p.asked[key] {
			errs = append(errs, fmt.Errorf("%s was stored as %q and is %q", key, want, got))
		}
	}
	return errors.Join(append(errs, closeDisk())...)
}

// onFaultDisk has a node begin anew on a disk that can fail.
func (c *cluster) onFaultDisk(t *testing.T, name core.NodeName, below string, p *promises) *faultdisk.Disk {
	t.Helper()
	c.kill(name)
	c.ids[name] = anew(c, name, "faultdisk-"+filepath.Base(filepath.Dir(below)))
	d := faultdisk.New(t, below)
	m := c.start(name, d.Dir, p)
	if err := c.leader().AddVoter(t.Context(), name, m.opts.Incarnation); err != nil {
		t.Fatal(err)
	}
	return d
}

// crash forgets a node whose machine is gone: how it ends says nothing.
func (c *cluster) crash(name core.NodeName) {
	m := c.nodes[name]
	delete(c.nodes, name)
	_ = errors.Join(m.Stop(), m.node.Close(), m.mux.Close())
}

// busy commits marks from first on, with every node as leader in turn, until stop says so. It returns those that were
// acknowledged.
func (c *cluster) busy(t *testing.T, first, most int, stop func() bool) map[int]bool {
	t.Helper()
	acked := map[int]bool{}
	for i := first; i < first+most && !stop(); i++ {
		synctest.Wait() // a question that meets a Raft about to fail is never answered, and outlives the bubble
		for _, m := range c.nodes {
			if !m.Leads() || m.VerifyQuorum(t.Context()) != nil {
				continue
			}
			if outcome, _ := m.Propose(t.Context(), mark(i)); outcome == core.Done {
				acked[i] = true
			}
			if i%3 == 2 {
				_ = m.TransferLeadership(t.Context(), names[(i/3)%3]) // may fail: then another leads, or this one on
			}
			break
		}
		time.Sleep(300 * time.Millisecond)
	}
	return acked
}

// has commits one more, and is an error if a mark that was acknowledged is not in a node's State then.
func (c *cluster) has(t *testing.T, m *member, acked map[int]bool) error {
	t.Helper()
	mustPropose(t, c.leader(), 999)
	for range 100 {
		if marked(m.State(), 999) {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	for i := range acked {
		if !marked(m.State(), i) {
			return fmt.Errorf("mark %d was acknowledged and is gone on %s", i, m.opts.Self)
		}
	}
	return nil
}

// A node loses its power between any two writes, also while it writes a snapshot: its log opens again with all that it ever
// promised, and what the cluster acknowledged is there, also when that node leads.
func TestPowerCut(t *testing.T) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			below := t.TempDir()
			run(t, 3, func(t *testing.T, c *cluster) {
				r, p := rand.New(rand.NewPCG(seed, 1)), newPromises()
				d := c.onFaultDisk(t, "b", below, p)
				after := 1 + r.IntN(12)
				acked := c.busy(t, 0, after, func() bool { return false })
				b := c.nodes["b"]
				if r.IntN(2) == 0 {
					go b.raft.Snapshot()
				}
				go func() { _, _ = b.Propose(t.Context(), mark(500)) }()
				d.Cut(seed)
				c.crash("b")
				d.Close()
				for i := range c.busy(t, 100, 3, func() bool { return false }) {
					acked[i] = true
				}
				again := faultdisk.New(t, below)
				if err := p.keptBy(again.Dir); err != nil {
					t.Fatal(err)
				}
				b = c.start("b", again.Dir, nil)
				time.Sleep(2 * time.Second)
				if err := c.leader().TransferLeadership(t.Context(), "b"); err != nil {
					t.Fatal(err)
				}
				if err := c.has(t, b, acked); err != nil {
					t.Error(err)
				}
				c.kill("b")
				again.Close()
			})
		})
	}
}

// Every node loses its power at once: what was acknowledged is there when they are back, and nothing else is missing to go on.
func TestPowerCutOfAll(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			below := map[core.NodeName]string{"a": t.TempDir(), "b": t.TempDir(), "c": t.TempDir()}
			run(t, 3, func(t *testing.T, c *cluster) {
				disks, promised := map[core.NodeName]*faultdisk.Disk{}, map[core.NodeName]*promises{}
				for name, dir := range below {
					promised[name] = newPromises()
					disks[name] = c.onFaultDisk(t, name, dir, promised[name])
				}
				acked := c.busy(t, 0, 5+int(seed), func() bool { return false })
				if len(acked) == 0 {
					t.Fatal("nothing was acknowledged")
				}
				for name := range below {
					disks[name].Cut(seed)
				}
				for name, dir := range below {
					c.crash(name)
					disks[name].Close()
					disks[name] = faultdisk.New(t, dir)
					if err := promised[name].keptBy(disks[name].Dir); err != nil {
						t.Fatalf("%s: %v", name, err)
					}
				}
				for name := range below {
					c.start(name, disks[name].Dir, nil)
				}
				if err := c.has(t, c.leader(), acked); err != nil {
					t.Error(err)
				}
				for name := range below {
					c.kill(name)
					disks[name].Close()
				}
			})
		})
	}
}

// A disk is full, or fails in a write or an fsync, at any of a node's writes: the node says so once and takes no part any more, the
// others go on; and what it promised before is there when the disk is well again after a power cut.
func TestFailingFiles(t *testing.T) {
	for _, f := range []struct {
		operation string
		errno     unix.Errno
	}{{"write", unix.ENOSPC}, {"write", unix.EIO}, {"sync", unix.EIO}} {
		for _, after := range []int{0, 1, 2, 5, 9, 14, 20} {
			t.Run(fmt.Sprintf("%s-%s-%d", f.operation, unix.ErrnoName(f.errno), after), func(t *testing.T) {
				below := t.TempDir()
				run(t, 3, func(t *testing.T, c *cluster) {
					p := newPromises()
					d := c.onFaultDisk(t, "b", below, p)
					b := c.nodes["b"]
					d.Fail(f.operation, f.errno, after)
					var fatal error
					acked := c.busy(t, 0, 60, func() bool {
						select {
						case fatal = <-b.Fatal():
						default:
						}
						return fatal != nil
					})
					// Bolt tells some errors by their words alone.
					if !errors.Is(fatal, ErrDisk) || !strings.Contains(fatal.Error(), f.errno.Error()) || strings.Contains(fatal.Error(), "\n") {
						t.Errorf("fatal is %v", fatal)
					}
					time.Sleep(3 * time.Second)
					if b.Leads() {
						t.Error("it still leads")
					}
					d.Cut(uint64(after))
					c.crash("b")
					d.Close()
					again := faultdisk.New(t, below)
					if err := p.keptBy(again.Dir); err != nil {
						t.Fatal(err)
					}
					b = c.start("b", again.Dir, nil)
					if err := c.has(t, b, acked); err != nil {
						t.Error(err)
					}
					c.kill("b")
					again.Close()
				})
			})
		}
	}
}

// A log that can't be opened, or is damaged, is told in one line that is ErrDisk's, and nothing panics; one that does open has all
// that was acknowledged.
func TestOpenOnABadDisk(t *testing.T) {
	const pages = 4096
	for name, row := range map[string]struct {
		operation string
		errno     unix.Errno
		after     int
		damage    func(log []byte) []byte
	}{
		"full":               {operation: "write", errno: unix.ENOSPC},
		"no fsync":           {operation: "sync", errno: unix.EIO},
		"unreadable":         {operation: "read", errno: unix.EIO},
		"unreadable further": {operation: "read", errno: unix.EIO, after: 1},
		"unreadable behind":  {operation: "read", errno: unix.EIO, after: 3},
		"empty":              {damage: func([]byte) []byte { return nil }},
		"no log at all":      {damage: func(log []byte) []byte { return bytes.Repeat([]byte("x"), len(log)) }},
		"one page":           {damage: func(log []byte) []byte { return log[:pages] }},
		"cut short":          {damage: func(log []byte) []byte { return log[:3*pages] }},
		"zeros behind meta":  {damage: func(log []byte) []byte { return append(log[:2*pages:2*pages], make([]byte, len(log)-2*pages)...) }},
		"rubbish behind meta": {damage: func(log []byte) []byte {
			return append(log[:2*pages:2*pages], bytes.Repeat([]byte("x"), len(log)-2*pages)...)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			below := t.TempDir()
			run(t, 1, func(t *testing.T, c *cluster) {
				for i := range 20 {
					mustPropose(t, c.leader(), i)
				}
				old := c.kill("a")
				if err := os.CopyFS(below, os.DirFS(old.dir)); err != nil {
					t.Fatal(err)
				}
				if path := filepath.Join(below, "raft", "raft.db"); row.damage != nil {
					log, err := os.ReadFile(path)
					if err == nil {
						err = os.WriteFile(path, row.damage(log), 0o600)
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				d := faultdisk.New(t, below)
				defer d.Close()
				defer func() {
					if c.nodes["a"] != nil {
						c.crash("a") // what is open on the disk would keep its server from ending
					}
				}()
				if row.operation != "" {
					d.Fail(row.operation, row.errno, row.after)
				}
				m, err := c.tryStart("a", d.Dir, nil)
				if err == nil {
					select {
					case err = <-m.Fatal():
					case <-time.After(5 * time.Second):
					}
					if err == nil && !(name == "empty" && m.Empty()) { // as on a new disk, it waits for a cluster
						if lost := c.has(t, m, map[int]bool{0: true, 19: true}); lost != nil {
							t.Error(lost)
						}
					}
				}
				t.Logf("%v", err)
				if err != nil && (!errors.Is(err, ErrDisk) || strings.Contains(err.Error(), "\n")) {
					t.Errorf("not one line of ErrDisk: %v", err)
				}
			})
		})
	}
}
