package imagefs

import (
	"sync"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

type memory struct {
	mu    sync.Mutex
	bytes []byte
	fail  error // of the next operations
}

func (m *memory) Size() (uint64, error) { return uint64(len(m.bytes)), nil }

func (m *memory) with(op func()) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	op()
	return nil
}

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	return len(p), m.with(func() { copy(p, m.bytes[off:]) })
}

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	return len(p), m.with(func() { copy(m.bytes[off:], p) })
}
func (m *memory) Flush() error { return m.with(func() {}) }
func (m *memory) Zero(off, length int64) error {
	return m.with(func() { clear(m.bytes[off : off+length]) })
}

func newFiles() (*files, *memory) {
	m := &memory{bytes: make([]byte, 1<<16)}
	return &files{v: &volume{dev: m}, size: 1 << 16}, m
}

func (f *files) put(off uint64, text string) fuse.Status {
	_, status := f.Write(nil, &fuse.WriteIn{Offset: off}, []byte(text))
	return status
}

// TestLostForGood is I6 and I8 as the file system above sees them.
func TestLostForGood(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		err   error
		flush bool
		lost  bool
		want  fuse.Status
	}{
		"cut off":         {unix.ESHUTDOWN, false, true, fuse.EIO},
		"lock lost":       {unix.EROFS, false, true, fuse.EIO},
		"failed flush":    {unix.ENOSPC, true, true, fuse.EIO},
		"pool full":       {unix.ENOSPC, false, false, fuse.Status(unix.ENOSPC)},
		"one bad block":   {unix.EIO, false, false, fuse.EIO},
		"other bad error": {unix.EDOM, false, false, fuse.EIO},
	} {
		f, m := newFiles()
		if status := f.put(0, "fine"); !status.Ok() {
			t.Fatal(status)
		}
		m.fail = test.err
		status := f.put(0, "late")
		if test.flush {
			m.fail = nil
			_ = f.put(0, "late")
			m.fail = test.err
			status = f.Fsync(nil, nil)
		}
		if status != test.want {
			t.Errorf("%s: %v, want %v", name, status, test.want)
		}
		m.fail = nil // Ceph says OK again
		_, read := f.Read(nil, &fuse.ReadIn{}, make([]byte, 4))
		if lost := !f.put(0, "more").Ok() && !f.Fsync(nil, nil).Ok() && !read.Ok(); lost != test.lost {
			t.Errorf("%s: lost %v, want %v", name, lost, test.lost)
		}
		if f.v.errors.Load() == 0 {
			t.Errorf("%s: no error counted", name)
		}
	}
}

func TestZeroAndEnd(t *testing.T) {
	t.Parallel()
	f, m := newFiles()
	f.put(1000, "data")
	for _, mode := range []uint32{unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_ZERO_RANGE} {
		if status := f.Fallocate(nil, &fuse.FallocateIn{Offset: 1001, Length: 2, Mode: mode}); !status.Ok() {
			t.Fatal(status)
		}
	}
	if got := string(m.bytes[1000:1004]); got != "d\x00\x00a" {
		t.Errorf("punched: %q", got)
	}
	if status := f.Fallocate(nil, &fuse.FallocateIn{Offset: 0, Length: 1 << 30, Mode: unix.FALLOC_FL_ZERO_RANGE}); !status.Ok() {
		t.Errorf("zero beyond the end: %v", status)
	}
	if status := f.Fallocate(nil, &fuse.FallocateIn{Length: 1}); status.Ok() {
		t.Error("plain fallocate is not served")
	}
	if res, status := f.Read(nil, &fuse.ReadIn{Offset: 1 << 20}, make([]byte, 8)); !status.Ok() || res.Size() != 0 {
		t.Errorf("read beyond the end: %d bytes, %v", res.Size(), status)
	}
}
