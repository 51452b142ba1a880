// Command keepone-guard sends a node's heartbeats, keeps its leases, and contains its services when they end.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/keepone-ha/keepone/pkg/drive/watchdog"
	"github.com/keepone-ha/keepone/pkg/guard"
	"github.com/keepone-ha/keepone/pkg/release"
)

func main() {
	runDir := flag.String("run-dir", release.DefaultRunDir, "directory of guard.conf, records and sockets")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	guard.Harden(log)
	g, err := guard.New(guard.Options{RunDir: *runDir, Log: log, Watchdog: arm})
	if err == nil {
		err = g.Run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "keepone-guard:", err)
		os.Exit(1)
	}
}

func arm(device string, timeout time.Duration) (guard.Watchdog, error) {
	dog, err := watchdog.Open(device, timeout)
	if err != nil {
		return nil, err // not a nil *Dog in the interface
	}
	return dog, nil
}
