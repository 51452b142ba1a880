package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// An agent's memory is one small file in the run directory: it lasts from one action to the next, and dies with the
// node, as do Pacemaker's own transient attributes.

func (n Node) memory(name string) string { return filepath.Join(n.RunDir, "ocf", name+".json") }

// Remember keeps v under a name, as a whole.
func (n Node) Remember(name string, v any) error {
	path := n.memory(name)
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make directory of agents: %w", err)
	}
	if err := os.WriteFile(path+".new", text, 0o644); err != nil {
		return fmt.Errorf("save %s: %w", path, err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("save %s: %w", path, err)
	}
	return nil
}

// Recall reads what was kept; false: nothing was.
func (n Node) Recall(name string, v any) (bool, error) {
	text, err := os.ReadFile(n.memory(name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("recall: %w", err)
	}
	if err := json.Unmarshal(text, v); err != nil {
		return false, fmt.Errorf("recall %s: %w", n.memory(name), err)
	}
	return true, nil
}

// Forget drops it.
func (n Node) Forget(name string) error {
	if err := os.Remove(n.memory(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget: %w", err)
	}
	return nil
}
