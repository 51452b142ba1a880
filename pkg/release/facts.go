package release

import "github.com/keepone-ha/keepone/pkg/core"

// Facts are what the kernel says of one record now.
type Facts struct {
	Init      bool // the container's init is the recorded one and lives
	Populated bool // some process is in the run cgroup
	Mounted   bool // the volume is mounted at its mount point
	Mapper    bool // the mapper lives, or for a kernel mapping the device is there
	MapGroup  bool // some process is in the map cgroup
}

// Idle reports that nothing of the record is here.
func (f Facts) Idle() bool { return f == Facts{} }

// Running reads the facts of a record, for a daemon that comes back and adopts. With an error what is false is
// not known to be so.
func Running(runDir string, r Record) (Facts, error) {
	return system().running(runDir, r)
}

// Places are where this node keeps things of services.
type Places struct {
	RunDir     string
	CgroupRoot string
	Volumes    string // directory of mount points
}

// Leftover is one thing of a service that the kernel says is still here.
type Leftover struct {
	Service core.ServiceName // empty if it can't be told
	Kind    LeftoverKind
	What    string // path, device or reason
}

// LeftoverKind sorts leftovers.
type LeftoverKind string

// The kinds of leftover.
const (
	LeftoverRecord  LeftoverKind = "record" // of which something is here, as Facts say
	LeftoverCgroup  LeftoverKind = "cgroup" // populated
	LeftoverMount   LeftoverKind = "mount"
	LeftoverFuse    LeftoverKind = "fuse"
	LeftoverDevice  LeftoverKind = "device"
	LeftoverUnknown LeftoverKind = "unknown" // a fact that could not be read
)

// Leftovers lists whatever of any service is still here. A node holds nothing only if the list is empty: what
// can't be read is in it too.
func Leftovers(at Places) []Leftover {
	return system().leftovers(at)
}
