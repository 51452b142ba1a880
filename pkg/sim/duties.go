package sim

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/keepone-ha/keepone/pkg/api"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/drive/ipmi"
	"github.com/keepone-ha/keepone/pkg/managed"
	"github.com/keepone-ha/keepone/pkg/op"
)

const (
	publishEvery = 2 * time.Second
	quorumEvery  = 2 * time.Second
	followEvery  = time.Second
	askQuorum    = 1500 * time.Millisecond // what a health answer waits for the leader
	sickAfter    = 10 * time.Second        // a read of a volume that does not end
)

// duties are what a daemon keeps for a cluster manager. All of it is the product's own.
type duties struct {
	claims     *managed.Claims // nil: there is no cluster manager
	able       *managed.Abilities
	publisher  *managed.Publisher
	news       bool // something is to be published
	quorate    *bool
	quorateAt  time.Duration
	maintained bool
}

// serve takes the duties up.
func (d *daemon) serve() {
	d.claims = managed.NewClaims()
	d.able = &managed.Abilities{Changed: func() { d.news = true; d.stir() }}
	d.publisher = managed.NewPublisher(published{d.n}, attributes{d.n}, slog.New(slog.DiscardHandler), d.abilities, d.holds)
	d.run(func(p *process) {
		p.await(forever, func() bool { return d.ready })
		d.publisher.Begin()
		for {
			d.news = false
			_ = d.publisher.Push(p.ctx(p.within(publishEvery))) // what failed is tried again
			p.await(publishEvery, func() bool { return d.news })
		}
	})
}

func (d *daemon) abilities() map[core.ServiceName]core.Able {
	return d.able.All(d.n.read(), *d.state(), d.n.name, d.n.life)
}

// holds reports whether this very life of the node has the service's grant.
func (d *daemon) holds(name core.ServiceName) bool {
	g := d.state().Services[name].Grant
	return g != nil && g.Node == d.n.name && g.Instance == d.n.life
}

// judge answers a member's report with what it may do.
func (d *daemon) judge(of *daemon) {
	if of.able == nil || !d.leads || !d.barrier {
		return
	}
	able := d.verdict(of.n)
	d.n.w.on(of.n, d.n.w.net.latency(d.n, of.n), func() {
		if of.n.daemon == of && !of.hung && d.n.w.net.connected(d.n, of.n) {
			of.able.Set(of.n.read(), able)
		}
	})
}

// verdict is what a member may do now.
func (d *daemon) verdict(n *node) map[core.ServiceName]core.Able {
	state := *d.state()
	able := map[core.ServiceName]core.Able{}
	for name, nodes := range core.Ables(state, d.observer.View(state, d.n.read(), d.n.w.raft.voterNames()), d.clusterNow()) {
		able[name] = nodes[n.name]
	}
	return able
}

// corosyncQuorate is what corosync said when it was asked last.
func (d *daemon) corosyncQuorate() *bool {
	if !d.n.w.managed() || d.quorate != nil && d.n.w.now-d.quorateAt < quorumEvery {
		return d.quorate
	}
	d.quorate, d.quorateAt = nil, d.n.w.now
	if d.n.view != nil {
		quorate := d.n.quorate()
		d.quorate = &quorate
	}
	return d.quorate
}

// followMaintenance has Pacemaker take its hands up again once keepone's maintenance has ended.
func (d *daemon) followMaintenance(s core.State) {
	if d.maintained && !s.Maintenance.On && d.n.w.managed() {
		d.n.configure(func(c *conf) { c.maintenance = false })
	}
	d.maintained = s.Maintenance.On
}

// published is what agents asked to be published, on disk.
type published struct{ n *node }

func (s published) Load() ([]byte, error) {
	if s.n.asked == nil {
		return nil, fs.ErrNotExist
	}
	return s.n.asked, nil
}

func (s published) Save(text []byte) error { s.n.asked = text; return nil }

// Call is a call over the daemon's socket by an agent: it implements node.Daemon.
func (n *node) call(ctx context.Context, method string, req, resp any) error {
	p := processOf(ctx)
	p.sleep(p.w.between(time.Millisecond, 5*time.Millisecond))
	d := n.daemon
	if d == nil {
		return fmt.Errorf("open socket: %w", api.ErrNoDaemon)
	}
	for d.hung && n.daemon == d && ctx.Err() == nil {
		p.await(100*time.Millisecond, func() bool { return false })
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	answer, err := d.handle(ctx, p, method, req)
	if n.daemon != d {
		return &api.Error{Code: api.CodeUnknown, Message: "the daemon went away"}
	}
	switch to := resp.(type) {
	case *op.Health:
		*to, _ = answer.(op.Health)
	case *op.Probed:
		*to, _ = answer.(op.Probed)
	case *op.Claimed:
		*to, _ = answer.(op.Claimed)
	}
	return err
}

func (d *daemon) handle(ctx context.Context, p *process, method string, req any) (any, error) {
	switch method {
	case op.MethodHealth:
		return d.health(p), nil
	case op.MethodProbe:
		return d.probe(ctx, p, req.(op.Probe)), nil
	case op.MethodClaim:
		return d.claim(ctx, p, req.(op.Claim))
	case op.MethodPublish:
		if err := d.publisher.Change(req.(op.Publish)); err != nil {
			return nil, err
		}
		return nil, d.publisher.Push(ctx)
	case op.MethodWake:
		d.changed++
		d.report = true
		d.stir()
	}
	return nil, nil
}

func (d *daemon) health(p *process) op.Health {
	l := d.hint
	quorum := l != nil && l.daemon != nil && p.w.net.connected(d.n, l) && p.w.raft.verified(l)
	if !quorum && d.n.daemon == d {
		p.sleep(p.w.between(0, askQuorum))
	}
	h := op.Health{
		Healthy: d.n.guard != nil, Node: d.n.name, Manager: core.ManagerPacemaker, Quorum: quorum, Services: map[core.ServiceName]op.Able{},
	}
	if l != nil {
		h.Leader = l.name
	}
	for name, able := range d.abilities() {
		h.Services[name] = op.Able(able)
	}
	return h
}

// probe looks whether the service is well here.
func (d *daemon) probe(ctx context.Context, p *process, ask op.Probe) op.Probed {
	const depthVolume, depthProbes = 10, 20
	h := d.n.holding(ask.Service)
	g := d.state().Services[ask.Service].Grant
	if ask.Depth >= depthVolume {
		if g == nil || g.Node != d.n.name || g.Instance != d.n.life {
			return op.Probed{Why: "this node does not hold the service"}
		}
		for until := p.w.now + sickAfter; !h.reads(); {
			if h.client == nil || !h.client.alive || h.client.cut {
				return op.Probed{Why: "its device can't be read"}
			}
			if p.w.now >= until || ctx.Err() != nil {
				return op.Probed{Why: "its storage hangs"}
			}
			p.sleep(200 * time.Millisecond)
		}
	}
	if ask.Depth >= depthProbes && (!h.runs || h.client == nil || h.client.cut || d.n.wrong.container.sick || p.w.now < h.begun+100*time.Millisecond) {
		return op.Probed{Why: "it does not answer"}
	}
	return op.Probed{OK: true}
}

// reads reports whether a block can be read past every cache now.
func (h *holding) reads() bool {
	w := h.n.w
	return h.client != nil && h.client.alive && !h.client.cut && w.ceph.answers() && w.net.reachesCeph(h.n) && h.client.reach(0)
}

func (n *node) holding(name core.ServiceName) *holding {
	for _, h := range n.here {
		if h.name == name {
			return h
		}
	}
	return nil
}

// watch is State as the daemon follows it, for code that waits.
func (d *daemon) watch(p *process) managed.Watch {
	return func() (core.State, func(context.Context) error) {
		changed := d.changed
		return *d.state(), func(ctx context.Context) error {
			gone := func() bool { return d.n.daemon != d }
			p.await(followEvery, func() bool { return d.changed != changed || gone() || ctx.Err() != nil })
			if gone() {
				return &api.Error{Code: api.CodeUnknown, Message: "the daemon went away"}
			}
			return ctx.Err()
		}
	}
}

// claim waits until this node holds the service and has brought it up.
func (d *daemon) claim(ctx context.Context, p *process, ask op.Claim) (any, error) {
	if err := managed.MayClaim(d.state().Spec, ask); err != nil {
		return nil, err
	}
	told := func() {
		if d.n.daemon == d {
			d.changed++
			d.report = true
			d.n.w.on(d.n, 0, d.stir)
		}
	}
	defer told()
	return d.claims.During(ask.Service, ask.Stage, func() (any, error) {
		told()
		h := d.n.holding(ask.Service)
		g, err := managed.Await(ctx, d.watch(p), d.n.name, ask, func(s core.State) (bool, string) {
			return managed.Met(s, d.n.name, d.n.life, ask, func(g core.Grant) bool {
				return h.has && managed.Stands(g, ask, h.rec, h.isBuried(h.rec.Epoch, h.rec.Attempt))
			})
		}, func(string) error { return nil })
		if err != nil {
			return nil, err
		}
		return op.Claimed{Epoch: g.Epoch, Stage: g.Stage, Device: h.rec.Storage.Device}, nil
	})
}

// fenced answers a request for a fence.
func (d *daemon) fenced(ctx context.Context, p *process, in op.Fence) (op.Fenced, error) {
	f := managed.Fencing{
		Leader: func() core.NodeName {
			if d.hint == nil {
				return ""
			}
			return d.hint.name
		},
		Watch: d.watch(p),
		Ask: func(_ context.Context, c core.Command) error {
			switch d.propose(p, c, proposeLimit) {
			case core.Done:
				return nil
			case core.Refused:
				return api.Refuse("refused")
			}
			return &api.Error{Code: api.CodeUnknown, Message: "not known to be committed"}
		},
		Power: func(_ context.Context, name core.NodeName) (ipmi.State, error) {
			r, err := line{p, p.within(readLimit), d.n.w.names[name].bmc}.Power(ctx)
			return r.State, err
		},
		Enough: func(context.Context, core.NodeName) (bool, string) { return false, "the document does not say so" },
	}
	d.n.w.tokens++
	answer, err := f.Run(ctx, in, fmt.Sprint("fence-", d.n.w.tokens), silent{})
	fenced, _ := answer.(op.Fenced)
	return fenced, err
}

// silent follows a request and says nothing.
type silent struct{}

func (silent) Say(string) {}

func (silent) Look(s core.State, token string) (core.Request, bool) {
	for _, r := range s.Requests {
		if r.Token == token {
			return r, true
		}
	}
	return core.Request{}, false
}
