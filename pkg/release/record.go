package release

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

// Record is what is or was activated here. The starter saves it before any effect and again with each thing
// learned, so that whoever comes later can take all of it down, whichever step the starter died at (I7).
type Record struct {
	Service    core.ServiceName
	Epoch      core.Epoch
	Instance   core.Instance
	Attempt    int // run number within the grant: rises with each restart in place
	Cgroups    Cgroups
	Storage    Storage
	Mapper     Process       // zero until it runs; mapper.json tells it too
	Init       Process       // the container's init; zero until it runs
	HaltSignal int           // asks that init to shut down; 0: it can't be asked
	Network    Network       //
	StopLimit  time.Duration // of the graceful part of a stop
	Marks      Marks         `json:"-"` // of this epoch and attempt; kept beside the record, see Mark
}

// Cgroups are absolute paths on cgroup v2.
type Cgroups struct {
	Run string // activation helper and container; containment kills all of it
	Map string // the mapper, which outlives containment
}

// Kind is how the image becomes a block device.
type Kind string

// The kinds of device.
const (
	KindLoop Kind = "loop" // user space mapper: FUSE file and loop device
	KindKRBD Kind = "krbd" // kernel client
)

// Storage is what of the volume is here.
type Storage struct {
	Mount   string // mount point, set before anything is mounted
	Kind    Kind   //
	Device  string // /dev/loopN or /dev/rbdN; empty until known
	FuseDir string // of KindLoop
	Pool    string // with Image: finds a kernel mapping whose Device was never recorded
	Image   string //
	Address string // storage client address IP:0/NONCE
	Kept    bool   // the device is to stay without a mount: a cluster manager mounts it
}

// Network is the container's link as the host sees it.
type Network struct {
	Links     []string // host ends
	Bridge    string
	MAC       string
	Addresses []netip.Prefix
}

// Save writes the record as one: readers see the old or the new.
func (r Record) Save(runDir string) error {
	if err := checkName(r.Service); err != nil {
		return fmt.Errorf("save record: %w", err)
	}
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return fmt.Errorf("encode record: %w", err)
	}
	dir := Dir(runDir, r.Service)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make record directory: %w", err)
	}
	if err := writeWhole(filepath.Join(dir, "record.json"), text); err != nil {
		return fmt.Errorf("save record: %w", err)
	}
	return nil
}

// Load reads one service's record with its marks; fs.ErrNotExist if nothing was ever activated in this life.
func Load(runDir string, service core.ServiceName) (Record, error) {
	if err := checkName(service); err != nil {
		return Record{}, fmt.Errorf("load record: %w", err)
	}
	text, err := os.ReadFile(filepath.Join(Dir(runDir, service), "record.json"))
	if err != nil {
		return Record{}, fmt.Errorf("load record: %w", err)
	}
	var r Record
	if err := json.Unmarshal(text, &r); err != nil {
		return Record{}, fmt.Errorf("decode record of %s: %w", service, err)
	}
	if r.Service != service {
		return Record{}, fmt.Errorf("decode record of %s: it names %q", service, r.Service)
	}
	r.Marks, err = ReadMarks(runDir, service, r.Epoch, r.Attempt)
	return r, err
}

// List loads every record of this life. With an error it returns what it could read: the rest is unknown and
// must not be taken for absent.
func List(runDir string) ([]Record, error) {
	entries, err := os.ReadDir(filepath.Join(runDir, "services"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list records: %w", err)
	}
	var records []Record
	var errs []error
	for _, entry := range entries {
		r, err := Load(runDir, core.ServiceName(entry.Name()))
		switch {
		case errors.Is(err, fs.ErrNotExist): // the directory is made before the record: nothing has happened yet
		case err != nil:
			errs = append(errs, err)
		default:
			records = append(records, r)
		}
	}
	return records, errors.Join(errs...)
}
