package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/keepone-ha/keepone/pkg/config"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/pki"
	"github.com/keepone-ha/keepone/pkg/replica"
)

// runRecover is what `keepone recover` runs once its operator has confirmed it: this node's log goes on alone. The
// lock on the log keeps it from a daemon that runs.
func runRecover(path string, stdout io.Writer) error {
	file, err := config.LoadNode(path)
	if err != nil {
		return err
	}
	id, err := pki.Load(file.DataDir)
	if err != nil {
		return err
	}
	state, err := replica.Recover(replica.Options{
		Self: file.Name, Incarnation: id.Incarnation, DataDir: file.DataDir,
	})
	if err != nil {
		return err
	}
	_, err = io.WriteString(stdout, recovered(state, file.Name))
	return err
}

// recovered says what is gone on with.
func recovered(state core.State, self core.NodeName) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s goes on alone with cluster %s, document version %d.\n", self, state.Spec.Cluster, state.Document.Version)
	for _, name := range state.ServiceNames() {
		svc := state.Services[name]
		if svc.Grant == nil {
			fmt.Fprintf(&b, "  %s: held by nobody, epoch %d\n", name, svc.Epoch)
			continue
		}
		fmt.Fprintf(&b, "  %s: held by %s, epoch %d; if %s is not heard it is fenced before %s goes on\n",
			name, svc.Grant.Node, svc.Epoch, svc.Grant.Node, name)
	}
	return b.String()
}
