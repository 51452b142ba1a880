package sim

import (
	"context"
	"time"

	"github.com/keepone-ha/keepone/pkg/activate/takeover"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/fence"
	"github.com/keepone-ha/keepone/pkg/worker"
)

const (
	proposeLimit = 3 * time.Second
	cutOffLimit  = 12 * time.Second
)

// readSuspects begins to read the power of whoever is silent, as the leader does.
func (d *daemon) readSuspects(state core.State) {
	silent := d.observer.Suspects(state, d.n.read())
	for _, n := range d.n.w.nodes { // in one order
		instance, ok := silent[n.name]
		if !ok || state.Nodes[n.name].Life == core.LifeFenced || d.reading[n.name] {
			continue
		}
		d.reading[n.name] = true
		d.n.spawn(d, func(p *process) {
			defer func() { d.reading[n.name] = false }()
			began := d.n.read()
			s := p.within(readLimit)
			proof, err := fence.ReadOff(p.ctx(s), line{p, s, n.bmc}, guidOf(n.id), state.Spec.Timing.OffReadings)
			if err == nil {
				proof.Instance, proof.By, proof.At = instance, string(d.n.name), d.clusterNow()
				d.observer.ReadOff(n.name, began, proof)
			}
			p.sleep(readAgain)
		})
	}
}

// fence carries out one attempt: the real levels on a ground of processes.
func (d *daemon) fence(p *process, order core.Fence) {
	state := *d.state()
	targets := fence.Targets(state, order)
	if len(targets) == 0 && !order.Whole {
		return
	}
	target := d.n.w.names[order.Node]
	o := fence.Order{
		Node: order.Node, Instance: order.Instance, By: string(d.n.name), Targets: targets,
		Shoot: order.Shoot, Whole: order.Whole, GUID: guidOf(target.id), Proofs: order.Proofs, Gap: state.Spec.Timing.OffReadings,
	}
	g := &ground{d: d, id: order.ID, s: p.within(fence.DefaultLimit)}
	g.course = fence.NewCourse(o, true, true, g.now())
	p.w.say("%s fences %s, attempt %d, shoot %v", d.n.name, order.Node, order.Attempt, order.Shoot)
	p.w.busy++
	defer func() { p.w.busy-- }()
	if g.course.Confirmed() {
		return
	}
	if g.course.TriesPower() {
		d.n.spawn(d, func(q *process) { fence.Power(q.ctx(g.s), o, line{q, g.s, target.bmc}, g.of(q)) })
	}
	for i := range targets {
		if g.course.TriesStorage(i) {
			d.n.spawn(d, func(q *process) {
				fence.CutOff(q.ctx(g.s), o, i, cutter{q, g.s, d.n.w.image(targets[i].Service)}, g.of(q))
			})
		}
	}
	confirmed := d.attend(p, g, order)
	ended := g.s.Err() != nil && !fence.Stands(*d.state(), order)
	g.s.err = context.Canceled
	d.stir()
	if !confirmed && !ended {
		d.propose(p, core.EndAttempt{Fence: order.ID, Attempt: order.Attempt, Note: g.course.Note()}, proposeLimit)
	}
}

// attend listens to the levels until the order is fulfilled, nothing is left to try, or time is up.
func (d *daemon) attend(p *process, g *ground, order core.Fence) bool {
	for g.course.Live() && g.s.Err() == nil {
		if g.course.Permit(g.now()) {
			g.permitted = true
			d.stir()
		}
		wait := min(g.course.NextPermit(g.now()), g.s.until-p.w.now)
		p.await(wait, func() bool { return len(g.events) > 0 || !fence.Stands(*d.state(), order) })
		if !fence.Stands(*d.state(), order) {
			g.s.err = context.Canceled
			return false
		}
		for len(g.events) > 0 {
			e := g.events[0]
			g.events = g.events[1:]
			proof, ok := g.course.Take(e, g.now())
			if !ok {
				continue
			}
			proof.At = d.clusterNow()
			d.propose(p, core.AddProof{Fence: order.ID, Proof: proof}, proposeLimit)
			if g.course.Confirmed() {
				return true
			}
		}
	}
	return false
}

// ground is one attempt under way.
type ground struct {
	d         *daemon
	id        uint64
	s         *span
	course    *fence.Course
	events    []fence.Event
	permitted bool
}

func (g *ground) now() time.Time { return time.Unix(0, 0).Add(g.d.n.w.now) }

func (g *ground) of(p *process) standing { return standing{g, p} }

// standing is the ground as one level's process has it.
type standing struct {
	*ground
	p *process
}

func (g standing) Tell(_ context.Context, e fence.Event) {
	if g.s.Err() == nil {
		g.ground.events = append(g.ground.events, e)
		g.d.stir()
	}
}

func (g standing) Permitted() bool { return g.permitted }

func (g standing) AwaitPermit(_ context.Context, most time.Duration) {
	g.p.await(most, func() bool { return g.permitted || g.s.Err() != nil })
}

func (g standing) LeaseEnded() bool { return fence.LeasesOver(*g.d.state(), g.id) }

func (g standing) AwaitLease(context.Context) bool {
	return g.p.await(g.s.until-g.p.w.now, func() bool { return g.LeaseEnded() || g.s.err != nil }) && g.s.Err() == nil
}

// cutter is the storage helper of one process.
type cutter struct {
	p   *process
	s   *span
	img *image
}

func (c cutter) CutOff(_ context.Context, order worker.CutOff) (worker.CutOffDid, error) {
	s := c.p.within(cutOffLimit)
	s.parent = c.s
	if !c.p.w.net.reachesCeph(c.p.n) {
		if err := (hand{c.p, s}).Pause(s, cephTimeout); err != nil {
			return worker.CutOffDid{}, err
		}
		return worker.CutOffDid{}, &worker.Failure{Code: worker.CodeCephAway, Message: "Ceph does not answer"}
	}
	return takeover.CutOff(c.p.ctx(s), control{p: c.p, s: s, img: c.img}, order)
}
