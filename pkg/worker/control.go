package worker

import (
	"net/netip"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

// Request is one line to `keeponed helper blocklist`, the warm control connection apart from any data's.
// Exactly one of the pointers is set.
type Request struct {
	ID      uint64
	Limit   time.Duration // the helper answers within it
	Inspect *Inspect      `json:",omitempty"`
	Check   *Check        `json:",omitempty"`
	CutOff  *CutOff       `json:",omitempty"`
}

// Response answers the Request of the same ID.
type Response struct {
	ID      uint64
	Failure *Failure   `json:",omitempty"`
	Image   *Image     `json:",omitempty"`
	Checked *Checked   `json:",omitempty"`
	CutOff  *CutOffDid `json:",omitempty"`
}

// Inspect opens an image read-only and says what it sees.
type Inspect struct {
	Volume core.VolumeSpec
}

// Image is what Inspect saw.
type Image struct {
	Size     uint64
	Features []string
	Epoch    core.Epoch // of the image's metadata, 0 if never written
	Owners   []string   // IP:0/NONCE of exclusive lock owners
	Watchers []string   // IP:0/NONCE of watchers other than this connection
}

// Check tries what takeover needs on the pool: blocklist add by this key, and Ceph's settings.
type Check struct {
	Volume core.VolumeSpec
}

// Checked is what Check found. FSID is equal on all nodes, or they don't speak of the same cluster.
type Checked struct {
	FSID string
	// Relists: this key may take a blocklist entry off that ends too soon, to add it again for good.
	Relists bool
}

// CutOff is the storage proof's effect: write the epoch into the image, then (owners, blocklist, break) over
// the committed addresses and over owners from the old holder's addresses until none is left, then wait until
// the blocklist is seen by the OSDs, then look again (I6).
type CutOff struct {
	Volume    core.VolumeSpec
	Epoch     core.Epoch // written into the image: the lowest that the next grant may have
	Addresses []string
	From      []netip.Addr
}

// CutOffDid is what CutOff did and read.
type CutOffDid struct {
	Blocklisted []string // addresses now on the blocklist
	Broken      []string // owners whose lock was broken
	OSDMapEpoch uint64   // the osdmap epoch that carries the blocklist
	Watchers    []string // watchers left, of the old holder: none if the proof holds
}

// VolumeJob is the order to `keeponed helper volume`: make an image with a file system and a container's
// directory on it, or take over one that a stranger holds. JSON on standard input, VolumeProgress a line out.
type VolumeJob struct {
	Volume Volume
	Create *CreateVolume `json:",omitempty"`
	Claim  *ClaimVolume  `json:",omitempty"`
	Limit  time.Duration
}

// CreateVolume makes the image, refuses one that exists.
type CreateVolume struct {
	Size uint64 // bytes
	From string // a tarball (by ending .tar, .tar.gz, .tar.xz, .tar.zst) or a directory with config and rootfs
}

// ClaimVolume cuts off every stranger that owns or watches the image. The operator vouches for it.
type ClaimVolume struct {
	Epoch core.Epoch
}

// VolumeProgress is one line of a volume job.
type VolumeProgress struct {
	Step    string // in words for a person
	Done    bool
	Failure *Failure `json:",omitempty"`
}
