package takeovertest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/keepone-ha/keepone/pkg/activate/takeover"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/worker"
)

// Fake is an RBD image in memory with what matters to a take-over: a lock that stops nobody's writes by itself,
// a blocklist, and OSDs that learn of it only from a client that knows it, one for each block.
type Fake struct {
	mu        sync.Mutex
	epoch     core.Epoch
	osdmap    uint64
	blocklist map[string]uint64 // address → osdmap epoch that brought it
	owner     string
	watchers  []string
	clients   int
	osds      [8]struct {
		osdmap uint64
		value  string
	}
}

// NewFake returns a fresh image that nobody holds.
func NewFake(*testing.T) World { return &Fake{osdmap: 1, blocklist: map[string]uint64{}} }

// Control implements World.
func (f *Fake) Control(*testing.T) takeover.Image { return &fakeControl{f: f} }

// Holder implements World.
func (f *Fake) Holder(*testing.T) Holder {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.clients++
	h := &fakeHolder{f: f, address: fmt.Sprintf("127.0.0.1:0/%d", f.clients), osdmap: f.osdmap}
	f.watchers = append(f.watchers, h.address)
	return h
}

func (f *Fake) raise(to core.Epoch) core.Epoch {
	f.epoch = max(f.epoch, to)
	return f.epoch
}

type fakeControl struct{ f *Fake }

func (c *fakeControl) RaiseEpoch(_ context.Context, to core.Epoch) (core.Epoch, error) {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	return c.f.raise(to), nil
}

func (c *fakeControl) Clients(context.Context) (takeover.Clients, error) {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	clients := takeover.Clients{Watchers: slices.DeleteFunc(slices.Clone(c.f.watchers), func(a string) bool { return c.f.blocklist[a] > 0 })}
	if c.f.owner != "" {
		clients.Owners = []string{c.f.owner}
	}
	return clients, nil
}

func (c *fakeControl) Blocklist(_ context.Context, addresses []string) (uint64, error) {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	c.f.osdmap++
	for _, a := range addresses {
		if c.f.blocklist[a] == 0 {
			c.f.blocklist[a] = c.f.osdmap
		}
	}
	return c.f.osdmap, nil
}

func (c *fakeControl) Break(_ context.Context, owner string) error {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	if c.f.owner == owner {
		c.f.owner = ""
	}
	return nil
}

type fakeHolder struct {
	f       *Fake
	address string
	osdmap  uint64
	locked  bool // as it believes itself
}

func (h *fakeHolder) Address() string { return h.address }

func (h *fakeHolder) Barrier(context.Context) error {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	h.osdmap = h.f.osdmap
	return nil
}

func (h *fakeHolder) cut() bool { return h.f.blocklist[h.address] > 0 }

func (h *fakeHolder) Lock(context.Context) error {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	switch {
	case h.cut():
		return &worker.Failure{Code: worker.CodeBlocklisted, Message: "this client has been cut off"}
	case h.f.owner != "" && h.f.owner != h.address:
		return &worker.Failure{Code: worker.CodeImageStranger, Message: "locked by " + h.f.owner}
	}
	h.f.owner, h.locked = h.address, true
	return nil
}

func (h *fakeHolder) Unlock(context.Context) error {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	if h.f.owner == h.address {
		h.f.owner = ""
	}
	h.locked = false
	return nil
}

func (h *fakeHolder) RaiseEpoch(_ context.Context, to core.Epoch) (core.Epoch, error) {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	if h.cut() {
		return 0, unix.ESHUTDOWN
	}
	return h.f.raise(to), nil
}

// reach is one operation on one OSD: it takes the newer map of the two first.
func (h *fakeHolder) reach(index int) error {
	osd := &h.f.osds[index]
	osd.osdmap = max(osd.osdmap, h.osdmap)
	if at := h.f.blocklist[h.address]; at > 0 && osd.osdmap >= at {
		return unix.ESHUTDOWN
	}
	return nil
}

func (h *fakeHolder) Write(index int, value string) error {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	if !h.locked {
		return unix.EROFS
	}
	if err := h.reach(index); err != nil {
		return err
	}
	h.f.osds[index].value = value
	return nil
}

func (h *fakeHolder) Read(index int) (string, error) {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	return h.f.osds[index].value, h.reach(index)
}
