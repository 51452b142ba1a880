package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/guard"
	"github.com/keepone-ha/keepone/pkg/worker"
)

var errHelper = errors.New("usage: keeponed helper activate|map|blocklist|volume|exec: started by the daemon, not by hand")

// runHelper runs one of the processes that touch Ceph and LXC for the daemon: what hangs there hangs alone.
func runHelper(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		return errHelper
	}
	switch args[0] {
	case "activate":
		return helperActivate(ctx, stdin, stdout)
	case "map":
		return helperMap(ctx, stdin, stdout)
	case "blocklist":
		return helperBlocklist(args[1:], stdin, stdout, stderr)
	case "volume":
		return helperVolume(ctx, stdin, stdout)
	case "exec":
		return helperExec(args[1:], stderr)
	}
	return errHelper
}

// readLine decodes one JSON line and leaves what follows it in the reader.
func readLine(in *bufio.Reader, into any) error {
	line, err := in.ReadBytes('\n')
	if err != nil && len(line) == 0 {
		return fmt.Errorf("read order: %w", err)
	}
	if err := json.Unmarshal(line, into); err != nil {
		return fmt.Errorf("read order: %w", err)
	}
	return nil
}

// asFailure makes of any error what may cross to the caller. What carries no code has an unknown outcome.
func asFailure(err error) *worker.Failure {
	var failure *worker.Failure
	if errors.As(err, &failure) {
		return &worker.Failure{Code: failure.Code, Message: err.Error()}
	}
	return &worker.Failure{Code: worker.CodeUnknown, Message: err.Error()}
}

// guardLease asks this node's guard, which may come up later than this process.
type guardLease struct{ runDir string }

func (g guardLease) Lease(ctx context.Context, service core.ServiceName, epoch core.Epoch) (boottime.Time, bool, error) {
	client, err := guard.Dial(g.runDir)
	if err != nil {
		return 0, false, err
	}
	defer func() { _ = client.Close() }()
	return client.Lease(ctx, service, epoch)
}

// lastToKill asks the kernel to spare this process when memory is short: a killed mapper is a lost volume. Without
// the right to ask it is not asked.
func lastToKill() {
	const spared = -900 // below the containers', above what must live to fence
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte(strconv.Itoa(spared)), 0o600)
}
