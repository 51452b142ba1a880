package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/keepone-ha/keepone/pkg/api"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/op"
)

// attributes are a cluster manager's own, of this node, until it leaves the cluster.
type attributes interface {
	Set(ctx context.Context, name, value string) error
	Delete(ctx context.Context, name string) error
}

const (
	publishLimit = 5 * time.Second
	publishAgain = 2 * time.Second // after an attribute could not be set, and to see what has gone stale
)

// electionAttribute says whether the node may hold the service: not defined or below 1, it may not.
func electionAttribute(name core.ServiceName) string { return "keepone-" + string(name) }

// published is what the agents on this node asked to be published. It outlives the daemon, not the node.
type published struct {
	Elections  bool
	Promotions map[core.ServiceName]string // attribute that is the promotion score
}

// publisher tells the cluster manager, at once, what this node may do.
type publisher struct {
	app   *App
	to    attributes
	path  string
	again chan struct{} // 1

	mu     sync.Mutex
	wanted published
	sent   map[string]string // what each attribute was set to last
}

func newPublisher(a *App, to attributes) (*publisher, error) {
	p := &publisher{
		app: a, to: to, path: filepath.Join(a.file.RunDir, "ocf", "published.json"), again: make(chan struct{}, 1), sent: map[string]string{},
	}
	text, err := os.ReadFile(p.path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &p.wanted)
	}
	if err != nil {
		return nil, fmt.Errorf("read what to publish: %w", err)
	}
	return p, nil
}

// opPublish begins or ends publishing.
func (a *App) opPublish(ctx context.Context, _ api.Caller, body json.RawMessage, _ func(any) error) (any, error) {
	var ask op.Publish
	if err := json.Unmarshal(body, &ask); err != nil {
		return nil, api.Refuse("read request: %v", err)
	}
	if err := a.publisher.change(ask); err != nil {
		return nil, err
	}
	return struct{}{}, a.publisher.push(ctx)
}

func (p *publisher) change(ask op.Publish) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := published{Elections: p.wanted.Elections, Promotions: map[core.ServiceName]string{}}
	for name, attribute := range p.wanted.Promotions {
		w.Promotions[name] = attribute
	}
	switch {
	case ask.Service == "":
		w.Elections = !ask.Off
	case ask.Off:
		delete(w.Promotions, ask.Service)
	default:
		w.Promotions[ask.Service] = ask.Promotion
	}
	p.sent = map[string]string{} // what is there now may be another's
	text, err := json.Marshal(w)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(p.path), 0o700)
	}
	if err == nil {
		err = os.WriteFile(p.path, text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("note what to publish: %w", err)
	}
	left := p.wanted
	p.wanted = w
	p.forget(left)
	return nil
}

// forget marks what is published no longer for deletion.
func (p *publisher) forget(left published) {
	if left.Elections && !p.wanted.Elections {
		state := p.app.replica.State()
		for _, name := range state.ServiceNames() {
			p.sent[electionAttribute(name)] = "?"
		}
	}
	for name, attribute := range left.Promotions {
		if p.wanted.Promotions[name] != attribute {
			p.sent[attribute] = "?"
		}
	}
}

// loop publishes whatever changes.
func (p *publisher) loop(ctx context.Context) {
	for ctx.Err() == nil {
		if err := p.push(ctx); err != nil && ctx.Err() == nil {
			p.app.log.Warn("attributes are not published; trying again", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-p.again:
		case <-time.After(publishAgain):
		}
	}
}

// push sets what has changed since it was set last, and deletes what is wanted no longer.
func (p *publisher) push(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, publishLimit)
	defer cancel()
	p.mu.Lock()
	defer p.mu.Unlock()
	want := p.values()
	var errs []error
	for name, value := range want {
		if p.sent[name] == value {
			continue
		}
		if err := p.to.Set(ctx, name, value); err != nil {
			errs = append(errs, err)
			continue
		}
		p.sent[name] = value
	}
	for name := range p.sent {
		if _, ok := want[name]; ok {
			continue
		}
		if err := p.to.Delete(ctx, name); err != nil {
			errs = append(errs, err)
			continue
		}
		delete(p.sent, name)
	}
	return errors.Join(errs...)
}

// values are the attributes as they should be. A promotion score that is missing promotes nobody.
func (p *publisher) values() map[string]string {
	want := map[string]string{}
	able := p.app.abilities.all(p.app.replica.State(), p.app.file.Name, p.app.instance)
	for name, a := range able {
		if p.wanted.Elections {
			want[electionAttribute(name)] = strconv.Itoa(a.Score)
		}
		if attribute := p.wanted.Promotions[name]; attribute != "" && a.OK {
			want[attribute] = strconv.Itoa(a.Score)
		}
	}
	return want
}
