package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/keepone-ha/keepone/pkg/drive"
)

// errNotQuorate is a corosync that does not have a majority, or does not say so.
var errNotQuorate = errors.New("corosync is not quorate on this node")

// corosyncQuorate asks the corosync of this node; nil means that it is quorate. The tool's exit code says the same, but
// changed its meaning over the versions: what it prints counts.
func corosyncQuorate(ctx context.Context) error {
	out, err := drive.Run(ctx, "corosync-quorumtool", "-s")
	if quorate(string(out)) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errNotQuorate, err)
	}
	return errNotQuorate
}

// quorate reads what `corosync-quorumtool -s` prints: exactly one line "Quorate:" that says Yes.
func quorate(text string) bool {
	yes, no := 0, 0
	for line := range strings.Lines(text) {
		value, ok := strings.CutPrefix(line, "Quorate:")
		switch {
		case !ok:
		case strings.TrimSpace(value) == "Yes":
			yes++
		default:
			no++
		}
	}
	return yes == 1 && no == 0
}
