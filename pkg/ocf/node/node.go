// Package node is a node as its resource agents meet it: what the kernel and the records in the run directory show of
// a service, the daemon behind its socket, and the cluster manager's node attributes. Whatever takes down uses the
// kernel and the records alone (I7).
package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/keepone-ha/keepone/pkg/api"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/ocf"
	"github.com/keepone-ha/keepone/pkg/release"
)

// Node is one node.
type Node struct {
	RunDir     string
	Kernel     Kernel
	Daemon     Daemon
	Attributes Attributes
	Memory     Memory
	Links      Links
}

// Kernel is pkg/release; a test puts a fake in its place.
type Kernel interface {
	// Record is what was activated here in this life; fs.ErrNotExist: nothing was.
	Record(runDir string, service core.ServiceName) (release.Record, error)
	// Device is the block device that the mapper noted, if the record does not know one; empty: not known.
	Device(runDir string, service core.ServiceName) string
	Running(runDir string, r release.Record) (release.Facts, error)
	Stop(ctx context.Context, runDir string, r release.Record, o release.Options) release.Result
	StopContainer(ctx context.Context, runDir string, r release.Record, o release.Options) release.Result
}

// Daemon carries one call over the local socket, as api.CallLocal does.
type Daemon interface {
	Call(ctx context.Context, method string, req any, onLine func(json.RawMessage), resp any) error
}

// Open returns the real node. An empty socket is the one in the run directory.
func Open(runDir, daemonSocket string) Node {
	if daemonSocket == "" {
		daemonSocket = filepath.Join(runDir, "keeponed.sock")
	}
	return Node{RunDir: runDir, Kernel: kernel{}, Daemon: Socket(daemonSocket), Attributes: updater{}, Memory: files(runDir), Links: symlinks{}}
}

// Socket is the path of a daemon's socket.
type Socket string

// Call asks the daemon behind it.
func (s Socket) Call(ctx context.Context, method string, req any, onLine func(json.RawMessage), resp any) error {
	return api.CallLocal(ctx, string(s), method, req, onLine, resp)
}

type kernel struct{}

func (kernel) Record(runDir string, service core.ServiceName) (release.Record, error) {
	return release.Load(runDir, service)
}

func (kernel) Device(runDir string, service core.ServiceName) string {
	m, err := release.LoadMapper(runDir, service)
	if err != nil {
		return ""
	}
	return m.Device
}

func (kernel) Running(runDir string, r release.Record) (release.Facts, error) {
	return release.Running(runDir, r)
}

func (kernel) Stop(ctx context.Context, runDir string, r release.Record, o release.Options) release.Result {
	return release.Stop(ctx, runDir, r, o)
}

func (kernel) StopContainer(ctx context.Context, runDir string, r release.Record, o release.Options) release.Result {
	return release.StopContainer(ctx, runDir, r, o)
}

// Seen is what is here of a service.
type Seen struct {
	Record release.Record // zero if nothing was ever activated in this life
	Facts  release.Facts
	Device string // the block device, once it is known
}

// Look reads the records and asks the kernel. With an error nothing is known, and what is not seen may be here.
func (n Node) Look(service core.ServiceName) (Seen, error) {
	r, known, err := n.record(service)
	if err != nil || !known {
		return Seen{}, err
	}
	facts, err := n.facts(r)
	if err != nil {
		return Seen{}, unsure(service, err)
	}
	s := Seen{Record: r, Facts: facts, Device: r.Storage.Device}
	if s.Device == "" {
		s.Device = n.Kernel.Device(n.RunDir, service)
	}
	return s, nil
}

// record reads what was activated here in this life, if anything was.
func (n Node) record(service core.ServiceName) (r release.Record, known bool, err error) {
	r, err = n.Kernel.Record(n.RunDir, service)
	if errors.Is(err, fs.ErrNotExist) {
		return r, false, nil
	}
	if err != nil {
		return r, false, unsure(service, err)
	}
	return r, true, nil
}

// facts asks the kernel. Once a volume was vacated, a kernel mapping of its image is somebody else's.
func (n Node) facts(r release.Record) (release.Facts, error) {
	f, err := n.Kernel.Running(n.RunDir, r)
	if r.Marks.Vacated && r.Storage.Kind == release.KindKRBD {
		f.Mapper = false
	}
	return f, err
}

func unsure(service core.ServiceName, err error) error {
	return ocf.Fail(ocf.ErrGeneric, "it can't be told what of %s is on this node: %v", service, err)
}

// Mapped reports whether this node holds the volume as a block device.
func (s Seen) Mapped() bool { return s.Facts.Mapper && s.Device != "" }

// Words says what is here, for an exit reason.
func (s Seen) Words() string {
	return fmt.Sprintf("container %s, processes %s, mount %s, mapping %s",
		there(s.Facts.Init), there(s.Facts.Populated), there(s.Facts.Mounted), there(s.Facts.Mapper || s.Facts.MapGroup))
}

func there(yes bool) string {
	if yes {
		return "there"
	}
	return "gone"
}
