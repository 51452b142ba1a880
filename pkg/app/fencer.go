package app

import (
	"context"
	"sync"
	"time"

	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/drive/ipmi"
	"github.com/keepone-ha/keepone/pkg/fence"
)

const (
	proposeLimit = 3 * time.Second
	readLimit    = 2 * time.Second
	readAgain    = 200 * time.Millisecond
	watchBMC     = 30 * time.Second
)

// fencer carries out the fences whose executor this node is, each attempt once.
type fencer struct {
	app     *App
	running sync.WaitGroup

	mu   sync.Mutex
	done map[uint64]int // the newest attempt begun, by fence
}

func openBMC(unseal func(string) (string, error)) func(core.NodeName, core.BMCSpec) (fence.Handle, error) {
	return func(_ core.NodeName, spec core.BMCSpec) (fence.Handle, error) {
		return ipmi.New(ipmi.Config{
			Address: spec.Address, User: spec.User, CipherSuite: spec.CipherSuite,
			Password: func() (string, error) { return unseal(spec.Password) },
		})
	}
}

// loop follows State for as long as ctx lives.
func (f *fencer) loop(ctx context.Context) {
	defer f.running.Wait()
	for {
		state, changed := f.app.replica.Watch()
		f.app.bmcs.Update(state.Spec.Nodes)
		for _, order := range state.Fences {
			if order.State == core.FenceRequested && order.Executor == f.app.file.Name && f.begin(order) {
				f.running.Go(func() { f.attempt(ctx, order) })
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// begin reports whether this attempt is new here.
func (f *fencer) begin(order core.Fence) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.done[order.ID] >= order.Attempt {
		return false
	}
	f.done[order.ID] = order.Attempt
	return true
}

// attempt runs one attempt and proposes what it proved. An outcome that is unknown is asked again by the leader's
// next attempt: a proof is a reading and can be read again.
func (f *fencer) attempt(ctx context.Context, order core.Fence) {
	a := f.app
	log := a.log.With("fence", order.ID, "node", string(order.Node), "attempt", order.Attempt)
	log.Info("fencing", "reason", order.Reason, "shoot", order.Shoot)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	state := a.replica.State()
	parts := fence.Parts{Storage: a.storage, Now: a.replica.Now, Proved: func(p core.Proof) {
		log.Info("proof", "proof", string(p.Kind), "reading", p.Reading)
		f.propose(ctx, core.AddProof{Fence: order.ID, Proof: p})
	}}
	var guid string
	if bmc, expected, err := a.bmcs.BMC(order.Node); err == nil {
		parts.BMC, guid = bmc, expected
	}
	targets := fence.Targets(state, order)
	if len(targets) == 0 && !order.Whole {
		return // its grants have ended otherwise: without a target an attempt would be after the whole node
	}
	f.running.Go(func() { f.follow(ctx, cancel, order) })
	result := fence.Attempt(ctx, fence.Order{
		Node: order.Node, Instance: order.Instance, By: string(a.file.Name), Targets: targets,
		Shoot: order.Shoot, Whole: order.Whole, GUID: guid, Proofs: order.Proofs, LeaseEnded: f.leaseEnded(ctx, order.ID),
		Gap: state.Spec.Timing.OffReadings,
	}, parts)
	log.Info("fencing ended", "confirmed", result.Confirmed, "note", result.Note)
	if !result.Confirmed && ctx.Err() == nil {
		f.propose(ctx, core.EndAttempt{Fence: order.ID, Attempt: order.Attempt, Note: result.Note})
	}
}

// follow ends an attempt whose order is no longer the one that it began with: a power-off must never outlive it.
func (f *fencer) follow(ctx context.Context, cancel func(), order core.Fence) {
	for ctx.Err() == nil {
		state, changed := f.app.replica.Watch()
		if !fence.Stands(state, order) {
			cancel()
			return
		}
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
}

func (f *fencer) propose(ctx context.Context, c core.Command) {
	ctx, cancel := context.WithTimeout(ctx, proposeLimit)
	defer cancel()
	if outcome, err := f.app.replica.Propose(ctx, c); outcome != core.Done {
		f.app.log.Warn("not committed", "command", c.Kind(), "outcome", outcome.String(), "err", err)
	}
}

// leaseEnded is closed when State says that the leases of all targets are over.
func (f *fencer) leaseEnded(ctx context.Context, id uint64) <-chan struct{} {
	ended := make(chan struct{})
	f.running.Go(func() {
		for {
			now, changed := f.app.replica.Watch()
			if fence.LeasesOver(now, id) {
				close(ended)
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-changed:
			}
		}
	})
	return ended
}

// suspects reads the power of nodes that fell silent, each by one goroutine at a time.
type suspects struct {
	app     *App
	reading sync.WaitGroup

	mu   sync.Mutex
	busy map[core.NodeName]bool
}

// look begins to read the power of whoever is silent now. It orders nothing; off, read twice, is a proof.
func (s *suspects) look(ctx context.Context, state core.State) {
	for name, instance := range s.app.observer.Suspects(state, boottime.Now()) {
		if state.Nodes[name].Life == core.LifeFenced || !s.begin(name) {
			continue
		}
		s.reading.Go(func() {
			defer s.end(name)
			s.app.readSuspect(ctx, state, name, instance)
		})
	}
}

func (s *suspects) begin(name core.NodeName) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[name] {
		return false
	}
	s.busy[name] = true
	return true
}

func (s *suspects) end(name core.NodeName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.busy, name)
}

func (a *App) readSuspect(ctx context.Context, state core.State, name core.NodeName, instance core.Instance) {
	began := boottime.Now()
	bounded, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	proof, err := a.bmcs.ReadOff(bounded, name, state.Spec.Timing.OffReadings)
	if err == nil {
		proof.Instance, proof.By, proof.At = instance, string(a.file.Name), a.replica.Now()
		a.observer.ReadOff(name, began, proof)
	} else {
		a.log.Debug("read power of a silent node", "node", string(name), "err", err)
	}
	select {
	case <-ctx.Done():
	case <-time.After(readAgain):
	}
}
