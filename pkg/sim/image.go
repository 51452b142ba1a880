package sim

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepone-ha/keepone/pkg/activate/takeover"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/worker"
)

// control is an image through the control connection of a process.
type control struct {
	p   *process
	s   *span
	img *image
	own string // the process's own data client, which is nobody to cut off
}

func (c control) RaiseEpoch(_ context.Context, to core.Epoch) (core.Epoch, error) {
	if err := c.p.w.ceph.ask(c.p, c.s, false); err != nil {
		return 0, err
	}
	c.img.epoch = max(c.img.epoch, to)
	return c.img.epoch, nil
}

func (c control) Clients(context.Context) (takeover.Clients, error) {
	if err := c.p.w.ceph.ask(c.p, c.s, false); err != nil {
		return takeover.Clients{}, err
	}
	seen := takeover.Clients{Watchers: slices.DeleteFunc(c.img.clients(), func(a string) bool { return a == c.own })}
	if c.img.owner != "" {
		seen.Owners = []string{c.img.owner}
	}
	return seen, nil
}

func (c control) Blocklist(_ context.Context, addresses []string) (uint64, error) {
	if err := c.p.w.ceph.ask(c.p, c.s, true); err != nil {
		return 0, err
	}
	if c.p.w.ceph.refuses {
		return 0, &worker.Failure{Code: worker.CodeNoCap, Message: "the keyring may not blocklist"}
	}
	epoch := c.p.w.ceph.ban(addresses)
	c.p.w.say("%s blocklists %v at osdmap %d", c.p.n.name, addresses, epoch)
	return epoch, c.p.w.ceph.wait(c.p, c.s, 20*time.Millisecond)
}

func (c control) Break(_ context.Context, owner string) error {
	if err := c.p.w.ceph.ask(c.p, c.s, false); err != nil {
		return err
	}
	if c.img.owner == owner {
		c.img.owner = ""
	}
	return nil
}

// holder is the data client of a process that takes the image.
type holder struct {
	p  *process
	s  *span
	cl *client
}

func (h holder) Barrier(context.Context) error {
	if err := h.p.w.ceph.ask(h.p, h.s, false); err != nil {
		return err
	}
	h.cl.osdmap = h.p.w.ceph.osdmap
	return nil
}

func (h holder) Lock(context.Context) error {
	if err := h.p.w.ceph.ask(h.p, h.s, false); err != nil {
		return err
	}
	switch img := h.cl.img; {
	case !h.cl.alive: // a stop has ended it
		return errDevice
	case h.p.w.ceph.banned(h.cl.address):
		return &worker.Failure{Code: worker.CodeBlocklisted, Message: "this client has been cut off"}
	case img.owner != "" && img.owner != h.cl.address:
		return &worker.Failure{Code: worker.CodeImageStranger, Message: "locked by " + img.owner}
	}
	h.cl.img.owner, h.cl.locked = h.cl.address, true
	return nil
}

func (h holder) Unlock(context.Context) error {
	if err := h.p.w.ceph.ask(h.p, h.s, false); err != nil {
		return err
	}
	if h.cl.img.owner == h.cl.address {
		h.cl.img.owner = ""
	}
	h.cl.locked = false
	return nil
}

func (h holder) RaiseEpoch(_ context.Context, to core.Epoch) (core.Epoch, error) {
	if err := h.p.w.ceph.ask(h.p, h.s, false); err != nil {
		return 0, err
	}
	if h.p.w.ceph.banned(h.cl.address) {
		h.cl.cut = true
		return 0, unix.ESHUTDOWN
	}
	h.cl.img.epoch = max(h.cl.img.epoch, to)
	return h.cl.img.epoch, nil
}
