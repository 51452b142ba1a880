package release

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// LeavingFile in the run directory says that this life of the node is about to end: nothing is started here any
// more. It dies with the node; whoever calls a shutdown off removes it.
const LeavingFile = "leaving"

// Leave says that the node is about to go down.
func Leave(runDir string) error {
	if err := os.MkdirAll(runDir, 0o755); err != nil {
		return fmt.Errorf("make run directory: %w", err)
	}
	if err := writeNew(filepath.Join(runDir, LeavingFile), nil); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("say that the node goes down: %w", err)
	}
	return nil
}

// Leaving reports whether the node is about to go down. What can't be told counts as no: a node that serves nobody
// for a file that it can't read would be worse than one start too many.
func Leaving(runDir string) bool {
	_, err := os.Stat(filepath.Join(runDir, LeavingFile))
	return err == nil
}
