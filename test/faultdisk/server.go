package faultdisk

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// disk is the server's side: a folder shown through FUSE, with a shadow for each file.
type disk struct {
	mu      sync.Mutex
	shadows map[uint64]*openShadow // by inode of the folder below
	faults  map[string]*failure    // by operation
	off     bool                   // its power is cut: nothing more reaches it
	remains map[*openShadow][]byte // what it has then
}

type openShadow struct {
	shadow
	file *os.File // the file below
}

// failure is a fault that is to come.
type failure struct {
	errno syscall.Errno
	after int // so many operations succeed
}

// operations that can fail.
var operations = []string{"read", "write", "sync"}

// serve shows folder below at a mount point until its orders end, and writes what is left of a cut disk behind itself.
func serve(below, at string, orders io.Reader, answers io.Writer) error {
	d := &disk{shadows: map[uint64]*openShadow{}, faults: map[string]*failure{}}
	loop := &fs.LoopbackRoot{Path: below}
	root := &node{&fs.LoopbackNode{RootData: loop}, d}
	loop.RootNode = root
	_, err := fs.Mount(at, root, &fs.Options{MountOptions: fuse.MountOptions{FsName: "faultdisk", Name: "faultdisk", DirectMountStrict: true}})
	if err != nil {
		return fmt.Errorf("mount at %s: %w", at, err)
	}
	fmt.Fprintln(answers, "ok")
	lines := bufio.NewScanner(orders)
	for lines.Scan() {
		if err := d.obey(strings.Fields(lines.Text())); err != nil {
			fmt.Fprintf(answers, "error %v\n", err)
			continue
		}
		fmt.Fprintln(answers, "ok")
	}
	// Whoever gave the orders has unmounted, or is dead.
	if err := syscall.Unmount(at, syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("unmount %s: %w", at, err)
	}
	// What still has a file open, as a library does that panicked, is cut off with this process: it is not waited for.
	return d.leave()
}

// obey does one of: fail OPERATION ERRNO AFTER, cut SEED. ERRNO is its number.
func (d *disk) obey(words []string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case len(words) == 4 && words[0] == "fail":
		errno, err1 := strconv.Atoi(words[2])
		after, err2 := strconv.Atoi(words[3])
		if err1 != nil || err2 != nil || !slices.Contains(operations, words[1]) {
			return fmt.Errorf("no fault %v", words)
		}
		d.faults[words[1]] = &failure{syscall.Errno(errno), after}
	case len(words) == 2 && words[0] == "cut":
		seed, err := strconv.ParseUint(words[1], 10, 64)
		if err != nil {
			return err
		}
		d.cut(rand.New(rand.NewPCG(seed, 0)))
	default:
		return fmt.Errorf("no order %v", words)
	}
	return nil
}

func (d *disk) cut(r *rand.Rand) {
	d.off, d.remains = true, map[*openShadow][]byte{}
	for _, s := range d.shadows {
		d.remains[s] = s.cut(r)
	}
}

// leave writes what a cut disk has into the files below.
func (d *disk) leave() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for s, content := range d.remains {
		_, err := s.file.WriteAt(content, 0)
		errs = append(errs, err, s.file.Truncate(int64(len(content))))
	}
	return errors.Join(errs...)
}

// fails is the error that an operation ends with, if it is to fail: that one, and all of its kind behind it.
func (d *disk) fails(operation string) syscall.Errno {
	f := d.faults[operation]
	switch {
	case d.off && operation != "read": // what is still read there goes to a machine without power
		return syscall.EIO
	case f == nil:
		return 0
	case f.after > 0:
		f.after--
		return 0
	}
	return f.errno
}

// open finds or makes the shadow of a file below.
func (d *disk) open(path string) (*openShadow, syscall.Errno) {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return nil, fs.ToErrno(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.shadows[st.Ino]; s != nil {
		return s, 0
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fs.ToErrno(err)
	}
	content, err := io.ReadAll(file)
	if err != nil {
		return nil, fs.ToErrno(err)
	}
	s := &openShadow{shadow{synced: content}, file} // open for the disk's life, so that the inode is no other file's
	d.shadows[st.Ino] = s
	return s, 0
}

// node is a file or folder; folders are as durable as they are below, at once.
type node struct {
	*fs.LoopbackNode
	disk *disk
}

// WrapChild makes what is below a node of this kind too.
func (n *node) WrapChild(_ context.Context, child fs.InodeEmbedder) fs.InodeEmbedder {
	return &node{child.(*fs.LoopbackNode), n.disk}
}

func (n *node) below() string { return n.RootData.Path + "/" + n.Path(n.Root()) }

func (n *node) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	s, errno := n.disk.open(n.below())
	if errno != 0 {
		return nil, 0, errno
	}
	return &handle{n.disk, s}, 0, 0
}

func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	inode, made, fuseFlags, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	if errno != 0 {
		return nil, nil, 0, errno
	}
	if release, is := made.(fs.FileReleaser); is {
		release.Release(ctx)
	}
	s, errno := n.disk.open(n.below() + "/" + name)
	if errno != 0 {
		return nil, nil, 0, errno
	}
	return inode, &handle{n.disk, s}, fuseFlags, 0
}

// Setattr notes a new length; it is a write.
func (n *node) Setattr(ctx context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if size, is := in.GetSize(); is {
		s, errno := n.disk.open(n.below())
		if errno == 0 {
			errno = (&handle{n.disk, s}).change(change{at: int64(size)})
		}
		if errno != 0 {
			return errno
		}
	}
	return n.LoopbackNode.Setattr(ctx, nil, in, out)
}

// Getattr asks the file below, not a handle.
func (n *node) Getattr(ctx context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	return n.LoopbackNode.Getattr(ctx, nil, out)
}

// handle is an open file.
type handle struct {
	disk *disk
	file *openShadow
}

func (h *handle) Read(_ context.Context, p []byte, at int64) (fuse.ReadResult, syscall.Errno) {
	h.disk.mu.Lock()
	errno := h.disk.fails("read")
	h.disk.mu.Unlock()
	if errno != 0 {
		return nil, errno
	}
	n, err := h.file.file.ReadAt(p, at)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fs.ToErrno(err)
	}
	return fuse.ReadResultData(p[:n]), 0
}

func (h *handle) Write(_ context.Context, p []byte, at int64) (uint32, syscall.Errno) {
	if errno := h.change(change{at, append([]byte{}, p...)}); errno != 0 {
		return 0, errno
	}
	n, err := h.file.file.WriteAt(p, at)
	return uint32(n), fs.ToErrno(err)
}

// change notes a write. One that fails may have been begun.
func (h *handle) change(c change) syscall.Errno {
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	errno := h.disk.fails("write")
	if errno != 0 && len(c.data) < 2*sector {
		return errno
	}
	if errno != 0 {
		c.data = c.data[:len(c.data)/2]
	}
	h.file.pending = append(h.file.pending, c)
	return errno
}

func (h *handle) Fsync(context.Context, uint32) syscall.Errno {
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	errno := h.disk.fails("sync")
	if errno != 0 {
		h.file.syncFailed()
		return errno
	}
	h.file.sync()
	return 0
}

func (h *handle) Flush(context.Context) syscall.Errno { return 0 }
