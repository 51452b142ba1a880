package container

import (
	"time"

	"github.com/keepone-ha/keepone/pkg/ocf"
	"github.com/keepone-ha/keepone/pkg/ocf/node"
	"github.com/keepone-ha/keepone/pkg/version"
)

const long = `
Runs the container of a keepone service.

mode=whole: one resource brings up lock, mapping, mount and container as one, and takes all of it down. mode=container:
the volume is mapped by the promoted ocf:keepone:rbd and mounted by ocf:heartbeat:Filesystem before, and stays after.

A start needs keepone's grant; a stop needs neither keeponed nor quorum nor Ceph, and succeeds only once no process of the
service can run. The cluster document must say manager = "pacemaker".

Monitors by OCF_CHECK_LEVEL: 0 the container's init lives, by the kernel's word; 10 the volume is well too; 20 the
front-end answers its probes too. Without keeponed 10 and 20 rest on what the kernel shows.
`

// The advertised timeouts. A start may wait for a fence, a take-over and a file system's check; a stop is the
// container's own 30 s and release's bounds, which are below a minute.
const (
	startTimeout = 180 * time.Second
	stopTimeout  = 120 * time.Second
	shortTimeout = 20 * time.Second
	metaTimeout  = 5 * time.Second
)

// The modes.
const (
	modeWhole     = "whole"
	modeContainer = "container"
)

// agent is one call of the resource agent. Its parameters are filled in before an action is done.
type agent struct {
	service ocf.Name
	mode    ocf.Choice
	runDir  ocf.Path
	socket  ocf.Path
	open    func(runDir, socket string) node.Node
}

// New makes the agent: the one table of parameters and actions.
func New(open func(runDir, socket string) node.Node) *ocf.Agent {
	a := &agent{open: open, mode: ocf.Choice{Of: []string{modeWhole, modeContainer}}}
	return &ocf.Agent{
		Name: "container", Version: version.Version, Short: "Container of a keepone service", Long: long,
		Params: []ocf.Param{
			{
				Name: "service", Required: true, Unique: true, Value: &a.service,
				Short: "Name of the service", Long: "The service that is to run, as the cluster document names it.",
			},
			{
				Name: "mode", Default: modeWhole, Value: &a.mode,
				Short: "whole or container",
				Long:  "whole: lock, mapping, mount and container are this one resource. container: the volume is mapped and mounted by resources before it.",
			},
			node.RunDirParam(&a.runDir),
			node.SocketParam(&a.socket),
		},
		Actions: []ocf.Action{
			{Verb: ocf.Start, Timeout: startTimeout, Do: a.start},
			{Verb: ocf.Stop, Timeout: stopTimeout, Do: a.stop},
			{Verb: ocf.Monitor, Timeout: shortTimeout, Interval: 10 * time.Second, Do: a.monitor},
			{Verb: ocf.Monitor, Timeout: shortTimeout, Interval: 21 * time.Second, Depth: depthVolume},
			{Verb: ocf.Monitor, Timeout: shortTimeout, Interval: 32 * time.Second, Depth: depthProbes},
			{Verb: ocf.ReloadAgent, Timeout: shortTimeout},
			{Verb: ocf.ValidateAll, Timeout: metaTimeout},
			{Verb: ocf.MetaData, Timeout: metaTimeout},
		},
	}
}
