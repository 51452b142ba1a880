// Package corosync reads what corosync says of its membership: quorum, members, links, and the timing that it runs
// with. It changes nothing. Parsers are pure; whatever asks corosync is bounded.
package corosync

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keepone-ha/keepone/pkg/drive"
)

// ErrNotRunning: corosync does not answer on this node.
var ErrNotRunning = errors.New("corosync does not answer on this node: `systemctl status corosync`, `systemctl start corosync`")

// askBound is for one answer of corosync's tools: 35 ms on a quiet machine. They talk to this node's daemon alone, and
// one that hangs must not hang who asks.
const askBound = 5 * time.Second

// notQuorate is how corosync-quorumtool -s ends without quorum (corosync-quorumtool(8)).
const notQuorate = 2

// ReadQuorum asks for quorum and members. Not quorate is an answer, no error.
func ReadQuorum(ctx context.Context) (Quorum, error) {
	out, err := ask(ctx, "corosync-quorumtool", "-s", "-p")
	if err != nil {
		return Quorum{}, fmt.Errorf("read corosync's quorum: %w", err)
	}
	return ParseQuorum(out)
}

// ReadTotem asks for the timing that corosync runs with, which is the file's only after it was read again.
func ReadTotem(ctx context.Context) (Totem, error) {
	out, err := ask(ctx, "corosync-cmapctl")
	if err != nil {
		return Totem{}, fmt.Errorf("read corosync's timing: %w", err)
	}
	return ParseTotem(out)
}

// ask runs a tool. An exit code other than 0 with an answer is that of a cluster that is not well, not of a failure:
// the answer says so itself.
func ask(ctx context.Context, argv ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askBound)
	defer cancel()
	out, err := drive.Answer(ctx, argv...)
	var fail *drive.Error
	switch {
	case err == nil, errors.As(err, &fail) && fail.Code == notQuorate && len(out) > 0:
		return out, nil
	case fail != nil && fail.Code > 0:
		return nil, fmt.Errorf("%w: %w", ErrNotRunning, err)
	}
	return nil, err
}
