// Package replica keeps the State the same on every member: it is the only room that knows Raft. A command is
// proposed, committed by a majority of voters, applied by everybody in the same order. The package decides nothing
// about services; it says who leads, and what it can't know it calls Unknown.
package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/core"
)

// Errors of this package. Those of Propose come with an Outcome that says more.
var (
	ErrDisk         = errors.New("the disk failed; this node takes no part until its daemon is started again")
	ErrHalt         = errors.New("this version can't apply what the cluster committed; install the version of the other nodes")
	ErrNoLeader     = errors.New("no leader: too few nodes reach each other, or an election goes on")
	ErrNotLeader    = errors.New("this node does not lead")
	ErrNoQuorum     = errors.New("the quorum did not answer")
	ErrRefused      = errors.New("refused")
	ErrUnknown      = errors.New("outcome unknown: the leader was lost before it answered")
	ErrBootstrapped = errors.New("this node has a log of its cluster already")
	ErrStopped      = errors.New("the replica was stopped")
)

// Stream carries Raft's connections; api.Stream is one. A connection that it accepts may have a method
// Peer() core.NodeName; then its words are held against that name.
type Stream interface {
	Accept() (net.Conn, error)
	Close() error
	Dial(ctx context.Context, node core.NodeName) (net.Conn, error)
}

// Caller asks another node; api.Node is one. An error with a method NotSent() bool that returns true certainly had
// no effect; after any other the effect is unknown.
type Caller interface {
	Call(ctx context.Context, node core.NodeName, method string, req, resp any) error
}

// Options say what a replica is made of.
type Options struct {
	Self        core.NodeName
	Incarnation string        // of this disk
	DataDir     string        // raft/ is made below it
	Stream      Stream        // closed by Stop
	Caller      Caller        // forwards proposals to the leader's method MethodPropose
	Election    time.Duration // core.Timing.RaftElection: heartbeat and election timeout, and the leader's lease
	Logger      *slog.Logger
	OnApply     func(core.State)                                                                            // after each applied entry, in order; must not block; may be nil
	Check       func(by core.NodeName, c core.Command) error                                                // whether by may say c; asked for forwarded proposals
	Clock       func() boottime.Time                                                                        // nil: boottime.Now
	disk        func(dir string) (raft.LogStore, raft.StableStore, raft.SnapshotStore, func() error, error) // tests
}

// Replica is this node's share of the cluster. Methods may be called from anywhere, from New until after Stop.
type Replica struct {
	opts  Options
	id    raft.ServerID
	raft  *raft.Raft
	trans *transport
	fsm   *fsm

	lease    time.Duration // a leader's, fixed as Raft starts
	election atomic.Int64  // time.Duration
	repace   chan struct{} // 1

	lead   leadership
	quorum quorum
	nudge  chan struct{} // see propose.go
	fatal  chan error    // 1

	failed    chan struct{} // closed at the first fatal error
	failOnce  sync.Once
	stopping  chan struct{}
	stopOnce  sync.Once
	closeDisk func() error
	wait      sync.WaitGroup
	closed    atomic.Bool
}

// New opens the log below DataDir and starts Raft. A node without a log does nothing until Bootstrap makes it the
// first of a cluster, or the leader of one adds it. End it with Stop.
func New(opts Options) (*Replica, error) {
	if opts.Self == "" || opts.Incarnation == "" || opts.Stream == nil || opts.Logger == nil || opts.Election <= 0 {
		return nil, errors.New("start replica: an option is missing")
	}
	if opts.Clock == nil {
		opts.Clock = boottime.Now
	}
	if opts.disk == nil {
		opts.disk = openDisk
	}
	r := &Replica{
		lease: opts.Election,
		opts:  opts, id: serverID(opts.Self, opts.Incarnation), fsm: newFSM(opts),
		repace: make(chan struct{}, 1),
		nudge:  make(chan struct{}, 1), fatal: make(chan error, 1),
		failed: make(chan struct{}), stopping: make(chan struct{}),
	}
	r.election.Store(int64(opts.Election))
	r.fsm.fail = r.fail
	r.fsm.failed = r.failed
	logs, stable, snaps, closeDisk, err := opts.disk(filepath.Join(opts.DataDir, "raft"))
	if err != nil {
		return nil, fmt.Errorf("start replica: %w", err)
	}
	r.closeDisk = closeDisk
	logger := newLogger(opts.Logger)
	r.trans = newTransport(opts, r.id, logger)
	notify := make(chan bool, 16)
	if err := r.startRaft(logs, stable, snaps, notify); err != nil {
		return nil, errors.Join(fmt.Errorf("start replica: %w", err), r.trans.Close(), closeDisk())
	}
	r.fsm.live.Store(true)
	r.wait.Add(3)
	go r.watchLeadership(notify)
	go r.spread()
	go r.shutdownOnFailure()
	return r, nil
}

// cachedLogs is how many of the newest entries need no reading from disk: each idle tick looks at the last one.
const cachedLogs = 64

// startRaft runs on a goroutine of its own what may end its goroutine: see guardedDisk.
func (r *Replica) startRaft(logs raft.LogStore, stable raft.StableStore, snaps raft.SnapshotStore, notify chan<- bool) error {
	guard := &guardedDisk{fail: r.fail, failed: r.failed}
	started := make(chan error, 1)
	go func() {
		err := ErrDisk // stands if the next line never returns
		defer func() { started <- err }()
		cached, _ := raft.NewLogCache(cachedLogs, &guardedLogs{logs, guard}) // refuses a size below 1 alone
		r.raft, err = raft.NewRaft(r.config(notify), r.fsm,
			cached, &guardedStable{stable, guard}, &guardedSnapshots{snaps, guard}, r.trans)
	}()
	err := <-started
	if err == nil {
		return nil
	}
	select {
	case fatal := <-r.fatal:
		return fatal
	default:
		if r.fsm.unreadable != nil {
			err = fmt.Errorf("%w: %w", err, r.fsm.unreadable)
		}
		return err
	}
}

// config says how Raft runs. The leader's lease may be as long as the election timeout: safety does not hang on it,
// VerifyQuorum does its own counting, and a shorter one would cost leadership when a link dies.
func (r *Replica) config(notify chan<- bool) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = r.id
	c.HeartbeatTimeout = r.opts.Election
	c.ElectionTimeout = r.opts.Election
	c.LeaderLeaseTimeout = r.opts.Election
	c.CommitTimeout = r.opts.Election // idle traffic; what is committed is spread by a nudge, see propose.go
	c.SnapshotThreshold = 1024
	c.SnapshotInterval = time.Minute
	c.TrailingLogs = 1024 // a node that was away for a while catches up without a snapshot
	c.ShutdownOnRemove = false
	c.NotifyCh = notify
	c.Logger = newLogger(r.opts.Logger)
	c.NoLegacyTelemetry = true
	return c
}

// openDisk opens bolt and the snapshots below dir. Each write is on disk when it returns.
func openDisk(dir string) (raft.LogStore, raft.StableStore, raft.SnapshotStore, func() error, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, nil, nil, unopened(dir, err)
	}
	var bolt *raftboltdb.BoltStore
	err := caught(func() (err error) {
		bolt, err = raftboltdb.New(raftboltdb.Options{
			Path:                    filepath.Join(dir, "raft.db"),
			BoltOptions:             &bbolt.Options{Timeout: 2 * time.Second}, // races another daemon that holds the file
			MsgpackUseNewTimeFormat: true,
		})
		return err
	})
	if err != nil {
		return nil, nil, nil, nil, unopened(filepath.Join(dir, "raft.db"), err)
	}
	snaps, err := raft.NewFileSnapshotStoreWithLogger(dir, 2, newLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		return nil, nil, nil, nil, errors.Join(unopened(filepath.Join(dir, "snapshots"), err), bolt.Close())
	}
	return bolt, bolt, snaps, bolt.Close, nil
}

// unopened says why the log is not open: another process has it, the disk fails, or what is there is no log.
func unopened(path string, err error) error {
	var errno syscall.Errno
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return fmt.Errorf("open log %s: %w", path, err)
	case errors.As(err, &errno):
		return fmt.Errorf("open log %s: %w: %w", path, ErrDisk, err)
	}
	return fmt.Errorf("open log %s: %w: %w; if the disk is well, the log is damaged: move its folder away and join again (keepone node add, keepone join)", path, ErrDisk, err)
}

// Stop leaves the cluster's traffic and waits until everything has ended; leadership contexts die. A leader should
// TransferLeadership first. It may be called more than once.
func (r *Replica) Stop() error {
	r.stopOnce.Do(func() { close(r.stopping) })
	r.lead.stop()
	err := r.raft.Shutdown().Error()
	r.wait.Wait()
	if r.closed.CompareAndSwap(false, true) {
		err = errors.Join(err, r.trans.Close(), r.closeLog())
	}
	if err != nil {
		return fmt.Errorf("stop replica: %w", err)
	}
	return nil
}

// closeBound races a library that panicked at a page of the log while it held a lock of its own: it waits for that for ever,
// and a daemon that has to end would not. What is closed took part in nothing any more, so that little is enough.
const closeBound = 5 * time.Second

func (r *Replica) closeLog() error {
	closed := make(chan error, 1)
	go func() { closed <- r.closeDisk() }()
	select {
	case err := <-closed:
		return err
	case <-time.After(closeBound):
		return fmt.Errorf("close log: not closed within %s: end this process, which closes it", closeBound)
	}
}

// fail ends this node's part in the cluster, once: it leads no longer, votes no longer, promises nothing more.
func (r *Replica) fail(err error) {
	r.failOnce.Do(func() {
		r.fatal <- err
		close(r.failed)
		r.lead.stop()
	})
}

func (r *Replica) shutdownOnFailure() {
	defer r.wait.Done()
	select {
	case <-r.failed:
		r.raft.Shutdown()
		r.trans.Close() // peers are to hear no, not nothing: nobody answers them any more
	case <-r.stopping:
	}
}

// Fatal hands out the one error after which the daemon must end: ErrDisk or ErrHalt. The node has stopped leading
// and voting by then; what it acknowledged before is on disk.
func (r *Replica) Fatal() <-chan error { return r.fatal }

// State returns what this node has applied last. It may be behind the leader.
func (r *Replica) State() core.State { return r.fsm.view.Load().state }

// Watch returns the State and a channel that is closed when it is no longer the newest. Call it again after that:
// no change can be missed, several may be seen as one.
func (r *Replica) Watch() (core.State, <-chan struct{}) {
	v := r.fsm.view.Load()
	return v.state, v.changed
}

// Now is the cluster's time as this node knows it: that of the last applied entry and what has passed here since.
// It may run late, never early.
func (r *Replica) Now() core.Time {
	v := r.fsm.view.Load()
	if v.at == 0 {
		return v.state.Now
	}
	return v.state.Now.Add(max(0, r.opts.Clock().Sub(v.at)))
}

// Leader returns the name of the leader, empty if none is known.
func (r *Replica) Leader() core.NodeName {
	_, id := r.raft.LeaderWithID()
	return nameOf(id)
}

// Leads reports whether this node leads, as far as it knows: only VerifyQuorum is sure.
func (r *Replica) Leads() bool { return r.raft.State() == raft.Leader }

// Term is Raft's term as this node knows it.
func (r *Replica) Term() uint64 { return r.raft.CurrentTerm() }

// LastContact is how long ago the leader was heard; 0 on the leader, and negative if it never was.
func (r *Replica) LastContact() time.Duration {
	if r.Leads() {
		return 0
	}
	last := r.raft.LastContact()
	if last.IsZero() {
		return -1
	}
	return time.Since(last)
}

// Applied is how far State is: the index of the newest command in it, or of the snapshot that it was restored from.
// Raft's own applied index will not do: it runs ahead of the State by what it has only queued, which after a restart
// is the whole log.
func (r *Replica) Applied() uint64 {
	snapshot, _ := strconv.ParseUint(r.raft.Stats()["last_snapshot_index"], 10, 64)
	return max(r.fsm.done.Load(), snapshot)
}

// Empty reports whether this node has no log of a cluster yet.
func (r *Replica) Empty() bool { return r.raft.LastIndex() == 0 }

// Bootstrap makes this node the first and only voter of a new cluster, waits until it leads, and commits initial in
// order. ErrBootstrapped if there is a log already.
func (r *Replica) Bootstrap(ctx context.Context, initial ...core.Command) error {
	err := r.raft.BootstrapCluster(raft.Configuration{Servers: []raft.Server{
		{ID: r.id, Address: raft.ServerAddress(r.opts.Self), Suffrage: raft.Voter},
	}}).Error()
	if errors.Is(err, raft.ErrCantBootstrap) {
		return fmt.Errorf("bootstrap cluster: %w", ErrBootstrapped)
	}
	if err != nil {
		return fmt.Errorf("bootstrap cluster: %w", err)
	}
	for _, c := range initial {
		if _, err := r.Propose(ctx, c); err != nil {
			return fmt.Errorf("bootstrap cluster: %w", err)
		}
	}
	return nil
}
