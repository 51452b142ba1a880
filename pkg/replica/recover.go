package replica

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/core"
)

// ErrNoLog says that there is nothing to recover from.
var ErrNoLog = errors.New("this node has no log of a cluster")

// recoverGap is put between the last entry of the recovered log and the first one of its future. A survivor that
// was further than this node then finds no entry of its own in the leader's log, and gets the whole State as a
// snapshot: what it alone had applied is gone from it, and no two members disagree.
const recoverGap = 1 << 20

// Recover makes this node the only member of Raft below opts.DataDir, once a majority is gone for ever. It needs
// Self, Incarnation and DataDir of opts, and that no replica runs on them. Everything in the log counts as
// committed, whether it was or not; what only the others had is lost, and the epochs in the images and the owners
// of their locks are what still keeps two holders apart (I2, I6). State is not changed: grants stand, so that every
// holder that is not heard must be fenced first (I3). It returns the State that is gone on with.
//
// After an error nothing has changed, or everything has and it may be called again.
func Recover(opts Options) (core.State, error) {
	dir := filepath.Join(opts.DataDir, "raft")
	if _, err := os.Stat(filepath.Join(dir, "raft.db")); errors.Is(err, os.ErrNotExist) {
		return core.State{}, fmt.Errorf("recover cluster: %w below %s", ErrNoLog, opts.DataDir)
	}
	if opts.disk == nil {
		opts.disk = openDisk
	}
	if opts.Clock == nil {
		opts.Clock = boottime.Now
	}
	logs, stable, snaps, closeDisk, err := opts.disk(dir)
	if errors.Is(err, bolterrors.ErrTimeout) {
		return core.State{}, fmt.Errorf("recover cluster: keeponed runs on this log, stop it first: %w", err)
	}
	if err != nil {
		return core.State{}, fmt.Errorf("recover cluster: %w", err)
	}
	state, err := recoverAlone(opts, logs, stable, snaps)
	if err = errors.Join(err, closeDisk()); err != nil {
		return core.State{}, fmt.Errorf("recover cluster: %w", err)
	}
	return state, nil
}

func recoverAlone(opts Options, logs raft.LogStore, stable raft.StableStore, snaps raft.SnapshotStore) (core.State, error) {
	has, err := raft.HasExistingState(logs, stable, snaps)
	if err != nil {
		return core.State{}, err
	}
	if !has {
		return core.State{}, ErrNoLog
	}
	id := serverID(opts.Self, opts.Incarnation)
	conf := raft.DefaultConfig()
	conf.LocalID = id
	conf.Logger = newLogger(slog.New(slog.DiscardHandler)) // what goes wrong is returned
	if opts.Logger != nil {
		conf.Logger = newLogger(opts.Logger)
	}
	alone := raft.Configuration{Servers: []raft.Server{
		{ID: id, Address: raft.ServerAddress(opts.Self), Suffrage: raft.Voter},
	}}
	f := &strictFSM{fsm: newFSM(opts)}
	f.fail = func(err error) { f.broken = err }
	_, trans := raft.NewInmemTransport("") // encodes addresses, no more
	defer trans.Close()
	if err := raft.RecoverCluster(conf, f, logs, stable, gappedSnapshots{snaps}, trans, alone); err != nil {
		return core.State{}, err
	}
	return f.view.Load().state, nil
}

// strictFSM hands out no snapshot of a State that an entry is missing from: RecoverCluster itself would not mind.
type strictFSM struct {
	*fsm
	broken error
}

func (f *strictFSM) Snapshot() (raft.FSMSnapshot, error) {
	if f.broken != nil {
		return nil, f.broken
	}
	if f.view.Load().state.Cluster == "" {
		return nil, ErrNoLog // it joined, and never heard of its cluster
	}
	return f.fsm.Snapshot()
}

// gappedSnapshots puts the gap behind the snapshot that is made.
type gappedSnapshots struct{ raft.SnapshotStore }

func (s gappedSnapshots) Create(v raft.SnapshotVersion, index, term uint64, c raft.Configuration, cindex uint64,
	t raft.Transport,
) (raft.SnapshotSink, error) {
	return s.SnapshotStore.Create(v, index+recoverGap, term, c, cindex, t)
}
