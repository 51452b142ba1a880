// Command keepone-lab makes keepone clusters out of namespaces, for a person (up) and for tests (test).
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	_ "github.com/keepone-ha/keepone/test/cases" // the product's cases, demo and bench
	"github.com/keepone-ha/keepone/test/lab"
	_ "github.com/keepone-ha/keepone/test/lab/selftest" // the lab's own cases
	_ "github.com/keepone-ha/keepone/test/vmlab"        // virtual machines for nodes
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := lab.Main(ctx, os.Args, lab.Stdio{Out: os.Stdout, Err: os.Stderr})
	stop()
	os.Exit(code)
}
