package rbd

import (
	"time"

	"github.com/keepone-ha/keepone/pkg/ocf"
	"github.com/keepone-ha/keepone/pkg/ocf/node"
	"github.com/keepone-ha/keepone/pkg/version"
)

const long = `
Holds the RBD volume of a keepone service, as a promotable clone.

Started: this node takes part, and is promoted no sooner than it could be given the volume. Promoted: keepone granted it to this node, this node has
the image's exclusive lock, and the volume is mapped: the parameter device is a symbolic link to its block device, for
ocf:heartbeat:Filesystem to mount. Demoting and stopping need neither keeponed nor quorum nor Ceph.

keepone decides which node may be promoted: it sets the promotion score, and refuses a promotion without a grant. The
cluster document must say manager = "pacemaker". Set promoted-max=1, interleave=true, notify=false.
`

// The advertised timeouts. A promotion may wait for a fence, a take-over and a file system's check elsewhere; demote
// and stop stay within release's own bounds, which are below a minute.
const (
	startTimeout   = 60 * time.Second
	promoteTimeout = 180 * time.Second
	stopTimeout    = 120 * time.Second
	shortTimeout   = 20 * time.Second
	metaTimeout    = 5 * time.Second
)

// agent is one call of the resource agent. Its parameters are filled in before an action is done.
type agent struct {
	service ocf.Name
	device  ocf.Path
	runDir  ocf.Path
	socket  ocf.Path
	open    func(runDir, socket string) node.Node
}

// New makes the agent: the one table of parameters and actions.
func New(open func(runDir, socket string) node.Node) *ocf.Agent {
	a := &agent{open: open}
	return &ocf.Agent{
		Name: "rbd", Version: version.Version, Short: "RBD volume of a keepone service (promotable)", Long: long,
		Params: []ocf.Param{
			{
				Name: "service", Required: true, Unique: true, Value: &a.service,
				Short: "Name of the service", Long: "The service whose volume it is, as the cluster document names it.",
			},
			{
				Name: "device", Unique: true, Value: &a.device,
				Short: "Symbolic link to the block device",
				Long:  "Promote makes this symbolic link to the mapped block device, demote removes it. Empty: RUN_DIR/dev/SERVICE, which is /run/keepone/dev/SERVICE by default.",
			},
			node.RunDirParam(&a.runDir),
			node.SocketParam(&a.socket),
		},
		Actions: []ocf.Action{
			{Verb: ocf.Start, Timeout: startTimeout, Do: a.start},
			{Verb: ocf.Stop, Timeout: stopTimeout, Do: a.stop},
			{Verb: ocf.Promote, Timeout: promoteTimeout, Do: a.promote},
			{Verb: ocf.Demote, Timeout: stopTimeout, Do: a.demote},
			{Verb: ocf.Monitor, Timeout: shortTimeout, Interval: 10 * time.Second, Role: ocf.Promoted, Do: a.monitor},
			{Verb: ocf.Monitor, Timeout: shortTimeout, Interval: 11 * time.Second, Role: ocf.Unpromoted, Do: a.monitor},
			{Verb: ocf.Notify, Timeout: metaTimeout},
			{Verb: ocf.ReloadAgent, Timeout: shortTimeout, Do: a.reload},
			{Verb: ocf.ValidateAll, Timeout: metaTimeout},
			{Verb: ocf.MetaData, Timeout: metaTimeout},
		},
	}
}
