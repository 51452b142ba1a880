package managed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keepone-ha/keepone/pkg/clock"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/op"
)

// Attributes are a cluster manager's own, of this node, until it leaves the cluster.
type Attributes interface {
	Set(ctx context.Context, name, value string) error
	Delete(ctx context.Context, name string) error
}

const (
	publishLimit = 5 * time.Second
	// publishAnew says all of it again: Pacemaker's attrd takes a value, and may die before any other node has it.
	publishAnew  = 5 * time.Minute
	publishAgain = 2 * time.Second // after an attribute could not be set, and to see what has gone stale
)

// published is what the agents on this node asked to be published. It outlives the daemon, not the node.
type published struct {
	Elections  bool
	Held       bool                        // of the elections what this node holds, though the controller was stopped
	Promotions map[core.ServiceName]string // attribute that is the promotion score
}

// Publisher tells the cluster manager, at once, what this node may do.
type Publisher struct {
	able  func() map[core.ServiceName]core.Able // of every service, now
	holds func(core.ServiceName) bool           // this node, now
	log   *slog.Logger
	to    Attributes
	keep  Store
	again chan struct{} // 1
	begun atomic.Bool   // see Loop

	mu     sync.Mutex
	wanted published
	sent   map[string]string // what each attribute was set to last
	said   time.Time         // when all of it was last due
}

// Store keeps what is to be published, as one: a daemon that ends half-way leaves the old or the new.
type Store interface {
	Load() ([]byte, error) // fs.ErrNotExist: nothing was kept
	Save(text []byte) error
}

// NewPublisher goes on with what the store has.
func NewPublisher(
	keep Store, to Attributes, log *slog.Logger, able func() map[core.ServiceName]core.Able, holds func(core.ServiceName) bool,
) *Publisher {
	p := &Publisher{able: able, holds: holds, log: log, to: to, keep: keep, again: make(chan struct{}, 1)}
	text, err := keep.Load()
	if err == nil {
		err = json.Unmarshal(text, &p.wanted)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.wanted = published{}
		log.Error("what to publish can't be read: nothing is, until the cluster manager's controller resource is restarted", "err", err)
	}
	return p
}

// Again has it publish now.
func (p *Publisher) Again() {
	select {
	case p.again <- struct{}{}:
	default:
	}
}

// Change begins or ends publishing; Push does it.
func (p *Publisher) Change(ask op.Publish) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := published{Elections: p.wanted.Elections, Held: p.wanted.Held, Promotions: map[core.ServiceName]string{}}
	for name, attribute := range p.wanted.Promotions {
		w.Promotions[name] = attribute
	}
	switch {
	case ask.Service == "":
		w.Elections, w.Held = !ask.Off, ask.Off
	case ask.Off:
		delete(w.Promotions, ask.Service)
	default:
		w.Promotions[ask.Service] = ask.Promotion
	}
	text, err := json.Marshal(w)
	if err == nil {
		err = p.keep.Save(text)
	}
	if err != nil {
		return fmt.Errorf("note what to publish: %w", err)
	}
	left := p.wanted
	p.wanted = w
	p.suspect()
	p.forget(left)
	return nil
}

// unknown is the value of an attribute that another may have set, an earlier daemon or nobody, and of one whose last
// change was not answered.
const unknown = "?"

// suspect forgets what was set: what is wanted no longer is deleted even if this daemon never set it.
func (p *Publisher) suspect() {
	p.sent = map[string]string{}
	if p.wanted.Held {
		p.doubt()
	}
	for _, attribute := range p.wanted.Promotions {
		p.sent[attribute] = unknown
	}
}

// forget marks what is published no longer for deletion.
func (p *Publisher) forget(left published) {
	if left.Elections && !p.wanted.Elections {
		p.doubt()
	}
	for name, attribute := range left.Promotions {
		if p.wanted.Promotions[name] != attribute {
			p.sent[attribute] = unknown
		}
	}
}

// doubt has every service's attribute set anew or deleted.
func (p *Publisher) doubt() {
	for name := range p.able() {
		p.sent[core.ElectionAttribute(name)] = unknown
	}
}

// Loop publishes whatever changes. It begins once this node's State is as new as its leader's: what a daemon that has
// just started believes of a holder is old, or nothing, and would have its service moved.
func (p *Publisher) Loop(ctx context.Context) {
	p.Begin()
	for ctx.Err() == nil {
		if err := p.Push(ctx); err != nil && ctx.Err() == nil {
			p.log.Warn("attributes are not published; trying again", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-p.again:
		case <-time.After(publishAgain):
		}
	}
}

// Begin lets it publish, see Loop.
func (p *Publisher) Begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.suspect()
	p.begun.Store(true)
}

// Push sets what has changed since it was set last, and deletes what is wanted no longer.
func (p *Publisher) Push(ctx context.Context) error {
	ctx, cancel := clock.WithTimeout(ctx, publishLimit)
	defer cancel()
	if !p.begun.Load() {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := clock.Now(ctx); now.Sub(p.said) >= publishAnew {
		p.said = now
		for name := range p.sent { // what is still to be deleted stays so
			p.sent[name] = unknown
		}
		for _, attribute := range p.wanted.Promotions {
			p.sent[attribute] = unknown
		}
	}
	want := p.values()
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(want)) {
		value := want[name]
		if p.sent[name] == value {
			continue
		}
		p.sent[name] = unknown // until it is said to be done: one that timed out may have been, or not
		if err := p.to.Set(ctx, name, value); err != nil {
			errs = append(errs, err)
			continue
		}
		p.sent[name] = value
	}
	for _, name := range slices.Sorted(maps.Keys(p.sent)) {
		if _, ok := want[name]; ok {
			continue
		}
		p.sent[name] = unknown
		if err := p.to.Delete(ctx, name); err != nil {
			errs = append(errs, err)
			continue
		}
		delete(p.sent, name)
	}
	return errors.Join(errs...)
}

// values are the attributes as they should be. A promotion score that is missing promotes nobody. A service that this
// node holds keeps its attribute when the controller is stopped: Pacemaker would stop what runs well without.
func (p *Publisher) values() map[string]string {
	want := map[string]string{}
	for name, a := range p.able() {
		if p.wanted.Elections || p.wanted.Held && p.holds(name) {
			want[core.ElectionAttribute(name)] = strconv.Itoa(a.Score)
		}
		if attribute := p.wanted.Promotions[name]; attribute != "" && a.OK {
			want[attribute] = strconv.Itoa(a.Score)
		}
	}
	return want
}
