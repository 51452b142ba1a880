// Command container is the resource agent ocf:keepone:container: a service's container, alone or with its lock and mount. It starts
// with a grant only, and stops with nothing but the kernel.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/keepone-ha/keepone/pkg/ocf"
	"github.com/keepone-ha/keepone/pkg/ocf/container"
	"github.com/keepone-ha/keepone/pkg/ocf/node"
)

func main() { os.Exit(execute()) }

func execute() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return int(container.New(node.Open).Run(ctx, ocf.Process()))
}
