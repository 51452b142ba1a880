package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Memory is what agents keep from one action to the next. It dies with the node, as do Pacemaker's own transient
// attributes.
type Memory interface {
	Keep(name string, text []byte) error // as a whole
	Kept(name string) ([]byte, error)    // fs.ErrNotExist: nothing was
	Drop(name string) error
}

// files is a Memory of one small file for each name, in the run directory.
type files string

func (d files) path(name string) string { return filepath.Join(string(d), "ocf", name+".json") }

func (d files) Keep(name string, text []byte) error {
	path := d.path(name)
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

func (d files) Kept(name string) ([]byte, error) { return os.ReadFile(d.path(name)) }

func (d files) Drop(name string) error { return os.Remove(d.path(name)) }

// Remember keeps v under a name.
func (n Node) Remember(name string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	return n.Memory.Keep(name, text)
}

// Recall reads what was kept; false: nothing was.
func (n Node) Recall(name string, v any) (bool, error) {
	text, err := n.Memory.Kept(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("recall: %w", err)
	}
	if err := json.Unmarshal(text, v); err != nil {
		return false, fmt.Errorf("recall %s: %w", name, err)
	}
	return true, nil
}

// Forget drops it.
func (n Node) Forget(name string) error {
	if err := n.Memory.Drop(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget: %w", err)
	}
	return nil
}
