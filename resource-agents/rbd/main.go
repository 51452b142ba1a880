// Command rbd is the resource agent ocf:keepone:rbd: a promotable clone in the place of ocf:linbit:drbd. Promoted
// means that this node holds the grant and the storage's lock, and that the volume is a block device here.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/keepone-ha/keepone/pkg/ocf"
	"github.com/keepone-ha/keepone/pkg/ocf/node"
	"github.com/keepone-ha/keepone/pkg/ocf/rbd"
)

func main() { os.Exit(execute()) }

func execute() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return int(rbd.New(node.Open).Run(ctx, ocf.Process()))
}
