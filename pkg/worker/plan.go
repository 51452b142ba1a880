// Package worker is the contract between the daemon and the helper processes that touch storage and
// containers for it: `keeponed helper activate|map|blocklist|exec|volume`. The daemon itself makes no call
// that can hang in Ceph or LXC: a helper that hangs is killed, and its outcome is Unknown.
package worker

import (
	"net/netip"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

// Ceph says how to reach the cluster.
type Ceph struct {
	Conf    string // ceph.conf
	Keyring string
	User    string // without "client."
}

// Volume is one service's RBD image and how it becomes a mounted file system here.
type Volume struct {
	Ceph   Ceph
	Spec   core.VolumeSpec
	Mount  string // mount point, in the node's own mount namespace
	RunDir string // /run/keepone/services/NAME: fuse mount, sockets, records
}

// Takeover is what the new holder cuts off before it acquires: nothing unless a grant was committed after an
// accepted proof, or after the last holder vacated (I3).
type Takeover struct {
	Epoch     core.Epoch
	Addresses []string     // committed client addresses (IP:0/NONCE) of holders that did not vacate
	From      []netip.Addr // every link address of those holders: an owner from there is theirs
}

// Plan is the whole order for one activation: JSON on the helper's standard input. It then answers with one
// Progress a line, and waits after Mapped for one Go line.
type Plan struct {
	Run       string // /run/keepone
	Service   core.ServiceName
	Epoch     core.Epoch
	Instance  core.Instance
	Attempt   int // run number within the grant: rises with each restart in place
	Volume    Volume
	Takeover  Takeover
	Container Container
	Cgroup    string        // absolute path of the cgroup that the container and this helper run in
	MapCgroup string        // of the mapper, which outlives containment
	Limit     time.Duration // bound of the whole activation
	StopLimit time.Duration // for the record: of the graceful part of a stop
	Restart   bool          // volume is mounted: only start the container
	Stage     core.Stage    // how far: promoted ends with the mapped device, which then stays
}

// Mapped is the one line that the mapper prints: once its device is ready, or once it failed. It gets its Plan as
// one line on standard input, which its parent holds open until then: a parent that dies earlier ends it.
type Mapped struct {
	PID        int      `json:",omitempty"` // 0 if no process stays (krbd)
	Address    string   `json:",omitempty"` // storage client address IP:0/NONCE
	File       string   `json:",omitempty"` // librbd: the image as a file, for a loop device
	Device     string   `json:",omitempty"` // krbd: the block device
	Connection uint32   `json:",omitempty"` // librbd: FUSE connection number
	Failure    *Failure `json:",omitempty"`
}

// Container is how the container is started. Its directory is the volume: <mount>/config, <mount>/rootfs.
type Container struct {
	Name    string
	Network core.NetworkSpec
	Link    string // name of the host's end of its veth pair; at most 15 bytes
}

// Step is a station of an activation, in order.
type Step string

// The steps.
const (
	StepLease    Step = "lease"    // lease and grant are live
	StepMapped   Step = "mapped"   // image checked, lock taken, epoch written and read again, mapped: Progress.Address
	StepPromoted Step = "promoted" // the end of a plan that goes no further: the device stays until it is taken down
	StepMounted  Step = "mounted"  // file system checked and mounted
	StepStarted  Step = "started"  // the container's init runs: Progress.InitPID
	StepFailed   Step = "failed"   // Progress.Failure says why; the helper ends
	StepAnnounce Step = "announce" // addresses announced
)

// Progress is one line of the helper's standard output.
type Progress struct {
	Step       Step
	Took       time.Duration // since the step before
	Address    string        `json:",omitempty"` // storage client address IP:0/NONCE, at StepMapped
	Device     string        `json:",omitempty"` // block device, at StepMapped
	InitPID    int           `json:",omitempty"` // in the node's PID namespace, at StepStarted
	HaltSignal int           `json:",omitempty"` // signal that asks that init to shut down, at StepStarted
	Failure    *Failure      `json:",omitempty"`
}

// Go lets the helper pass StepMapped: the client's address is committed with the grant (I6).
type Go struct {
	Go bool
}

// Failure is an error that crosses a process: what was wrong, where, and what to do next.
type Failure struct {
	Code    Code
	Message string
}

func (f *Failure) Error() string { return f.Message }

// Code lets a caller act on a Failure without reading its words.
type Code string

// The codes.
const (
	CodeUnknown         Code = "unknown"          // timed out or lost: assume that it may have happened
	CodeImageMissing    Code = "image-missing"    //
	CodeImageEmpty      Code = "image-empty"      // size 0
	CodeImageExists     Code = "image-exists"     // asked to make one that is there
	CodeImageFeatures   Code = "image-features"   // exclusive-lock is not enabled
	CodeImageStranger   Code = "image-stranger"   // an owner or watcher that is none of ours
	CodeEpochAhead      Code = "epoch-ahead"      // the image carries a higher epoch than this grant's (I2)
	CodeBlocklisted     Code = "blocklisted"      // this client has been cut off
	CodeNoCap           Code = "no-cap"           // the keyring may not do what takeover needs
	CodeCephAway        Code = "ceph-away"        // no answer in the bound
	CodeCephConfig      Code = "ceph-config"      // a setting of Ceph that makes takeover unsafe
	CodeLease           Code = "lease"            // no live lease for this epoch
	CodeTombstone       Code = "tombstone"        // stopped meanwhile
	CodeBusy            Code = "busy"             // another activation holds the flock
	CodeFileSystem      Code = "filesystem"       // fsck or mount
	CodeVolumeFull      Code = "volume-full"      //
	CodeContainerConfig Code = "container-config" // config missing or broken
	CodeContainerStart  Code = "container-start"  //
	CodeAddressInUse    Code = "address-in-use"   // somebody else answers for the service's address
)
