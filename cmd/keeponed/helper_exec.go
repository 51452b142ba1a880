package main

import (
	"errors"
	"flag"
	"fmt"
	"io"

	"github.com/keepone-ha/keepone/pkg/drive/lxc"
)

// commandFailed is the exit code of a command that ran in the container. keeponed ends with the same.
type commandFailed int

func (c commandFailed) Error() string { return fmt.Sprintf("the command ended with %d", int(c)) }

// ExitCode is what keeponed ends with.
func (c commandFailed) ExitCode() int { return int(c) }

// helperExec runs a command in a service's container, for exec probes.
func helperExec(args []string, stderr io.Writer) error {
	flags := flag.NewFlagSet("keeponed helper exec", flag.ContinueOnError)
	flags.SetOutput(stderr)
	service := flags.String("service", "", "the service whose container it is")
	volumes := flags.String("volumes", "/var/lib/keepone/volumes", "directory of mount points")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%w: %w", errHelper, err)
	}
	if *service == "" || flags.NArg() == 0 {
		return errors.New("usage: keeponed helper exec --service NAME [--volumes DIR] -- COMMAND [ARG...]")
	}
	code, err := lxc.Exec(*volumes, *service, flags.Args())
	if err != nil {
		return err
	}
	if code != 0 {
		return commandFailed(code)
	}
	return nil
}
