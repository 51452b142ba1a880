package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/keepone-ha/keepone/pkg/api"
	"github.com/keepone-ha/keepone/pkg/op"
)

// recoverLimit bounds the replay of a log and one snapshot on a slow disk.
const recoverLimit = 2 * time.Minute

func (c *cli) recoverCommand() *cobra.Command {
	return &cobra.Command{
		Use: "recover", Short: "Go on with this node alone, once a majority is gone for ever",
		Long: "Recover makes this node the only voter of its cluster. It works on the log while keeponed is stopped, and is\n" +
			"refused while it runs. Members that are left follow it when they are started; those that are gone must never\n" +
			"come back with their old data. Say it on the node that was up last: what only the others knew is lost.\n" +
			"Grants stand: a holder that is not heard is fenced, or confirmed off, before its service goes on.",
		RunE: func(cmd *cobra.Command, _ []string) error { return c.recover(cmd.Context()) },
	}
}

// recover has the daemon's binary do it: this program does not know Raft.
func (c *cli) recover(ctx context.Context) error {
	node, err := c.places()
	if err != nil {
		return err
	}
	var any json.RawMessage
	if err := c.look(ctx, op.MethodLook, struct{}{}, &any); !errors.Is(err, api.ErrNoDaemon) {
		return fmt.Errorf("%w: keeponed runs on this node. If keepone status shows a quorum, nothing is to be recovered; "+
			"if a majority is gone for ever: systemctl stop keeponed, then say it again", errRefused)
	}
	if _, err := os.Stat(filepath.Join(node.DataDir, "raft", "raft.db")); err != nil {
		return fmt.Errorf("%w: this node has no log of a cluster: %w", errRefused, err)
	}
	name := string(node.Name)
	if name == "" {
		name = "this node"
	}
	if err := c.confirm(fmt.Sprintf("The cluster goes on with %s alone. Make sure that a majority of the other members is gone "+
		"for ever, that keeponed is stopped on those that are left, and that none that is gone is ever started again with its "+
		"old data: two clusters would be one too many.", name)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, recoverLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, daemonBinary(), "--node-file", c.nodeFile, "recover")
	cmd.Stdout, cmd.Stderr = c.out, c.err
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w: keeponed recover: %w; nothing runs by it yet, and it may be said again", errFailed, err)
	}
	c.printf(`Done. What comes next:
  1. systemctl start keeponed                  this node leads within seconds
  2. keepone status                            if a holder is gone: keepone fence confirm NODE, once it is surely off
  3. keepone node remove NODE                  for each member that is gone for ever; then out of the cluster document
  4. systemctl start keeponed                  on each member that is left: it follows this one
  5. keepone node add NAME, keepone join       for new nodes, until there are three again
`)
	return nil
}

// daemonBinary is the keeponed beside this program, else the one on the path.
func daemonBinary() string {
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), "keeponed")
		if _, err := os.Stat(beside); err == nil {
			return beside
		}
	}
	return "keeponed"
}
