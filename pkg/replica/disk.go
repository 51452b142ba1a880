package replica

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// guardedDisk notices the first failed write and ends this node's part in the cluster. After a failed fsync nobody
// knows what is on disk, so nothing may be tried again before the log was opened anew.
//
// Raft panics when its term can't be stored. The guard ends the goroutine instead: its deferred answers say no, and
// the daemon gets to say one clear line. Raft answers no other failed write with a promise.
type guardedDisk struct {
	fail   func(error)
	failed <-chan struct{}
}

// write runs one write, unless one has failed before.
func (g *guardedDisk) write(what string, f func() error) error {
	select {
	case <-g.failed:
		return fmt.Errorf("%s: %w", what, ErrDisk)
	default:
	}
	err := caught(f)
	if err != nil {
		err = fmt.Errorf("%s: %w: %w", what, ErrDisk, err)
		g.fail(err)
	}
	return err
}

// caught runs f on the log, and makes an error of what its library has none for: the file is mapped into memory, so that a page
// that can't be read is a fault, and at a page that makes no sense the library panics.
func caught(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("a page of the log can't be read or makes no sense: %v", p)
		}
	}()
	return f()
}

// read asks the log for one thing. Raft knows that a key is not there by the error's words, so that one is left as it is.
func read[T any](g *guardedDisk, what string, f func() (T, error)) (value T, err error) {
	err = caught(func() (err error) {
		value, err = f()
		return err
	})
	if err != nil && err.Error() != raftboltdb.ErrKeyNotFound.Error() {
		err = fmt.Errorf("%s: %w: %w", what, ErrDisk, err)
		g.fail(err) // Raft hands on its words alone
	}
	return value, err
}

type guardedLogs struct {
	raft.LogStore
	guard *guardedDisk
}

// GetLog ends the caller where Raft would panic: a log that can't be read. One that is not there is its own affair.
func (s *guardedLogs) GetLog(index uint64, l *raft.Log) error {
	err := caught(func() error { return s.LogStore.GetLog(index, l) })
	if err != nil && !errors.Is(err, raft.ErrLogNotFound) {
		s.guard.fail(fmt.Errorf("read log entry %d: %w: %w", index, ErrDisk, err))
		runtime.Goexit()
	}
	return err
}

func (s *guardedLogs) FirstIndex() (uint64, error) {
	return read(s.guard, "read first index", s.LogStore.FirstIndex)
}

func (s *guardedLogs) LastIndex() (uint64, error) {
	return read(s.guard, "read last index", s.LogStore.LastIndex)
}

func (s *guardedLogs) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

func (s *guardedLogs) StoreLogs(l []*raft.Log) error {
	return s.guard.write("write log", func() error { return s.LogStore.StoreLogs(l) })
}

func (s *guardedLogs) DeleteRange(lo, hi uint64) error {
	return s.guard.write("shorten log", func() error { return s.LogStore.DeleteRange(lo, hi) })
}

type guardedStable struct {
	raft.StableStore
	guard *guardedDisk
}

func (s *guardedStable) Get(key []byte) ([]byte, error) {
	return read(s.guard, "read "+string(key), func() ([]byte, error) { return s.StableStore.Get(key) })
}

func (s *guardedStable) GetUint64(key []byte) (uint64, error) {
	return read(s.guard, "read "+string(key), func() (uint64, error) { return s.StableStore.GetUint64(key) })
}

func (s *guardedStable) Set(key, value []byte) error {
	return s.must(s.guard.write("write vote", func() error { return s.StableStore.Set(key, value) }))
}

func (s *guardedStable) SetUint64(key []byte, value uint64) error {
	return s.must(s.guard.write("write term", func() error { return s.StableStore.SetUint64(key, value) }))
}

// must ends the calling goroutine on an error: no vote is given and no term is taken that is not on disk.
func (s *guardedStable) must(err error) error {
	if err != nil {
		runtime.Goexit()
	}
	return nil
}

type guardedSnapshots struct {
	raft.SnapshotStore
	guard *guardedDisk
}

func (s *guardedSnapshots) Create(v raft.SnapshotVersion, index, term uint64, c raft.Configuration,
	cindex uint64, t raft.Transport,
) (raft.SnapshotSink, error) {
	var sink raft.SnapshotSink
	err := s.guard.write("begin snapshot", func() (err error) {
		sink, err = s.SnapshotStore.Create(v, index, term, c, cindex, t)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &guardedSink{sink, s.guard}, nil
}

func (s *guardedSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	return s.SnapshotStore.Open(id)
}

type guardedSink struct {
	raft.SnapshotSink
	guard *guardedDisk
}

func (s *guardedSink) Write(b []byte) (n int, err error) {
	err = s.guard.write("write snapshot", func() error {
		n, err = s.SnapshotSink.Write(b)
		return err
	})
	return n, err
}

func (s *guardedSink) Close() error { return s.guard.write("end snapshot", s.SnapshotSink.Close) }
