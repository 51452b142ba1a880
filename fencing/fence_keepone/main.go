// Command fence_keepone is the fence agent of Pacemaker and its like, by ClusterLabs' FenceAgentAPI: it has keepone fence a
// node and says so only when the node is proven harmless as a whole.
package main

import (
	"context"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
