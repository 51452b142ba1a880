package imagefs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Name is the file's name.
const Name = "image"

const (
	imageNode = 2
	blockSize = 4096
	// attrValid bounds how late a resize is seen.
	attrValid = time.Second
	// maxWrite is the kernel's largest FUSE request; larger ones mean fewer trips for the same bytes.
	maxWrite = 1 << 20
	// unmountPause is between two tries to unmount while the loop device lets go of the file.
	unmountPause = 10 * time.Millisecond
)

// Server is one mounted file.
type Server struct {
	volume volume
	server *fuse.Server
	dir    string
}

// Serve mounts the device at dir, which it makes, and serves it until Unmount.
func Serve(dir string, dev Device) (*Server, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make fuse directory: %w", err)
	}
	s := &Server{dir: dir, volume: volume{dev: dev}}
	size, err := dev.Size()
	if err != nil {
		return nil, fmt.Errorf("read size of device: %w", err)
	}
	server, err := fuse.NewServer(&files{RawFileSystem: fuse.NewDefaultRawFileSystem(), v: &s.volume, size: size}, dir, &fuse.MountOptions{
		FsName: "keepone", Name: "keepone", DirectMountStrict: true, MaxWrite: maxWrite, MaxBackground: 64, DisableXAttrs: true,
		DisableReadDirPlus: true,
	})
	if err != nil {
		return nil, fmt.Errorf("mount fuse at %s: %w", dir, err)
	}
	s.server = server
	go server.Serve()
	if err := server.WaitMount(); err != nil {
		return nil, fmt.Errorf("mount fuse at %s: %w", dir, err)
	}
	return s, nil
}

// Path is the file.
func (s *Server) Path() string { return filepath.Join(s.dir, Name) }

// Connection is the number of the FUSE connection: /sys/fs/fuse/connections/N/abort ends it.
func (s *Server) Connection() (uint32, error) {
	var st unix.Stat_t
	if err := unix.Stat(s.dir, &st); err != nil {
		return 0, fmt.Errorf("stat %s: %w", s.dir, err)
	}
	return unix.Minor(st.Dev), nil
}

// Errors counts operations that failed.
func (s *Server) Errors() uint64 { return s.volume.errors.Load() }

// Unmount ends the file. While a loop device still uses it, it waits for that to end.
func (s *Server) Unmount(ctx context.Context) error {
	for {
		err := unix.Unmount(s.dir, 0)
		switch {
		case err == nil, errors.Is(err, unix.EINVAL): // not mounted: taken down by somebody else
			return s.ended(ctx)
		case !errors.Is(err, unix.EBUSY):
			return fmt.Errorf("unmount %s: %w", s.dir, err)
		}
		timer := time.NewTimer(unmountPause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("unmount %s: %w", s.dir, err)
		}
	}
}

// ended waits until the kernel has let go of the file: a mount that is covered, or a copy of it elsewhere, keeps it.
func (s *Server) ended(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		s.server.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("unmount %s: something else still has it mounted: %w", s.dir, ctx.Err())
	}
}

// Flush makes everything that was written durable.
func (s *Server) Flush() error {
	if n := s.volume.do(true, s.volume.dev.Flush); n != 0 {
		return n
	}
	return nil
}

type files struct {
	fuse.RawFileSystem
	v    *volume
	size uint64
}

func (f *files) String() string { return "keepone" }

func (f *files) attr(node uint64, out *fuse.Attr) fuse.Status {
	out.Ino, out.Nlink, out.Blksize = node, 1, blockSize
	switch node {
	case fuse.FUSE_ROOT_ID:
		out.Mode = unix.S_IFDIR | 0o500
	case imageNode:
		out.Mode, out.Size = unix.S_IFREG|0o600, f.size
		if size, err := f.v.dev.Size(); err == nil && !f.v.lost.Load() {
			out.Size = size
		}
		out.Blocks = out.Size / 512
	default:
		return fuse.ENOENT
	}
	return fuse.OK
}

func (f *files) Lookup(_ <-chan struct{}, header *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if header.NodeId != fuse.FUSE_ROOT_ID || name != Name {
		return fuse.ENOENT
	}
	out.NodeId = imageNode
	out.SetEntryTimeout(time.Hour)
	out.SetAttrTimeout(attrValid)
	return f.attr(imageNode, &out.Attr)
}

func (f *files) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.SetTimeout(attrValid)
	return f.attr(in.NodeId, &out.Attr)
}

// SetAttr lets times and modes pass without effect: the image's size is Ceph's.
func (f *files) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if _, ok := in.GetSize(); ok {
		return fuse.Status(unix.EPERM)
	}
	return f.attr(in.NodeId, &out.Attr)
}

func (f *files) Open(_ <-chan struct{}, in *fuse.OpenIn, _ *fuse.OpenOut) fuse.Status {
	if in.NodeId != imageNode {
		return fuse.Status(unix.EISDIR)
	}
	return fuse.OK
}

func (f *files) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, _ *fuse.OpenOut) fuse.Status {
	if in.NodeId != fuse.FUSE_ROOT_ID {
		return fuse.ENOTDIR
	}
	return fuse.OK
}

func (f *files) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	if in.Offset == 0 {
		out.AddDirEntry(fuse.DirEntry{Name: Name, Ino: imageNode, Mode: unix.S_IFREG})
	}
	return fuse.OK
}

func (f *files) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	n := 0
	buf = buf[:min(uint64(len(buf)), f.left(in.Offset))]
	if len(buf) == 0 {
		return fuse.ReadResultData(nil), fuse.OK
	}
	status := f.v.do(false, func() (err error) {
		n, err = f.v.dev.ReadAt(buf, int64(in.Offset))
		return err
	})
	return fuse.ReadResultData(buf[:n]), fuse.Status(status)
}

// left is how much the device has from off on. librbd refuses to read beyond its end.
func (f *files) left(off uint64) uint64 {
	size, err := f.v.dev.Size()
	if err != nil {
		size = f.size
	}
	if off >= size {
		return 0
	}
	return size - off
}

func (f *files) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	n := 0
	status := f.v.do(false, func() (err error) {
		n, err = f.v.dev.WriteAt(data, int64(in.Offset))
		return err
	})
	return uint32(n), fuse.Status(status)
}

// Flush is close(2), which promises nothing.
func (f *files) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.OK }

func (f *files) Fsync(<-chan struct{}, *fuse.FsyncIn) fuse.Status {
	return fuse.Status(f.v.do(true, f.v.dev.Flush))
}

// Fallocate serves what the loop driver makes of discard and of writing zeros.
func (f *files) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	switch in.Mode &^ unix.FALLOC_FL_KEEP_SIZE {
	case unix.FALLOC_FL_PUNCH_HOLE, unix.FALLOC_FL_ZERO_RANGE:
		length := min(in.Length, f.left(in.Offset))
		if length == 0 {
			return fuse.OK
		}
		return fuse.Status(f.v.do(false, func() error { return f.v.dev.Zero(int64(in.Offset), int64(length)) }))
	}
	return fuse.Status(syscall.EOPNOTSUPP)
}

func (f *files) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	out.Bsize, out.NameLen = blockSize, 255
	return fuse.OK
}

func (f *files) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status { return fuse.OK }
