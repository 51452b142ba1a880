// Command keepone-frontend stands in for an OpenNebula front-end inside a lab's container: it answers the two
// XML-RPC calls that a probe makes (port 2633) and a page for a simpler one, and appends records that it acknowledges only when they are on
// disk (port 2634).
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := serve(ctx, "/var/lib/one")
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "keepone-frontend: %v\n", err)
		os.Exit(1)
	}
}
