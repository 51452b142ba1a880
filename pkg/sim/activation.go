package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keepone-ha/keepone/pkg/activate/takeover"
	"github.com/keepone-ha/keepone/pkg/agent"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/release"
	"github.com/keepone-ha/keepone/pkg/worker"
)

var (
	errLease   = errors.New("no live lease for this grant")
	errBuried  = errors.New("stopped meanwhile")
	errTime    = errors.New("not up within its start limit")
	errRevoked = errors.New("its grant is wanted back")
	errDevice  = errors.New("input/output error")
)

// ready stands before each step (I4, I7).
func (r *runner) ready(s *span, g core.Grant) error {
	switch {
	case !r.wanted(g):
		return errRevoked
	case s.Err() != nil:
		return errTime
	case r.h.isBuried(g.Epoch, g.Run):
		return errBuried
	case !r.n.leased(r.h.name, g.Epoch):
		return errLease
	}
	return nil
}

// bring takes the steps of one activation, until the container's init runs.
func (r *runner) bring(p *process, s *span, state core.State, g core.Grant, mounted bool) error {
	p.await(s.until-p.w.now, func() bool { return r.n.leased(r.h.name, g.Epoch) || !r.wanted(g) })
	p.await(s.until-p.w.now, func() bool { return !r.h.stopping })
	if err := r.ready(s, g); err != nil {
		return err
	}
	h := r.h
	if mounted {
		if !h.mounted {
			return errors.New("the volume is not mounted")
		}
		h.rec.Attempt, h.rec.Marks = g.Run, release.Marks{}
	} else {
		if h.has && !h.facts().Idle() {
			return fmt.Errorf("an earlier attempt of %s is not taken down", h.name)
		}
		h.has, h.client, h.mounted = true, nil, false
		h.rec = release.Record{Service: h.name, Epoch: g.Epoch, Instance: g.Instance, Attempt: g.Run, StopLimit: state.Spec.Service(h.name).StopLimit}
		if err := r.volume(p, s, state, g); err != nil {
			return err
		}
	}
	if g.Stage == core.StagePromoted {
		return nil
	}
	p.sleep(p.w.between(50*time.Millisecond, 300*time.Millisecond))
	if err := r.ready(s, g); err != nil {
		return err
	}
	if r.n.wrong.container.failing {
		return errors.New("the container's start failed half way")
	}
	h.start()
	return r.ready(s, g)
}

// volume maps the image, waits until the client's address is committed, and mounts.
func (r *runner) volume(p *process, s *span, state core.State, g core.Grant) error {
	h, img := r.h, p.w.image(r.h.name)
	h.rec.Storage.Kept = g.Staged
	if err := r.ready(s, g); err != nil {
		return err
	}
	if !p.w.net.reachesCeph(r.n) {
		p.sleep(cephTimeout)
		return &worker.Failure{Code: worker.CodeCephAway, Message: "Ceph does not answer"}
	}
	h.client = p.w.ceph.open(r.n, img, g.Epoch)
	if err := r.acquire(p, s, state, g); err != nil {
		h.client.close()
		return err
	}
	h.rec.Storage.Address, h.rec.Storage.Device = h.client.address, "/dev/"+string(h.name)
	p.w.checks.dirty = true
	p.sleep(p.w.between(10*time.Millisecond, 100*time.Millisecond))
	if err := r.commitClient(p, s, g); err != nil {
		return err
	}
	if g.Staged {
		return r.ready(s, g) // another mounts it
	}
	p.sleep(p.w.between(20*time.Millisecond, 200*time.Millisecond))
	if err := r.ready(s, g); err != nil {
		return err
	}
	return h.mount()
}

// mount checks the file system and mounts it: both read the journal.
func (h *holding) mount() error {
	for k := range objects / 2 {
		if !h.client.alive || !h.client.read(k) {
			return errDevice
		}
	}
	h.mounted = true
	return nil
}

// acquire is what the map helper does: cut off whoever held it, then take it.
func (r *runner) acquire(p *process, s *span, state core.State, g core.Grant) error {
	img := p.w.image(r.h.name)
	if img.epoch > g.Epoch {
		return fmt.Errorf("the image carries epoch %d", img.epoch)
	}
	t := agent.Takeover(state, r.h.name, g.Epoch)
	did, err := takeover.CutOff(p.ctx(s), control{p, s, img, r.h.client.address}, worker.CutOff{
		Epoch: max(g.Epoch, t.Epoch), Addresses: t.Addresses, From: t.From,
	})
	if err != nil {
		return err
	}
	if len(did.Watchers) > 0 {
		return fmt.Errorf("clients of the last holder still watch the image: %v", did.Watchers)
	}
	return takeover.Acquire(p.ctx(s), holder{p, s, r.h.client}, g.Epoch, func(context.Context) error { return r.ready(s, g) })
}

// commitClient commits the address and waits until this node has applied it (I6).
func (r *runner) commitClient(p *process, s *span, g core.Grant) error {
	address := r.h.client.address
	for s.Err() == nil {
		outcome := r.d.propose(p, core.CommitClient{Service: r.h.name, Epoch: g.Epoch, Instance: g.Instance, Address: address}, 5*time.Second)
		if outcome == core.Refused {
			return errors.New("the storage client's address is refused")
		}
		if now := r.d.state().Services[r.h.name].Grant; now != nil && now.Epoch == g.Epoch && slices.Contains(now.Clients, address) {
			return nil
		}
		changed := r.d.changed
		p.await(retryShort, func() bool { return r.d.changed != changed })
	}
	return errTime
}

// untilAnswers probes until the service is healthy.
func (r *runner) untilAnswers(p *process, s *span, g core.Grant) error {
	for {
		switch {
		case r.answers():
			return nil
		case !r.h.runs:
			return errors.New("the container ended before it answered")
		case s.Err() != nil:
			return errTime
		case !r.wanted(g):
			return errRevoked
		}
		p.sleep(50 * time.Millisecond)
	}
}
