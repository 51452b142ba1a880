package release

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/keepone-ha/keepone/pkg/core"
)

// Mapper is what a service's mapper says of itself in mapper.json.
type Mapper struct {
	Process           // its own
	Address    string // storage client address IP:0/NONCE
	Device     string // /dev/loopN or /dev/rbdN
	Connection uint32 // FUSE connection: minor of the mount's st_dev; 0 for a kernel mapping
	Image      string // pool[/namespace]/image
}

// MapperExit is what a mapper says in mapper-exit.json as its last act. Without it, or with any other content
// than flushed, unlocked and no error, the volume was not vacated.
type MapperExit struct {
	Process         // its own: an old file says nothing about a new mapper
	Flushed  bool   `json:"flushed"`  // everything that it had acknowledged is in the cluster (I8)
	Unlocked bool   `json:"unlocked"` // it gave up the exclusive lock itself
	IOErrors uint64 `json:"ioErrors"` // of reads, writes, flushes and discards, ever
}

// Clean reports whether the mapper left nothing behind.
func (e MapperExit) Clean() bool { return e.Flushed && e.Unlocked && e.IOErrors == 0 }

// SaveMapper writes mapper.json for the calling process and takes an older mapper's exit away. The mapper calls it
// before it opens the image, so that one that dies with the lock is known to have been there, and again with each
// thing learned: address, connection, device.
func SaveMapper(runDir string, service core.ServiceName, m Mapper) error {
	dir := Dir(runDir, service)
	if err := os.Remove(filepath.Join(dir, "mapper-exit.json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove old mapper exit: %w", err)
	}
	self, err := Self()
	if err != nil {
		return fmt.Errorf("save mapper: %w", err)
	}
	m.Process = self
	return saveJSON(filepath.Join(dir, "mapper.json"), m)
}

// SaveMapperExit writes mapper-exit.json for the calling process. Nothing may touch the image after it.
func SaveMapperExit(runDir string, service core.ServiceName, e MapperExit) error {
	self, err := Self()
	if err != nil {
		return fmt.Errorf("save mapper exit: %w", err)
	}
	e.Process = self
	return saveJSON(filepath.Join(Dir(runDir, service), "mapper-exit.json"), e)
}

// LoadMapper reads mapper.json; fs.ErrNotExist if no mapper ever wrote it.
func LoadMapper(runDir string, service core.ServiceName) (Mapper, error) {
	var m Mapper
	return m, loadJSON(filepath.Join(Dir(runDir, service), "mapper.json"), &m)
}

// LoadMapperExit reads mapper-exit.json; fs.ErrNotExist if no mapper ended cleanly.
func LoadMapperExit(runDir string, service core.ServiceName) (MapperExit, error) {
	var e MapperExit
	return e, loadJSON(filepath.Join(Dir(runDir, service), "mapper-exit.json"), &e)
}

func saveJSON(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", filepath.Base(path), err)
	}
	if err := writeWhole(path, text); err != nil {
		return fmt.Errorf("save %s: %w", filepath.Base(path), err)
	}
	return nil
}

func loadJSON(path string, v any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("load %s: %w", filepath.Base(path), err)
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("decode %s: %w", filepath.Base(path), err)
	}
	return nil
}
