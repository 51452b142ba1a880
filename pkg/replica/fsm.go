package replica

import (
	"fmt"
	"io"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/wire"
)

// view is a State and when it was applied here. It is replaced as a whole.
type view struct {
	state   core.State
	index   uint64        // of the log entry that made it; 0 after a restore
	at      boottime.Time // 0: never
	changed chan struct{} // closed when a newer view is in place
}

// fsm applies committed entries. Raft calls Apply, Restore and Snapshot on one goroutine, never two at once.
type fsm struct {
	view    atomic.Pointer[view]
	clock   func() boottime.Time
	onApply func(core.State)
	fail    func(error)
	failed  <-chan struct{}

	done       atomic.Uint64 // index of the newest entry that went through Apply, refused or not
	live       atomic.Bool   // New has returned
	unreadable error         // the snapshot that could not be restored before
}

func newFSM(opts Options) *fsm {
	f := &fsm{clock: opts.Clock, onApply: opts.OnApply}
	f.view.Store(&view{changed: make(chan struct{})})
	return f
}

// Apply returns nil, or the error with which the command was refused. What can't be decoded halts this member: the
// others applied it, and to go on without would make it disagree with them.
func (f *fsm) Apply(l *raft.Log) any {
	select {
	case <-f.failed:
		return ErrHalt // nothing is applied behind what could not be
	default:
	}
	e, err := wire.DecodeEntry(l.Data)
	if err != nil {
		err = fmt.Errorf("apply log entry %d: %w: %w", l.Index, ErrHalt, err)
		f.fail(err)
		return err
	}
	defer f.done.Store(l.Index) // after the State is in place
	old := f.view.Load()
	s, err := core.Apply(old.state, e)
	if err != nil {
		return err
	}
	f.set(&view{state: s, index: l.Index, at: f.clock(), changed: make(chan struct{})})
	return nil
}

func (f *fsm) set(v *view) {
	old := f.view.Swap(v)
	close(old.changed)
	if f.onApply != nil {
		f.onApply(v.state)
	}
}

// Snapshot costs nothing: a State is never written.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) { return snapshot{f.view.Load().state}, nil }

// Restore replaces the State by a snapshot's.
func (f *fsm) Restore(r io.ReadCloser) error {
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, wire.MaxSnapshot+1))
	if err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	s, err := wire.DecodeSnapshot(data)
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrHalt, err)
		if f.live.Load() {
			f.fail(err) // the leader's: a newer version wrote it
		} else {
			f.unreadable = err // Raft may find an older one that can be read
		}
		return err
	}
	f.set(&view{state: s, at: f.clock(), changed: make(chan struct{})})
	return nil
}

type snapshot struct{ state core.State }

// Persist writes the snapshot; the sink waits for the disk as it is closed.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	data, err := wire.EncodeSnapshot(s.state)
	if err == nil {
		_, err = sink.Write(data)
	}
	if err != nil {
		sink.Cancel()
		return fmt.Errorf("write snapshot: %w", err)
	}
	return sink.Close()
}

// Release has nothing to give back.
func (snapshot) Release() {}
