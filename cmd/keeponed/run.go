package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/keepone-ha/keepone/pkg/app"
	"github.com/keepone-ha/keepone/pkg/config"
	"github.com/keepone-ha/keepone/pkg/replica"
	"github.com/keepone-ha/keepone/pkg/version"
)

// The exit codes of keeponed. systemd restarts it after any of them but exitUsage.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
	exitDisk   = 6 // the disk under the data directory is full or failed
	exitHalt   = 7 // the cluster committed what this version does not know
)

var errUsage = errors.New("usage: keeponed [--node-file FILE] [recover] | keeponed helper NAME | keeponed --version")

func exitCode(err error) int {
	var command commandFailed
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &command):
		return command.ExitCode()
	case errors.Is(err, errUsage):
		return exitUsage
	case errors.Is(err, replica.ErrDisk):
		return exitDisk
	case errors.Is(err, replica.ErrHalt):
		return exitHalt
	}
	return exitFailed
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	if len(args) > 0 && args[0] == "helper" {
		return runHelper(ctx, args[1:], stdin, stdout, stderr)
	}
	flags := flag.NewFlagSet("keeponed", flag.ContinueOnError)
	flags.SetOutput(stderr)
	path := flags.String("node-file", config.NodePath, "the node `file`")
	show := flags.Bool("version", false, "print the version and end")
	err := flags.Parse(args)
	recovery := flags.NArg() == 1 && flags.Arg(0) == "recover" // see keepone recover
	if err != nil || (flags.NArg() > 0 && !recovery) {
		return errUsage
	}
	if recovery {
		return runRecover(*path, stdout)
	}
	if *show {
		_, err := fmt.Fprintf(stdout, "keeponed %s (%s)\n", version.Version, version.Commit)
		return err
	}
	file, err := config.LoadNode(*path)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: file.Log}))
	return serve(ctx, file, log, stderr)
}

// serve runs the daemon until ctx ends, or it must end by itself.
func serve(ctx context.Context, file config.NodeFile, log *slog.Logger, stderr io.Writer) error {
	// The daemon waits nearly all the time. On one processor at a time it wakes no second thread to look for work,
	// which at rest would cost as much as the work. Calls into the kernel still run side by side.
	runtime.GOMAXPROCS(1)
	binary, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own binary: %w", err)
	}
	a, err := app.New(app.Options{File: file, Binary: binary, Log: log, Stderr: stderr, Turn: petSystemd})
	if err != nil {
		return err
	}
	if err := a.Start(ctx); err != nil {
		return err
	}
	log.Info("ready", "node", string(file.Name), "version", version.Version)
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		log.Warn("tell systemd that the daemon is ready", "err", err)
	}
	select {
	case <-ctx.Done():
		log.Info("stopping; containers stay")
		a.Stop()
		return nil
	case err := <-a.Fatal():
		a.Stop()
		return err
	}
}

// petSystemd tells systemd's watchdog that the daemon goes round. Without one it does nothing.
func petSystemd() { _, _ = daemon.SdNotify(false, daemon.SdNotifyWatchdog) }
