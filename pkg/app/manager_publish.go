package app

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/keepone-ha/keepone/pkg/api"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/managed"
	"github.com/keepone-ha/keepone/pkg/op"
)

// publishedFile is what the agents on this node asked to be published. It outlives the daemon, not the node.
type publishedFile string

func newPublisher(
	runDir string, to managed.Attributes, log *slog.Logger, able func() map[core.ServiceName]core.Able, holds func(core.ServiceName) bool,
) *managed.Publisher {
	return managed.NewPublisher(publishedFile(filepath.Join(runDir, "ocf", "published.json")), to, log, able, holds)
}

// Load implements managed.Store.
func (f publishedFile) Load() ([]byte, error) { return os.ReadFile(string(f)) }

// Save implements managed.Store.
func (f publishedFile) Save(text []byte) error {
	if err := os.MkdirAll(filepath.Dir(string(f)), 0o700); err != nil {
		return err
	}
	fresh := string(f) + ".new"
	if err := os.WriteFile(fresh, text, 0o600); err != nil {
		return err
	}
	return os.Rename(fresh, string(f))
}

// opPublish begins or ends publishing.
func (a *App) opPublish(ctx context.Context, _ api.Caller, body json.RawMessage, _ func(any) error) (any, error) {
	var ask op.Publish
	if err := json.Unmarshal(body, &ask); err != nil {
		return nil, api.Refuse("read request: %v", err)
	}
	if err := a.publisher.Change(ask); err != nil {
		return nil, err
	}
	return struct{}{}, a.publisher.Push(ctx)
}
