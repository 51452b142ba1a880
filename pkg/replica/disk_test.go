package replica

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"github.com/keepone-ha/keepone/pkg/core"
)

type raftID = raft.ServerID

var faults sync.Mutex // a faultyDisk is used by several goroutines of Raft

func newFaultyDisk(failAt int, err error) *faultyDisk {
	return &faultyDisk{store: raft.NewInmemStore(), snaps: raft.NewInmemSnapshotStore(), failAt: failAt, err: err}
}

func (d *faultyDisk) open(string) (raft.LogStore, raft.StableStore, raft.SnapshotStore, func() error, error) {
	return &faultyLogs{d.store, d}, &faultyStable{d.store, d}, d.snaps, func() error { return nil }, nil
}

// count is called before each write.
func (d *faultyDisk) count(what string) error {
	faults.Lock()
	defer faults.Unlock()
	d.writes++
	if d.broken || (d.failAt > 0 && d.writes >= d.failAt) {
		if !d.broken {
			d.what = what
		}
		d.broken = true
		return d.err
	}
	return nil
}

type faultyLogs struct {
	*raft.InmemStore
	disk *faultyDisk
}

func (s *faultyLogs) StoreLogs(l []*raft.Log) error {
	if err := s.disk.count("logs"); err != nil {
		return err
	}
	return s.InmemStore.StoreLogs(l)
}

func (s *faultyLogs) DeleteRange(lo, hi uint64) error {
	if err := s.disk.count("delete"); err != nil {
		return err
	}
	return s.InmemStore.DeleteRange(lo, hi)
}

type faultyStable struct {
	*raft.InmemStore
	disk *faultyDisk
}

func (s *faultyStable) Set(k, v []byte) error {
	if err := s.disk.count("vote"); err != nil {
		return err
	}
	return s.InmemStore.Set(k, v)
}

func (s *faultyStable) SetUint64(k []byte, v uint64) error {
	if err := s.disk.count("term"); err != nil {
		return err
	}
	return s.InmemStore.SetUint64(k, v)
}

// Each of a node's first writes fails once, of a full disk or in fsync: the node says so and takes no part any
// more, nothing panics, the others go on, and what was committed is still there.
func TestDiskFailsAtEachWrite(t *testing.T) {
	seen := map[string]int{}
	for failAt := 1; failAt <= 20; failAt++ {
		fault := []error{unix.ENOSPC, unix.EIO}[failAt%2]
		t.Run(fmt.Sprint(failAt), func(t *testing.T) {
			run(t, 3, func(t *testing.T, c *cluster) { seen[diskFails(t, c, failAt, fault)]++ })
		})
	}
	t.Logf("writes that failed: %v", seen)
	for _, what := range []string{"logs", "vote", "term"} {
		if seen[what] == 0 {
			t.Errorf("no failed write of %s was tried", what)
		}
	}
}

// diskFails gives b a disk that fails, and makes leaders change until it does.
func diskFails(t *testing.T, c *cluster, failAt int, fault error) string {
	t.Helper()
	c.kill("b")
	c.ids["b"] = anew(c, "b", fmt.Sprintf("disk-%d", failAt))
	bad := newFaultyDisk(failAt, fault)
	b, err := c.tryStart("b", t.TempDir(), bad)
	if err != nil {
		if failAt > 1 || !errors.Is(err, ErrDisk) || !errors.Is(err, fault) {
			t.Fatal(err)
		}
		return bad.what
	}
	if err := c.leader().AddVoter(t.Context(), "b", b.opts.Incarnation); err != nil {
		t.Fatal(err)
	}
	committed := map[int]bool{}
	var fatal error
	for i := 0; i < 60 && fatal == nil; i++ {
		for _, m := range c.nodes {
			synctest.Wait() // a question that meets a Raft about to fail is never answered, and outlives the bubble
			if m.Leads() && m.VerifyQuorum(t.Context()) == nil {
				synctest.Wait()
				if outcome, _ := m.Propose(t.Context(), mark(i)); outcome == core.Done {
					committed[i] = true
				}
				synctest.Wait()
				to := core.NodeName("b")
				if m == b {
					to = "a"
				}
				m.TransferLeadership(t.Context(), to) // may fail: the disk may be dead by now
				break
			}
		}
		select {
		case fatal = <-b.Fatal():
		case <-time.After(500 * time.Millisecond):
		}
	}
	if !errors.Is(fatal, ErrDisk) || !errors.Is(fatal, fault) {
		t.Fatalf("fatal is %v after %d writes", fatal, bad.writes)
	}
	time.Sleep(3 * time.Second) // until the others have elected anew
	if b.Leads() {
		t.Error("it still leads")
	}
	if outcome, _ := b.Propose(t.Context(), mark(98)); outcome == core.Done {
		t.Error("it still commits")
	}
	c.kill("b")
	mustPropose(t, c.leader(), 99)
	for i := range committed {
		if !marked(c.leader().State(), i) {
			t.Errorf("mark %d was acknowledged and is gone", i)
		}
	}
	return bad.what
}

// A snapshot that can't be written ends the node's part, too, at each of its steps.
func TestSnapshotFails(t *testing.T) {
	for step := range 3 {
		run(t, 3, func(t *testing.T, c *cluster) {
			m := c.leader()
			g := &guardedDisk{fail: m.fail, failed: m.failed}
			store := &guardedSnapshots{&fullSnapshots{step: step}, g}
			sink, err := store.Create(raft.SnapshotVersionMax, 1, 1, raft.Configuration{}, 1, m.trans)
			if err == nil {
				err = snapshot{m.State()}.Persist(sink)
			}
			if !errors.Is(err, ErrDisk) || !errors.Is(err, unix.ENOSPC) {
				t.Errorf("step %d: %v", step, err)
			}
			if fatal := <-m.Fatal(); !errors.Is(fatal, ErrDisk) {
				t.Errorf("step %d: fatal is %v", step, fatal)
			}
			c.kill(m.opts.Self)
			mustPropose(t, c.leader(), 1)
		})
	}
}

type fullSnapshots struct {
	raft.SnapshotStore
	step int
}

func (s *fullSnapshots) Create(raft.SnapshotVersion, uint64, uint64, raft.Configuration, uint64, raft.Transport) (raft.SnapshotSink, error) {
	if s.step == 0 {
		return nil, unix.ENOSPC
	}
	return &fullSink{step: s.step}, nil
}

type fullSink struct {
	raft.SnapshotSink
	step int
}

func (s *fullSink) Write(b []byte) (int, error) {
	if s.step == 1 {
		return 0, unix.ENOSPC
	}
	return len(b), nil
}

func (s *fullSink) Close() error  { return unix.ENOSPC }
func (s *fullSink) Cancel() error { return nil }

// A member that can't apply what is committed halts; it does not skip it.
func TestUnknownCommandHalts(t *testing.T) {
	run(t, 3, func(t *testing.T, c *cluster) {
		l := c.leader()
		future := l.raft.Apply([]byte("\x01"+`{"kind":"from-the-future","at":1,"wall":"2026-01-01T00:00:00Z","by":"a","body":{}}`), time.Second)
		go future.Error()
		time.Sleep(5 * time.Second)
		halted := 0
		for name, m := range c.nodes {
			select {
			case err := <-m.Fatal():
				halted++
				if !errors.Is(err, ErrHalt) {
					t.Errorf("node %s: %v", name, err)
				}
			default: // it never heard that the command is committed: nobody is left to tell it
			}
			if m.Leads() {
				t.Errorf("node %s leads", name)
			}
		}
		if halted < 2 {
			t.Errorf("%d nodes halted", halted)
		}
	})
}

// stuckDisk is one whose library holds a lock of its own since it panicked.
type stuckDisk struct {
	*faultyDisk
	end chan struct{}
}

func (d stuckDisk) open(dir string) (raft.LogStore, raft.StableStore, raft.SnapshotStore, func() error, error) {
	logs, stable, snaps, _, err := d.faultyDisk.open(dir)
	return logs, stable, snaps, func() error { <-d.end; return nil }, err
}

// A log that can't be closed any more does not keep the daemon from its end.
func TestStopOfAStuckLog(t *testing.T) {
	run(t, 2, func(t *testing.T, c *cluster) {
		d := stuckDisk{newFaultyDisk(0, nil), make(chan struct{})}
		defer close(d.end)
		c.kill("b")
		m := c.start("b", t.TempDir(), d)
		delete(c.nodes, "b")
		stopped := make(chan error, 1)
		go func() { stopped <- m.Stop() }()
		select {
		case err := <-stopped:
			if err == nil || !strings.Contains(err.Error(), "close log") {
				t.Errorf("stopped with %v", err)
			}
		case <-time.After(time.Minute):
			t.Error("it never stops")
		}
		if err := errors.Join(m.node.Close(), m.mux.Close()); err != nil {
			t.Error(err)
		}
	})
}
