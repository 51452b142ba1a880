package controller

import (
	"time"

	"github.com/keepone-ha/keepone/pkg/ocf"
	"github.com/keepone-ha/keepone/pkg/ocf/node"
	"github.com/keepone-ha/keepone/pkg/version"
)

const long = `
Ties keepone's election on a node to Pacemaker, as an anonymous clone. keeponed itself is run by systemd.

Started: keeponed is well and in touch with its leader, and publishes for each service the node attribute keepone-SERVICE,
on which a location rule lets the service start here. A dead keeponed fails the monitor, and its attributes are taken away
for the services that do not run here; a service that runs is left alone. Order services after this clone with
kind=Optional: a restart of keeponed is no reason to restart them.
`

// The advertised timeouts: a start is done waiting within startWait.
const (
	shortTimeout = 20 * time.Second
	metaTimeout  = 5 * time.Second
)

// agent is one call of the resource agent. Its parameters are filled in before an action is done.
type agent struct {
	grace  ocf.Seconds
	runDir ocf.Path
	socket ocf.Path
	open   func(runDir, socket string) node.Node
}

// New makes the agent: the one table of parameters and actions.
func New(open func(runDir, socket string) node.Node) *ocf.Agent {
	a := &agent{open: open}
	return &ocf.Agent{
		Name: "controller", Version: version.Version, Short: "keepone's election on a node", Long: long,
		Params: []ocf.Param{
			{
				Name: "grace", Default: "15", Value: &a.grace,
				Short: "Seconds without a leader that are no failure",
				Long:  "How long keeponed may be out of touch with a leader that has its quorum before a monitor fails. An election takes about a second.",
			},
			node.RunDirParam(&a.runDir),
			node.SocketParam(&a.socket),
		},
		Actions: []ocf.Action{
			{Verb: ocf.Start, Timeout: shortTimeout, Do: a.start},
			{Verb: ocf.Stop, Timeout: shortTimeout, Do: a.stop},
			{Verb: ocf.Monitor, Timeout: shortTimeout, Interval: 10 * time.Second, Do: a.monitor},
			{Verb: ocf.ReloadAgent, Timeout: shortTimeout, Do: a.reload},
			{Verb: ocf.ValidateAll, Timeout: metaTimeout},
			{Verb: ocf.MetaData, Timeout: metaTimeout},
		},
	}
}
