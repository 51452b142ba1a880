package fence

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/keepone-ha/keepone/pkg/core"
)

// SettingsFile is where the daemon leaves the settings below its data directory, for root alone.
const SettingsFile = "fence-cache.json"

// Settings are what fencing needs of the cluster document when no daemon can be asked. Passwords in it are sealed:
// only the node's own key opens them.
type Settings struct {
	Version uint64 // of the document
	Timing  core.Timing
	Nodes   []core.NodeSpec
}

// SettingsOf takes them from State. Equal States give equal settings.
func SettingsOf(state core.State) Settings {
	return Settings{Version: state.Document.Version, Timing: state.Spec.Timing, Nodes: state.Spec.Nodes}
}

// Encode gives the text of the file.
func (s Settings) Encode() ([]byte, error) { return json.Marshal(s) }

// Node returns a node of the document, or nil.
func (s Settings) Node(name core.NodeName) *core.NodeSpec {
	if i := slices.IndexFunc(s.Nodes, func(n core.NodeSpec) bool { return n.Name == name }); i >= 0 {
		return &s.Nodes[i]
	}
	return nil
}

// maxSettings bounds what is read: fifteen nodes take 10 KiB.
const maxSettings = 1 << 20

// LoadSettings reads what the daemon of this node left. A file that others than its owner may read or write is refused.
func LoadSettings(dataDir string) (Settings, error) {
	var s Settings
	path := filepath.Join(dataDir, SettingsFile)
	f, err := os.Open(path)
	if err != nil {
		return s, fmt.Errorf("load fencing settings: %w; keeponed writes them once it has seen the cluster document", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return s, fmt.Errorf("load fencing settings: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return s, fmt.Errorf("load fencing settings: %s is open to others (%s): remove it, keeponed writes it anew when it starts", path, info.Mode())
	}
	text, err := io.ReadAll(io.LimitReader(f, maxSettings))
	if err != nil {
		return s, fmt.Errorf("load fencing settings: %w", err)
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return s, fmt.Errorf("load fencing settings: %s: %w", path, err)
	}
	return s, nil
}
