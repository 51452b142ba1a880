// Command controller is the resource agent ocf:keepone:controller, an anonymous clone: it ties keeponed's health on a node, and
// the election that keeponed publishes as node attributes, to Pacemaker.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/keepone-ha/keepone/pkg/ocf"
	"github.com/keepone-ha/keepone/pkg/ocf/controller"
	"github.com/keepone-ha/keepone/pkg/ocf/node"
)

func main() { os.Exit(execute()) }

func execute() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return int(controller.New(node.Open).Run(ctx, ocf.Process()))
}
