package sim

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/keepone-ha/keepone/pkg/api"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/fence"
	"github.com/keepone-ha/keepone/pkg/fence/relay"
	"github.com/keepone-ha/keepone/pkg/op"
)

// fence_keepone's own defaults.
const (
	stonithTimeout = 60 * time.Second
	powerTimeout   = 45 * time.Second
	shellTimeout   = 5 * time.Second
	aloneDelay     = 5 * time.Second
)

// fence has some member fence a node, and takes the node for gone once that is told to be done.
func (c *pacemaker) fence(_ *process, target *node, done func()) {
	able := slices.DeleteFunc(c.n.peers(), func(m *node) bool { return m == target })
	if len(able) == 0 {
		done()
		return
	}
	by := able[c.n.w.rng.IntN(len(able))]
	was := target.boots
	c.n.w.say("Pacemaker on %s has %s fence %s", c.n.name, by.name, target.name)
	ended := false
	by.shoot(target, func(fenced bool) {
		ended = true
		if fenced {
			if target.boots == was || target.pcmk == nil {
				c.n.gone(target)
			}
		} else {
			c.held = c.n.w.now + fenceAgain
			c.n.w.at(fenceAgain, c.poke)
		}
		c.poke()
		c.brain.stir()
	})
	c.brain.run(func(q *process) {
		if !q.await(stonithTimeout+5*time.Second, func() bool { return ended || by.pcmk == nil || !slices.Contains(c.n.view, by) }) || !ended {
			c.held = q.w.now + fenceAgain
		}
		done()
	})
}

// shoot is a call of fence_keepone on this node, as Pacemaker makes it for a reboot.
func (n *node) shoot(target *node, told func(fenced bool)) {
	life := target.life
	n.agents.run(func(p *process) {
		n.w.busy++
		defer func() { n.w.busy-- }()
		s := p.within(powerTimeout)
		r := n.relay(p, s, target)
		fenced, err := r.Off(p.ctx(s))
		n.w.say("fence_keepone on %s: %s: %v %v", n.name, target.name, fenced, err)
		if err == nil {
			n.w.checks.fenced(target, life, fenced)
			n.w.at(n.w.between(500*time.Millisecond, 3*time.Second), func() {
				if fenced.Proof == core.ProofBMCOff && !target.bmc.dead {
					target.boot()
				}
			})
		}
		told(err == nil)
	})
}

// relay is the real relay of the fence agent, with what it asks and does.
func (n *node) relay(p *process, s *span, target *node) relay.Relay {
	quiet := func(string, ...any) {}
	daemons := relay.Daemons{
		Say: quiet,
		Local: func(ctx context.Context) (op.Fenced, error) {
			d := n.daemon
			switch {
			case d == nil:
				return op.Fenced{}, api.ErrNoDaemon
			case d.hung:
				p.sleep(shellTimeout)
				return op.Fenced{}, relay.ErrDeaf
			}
			return d.fenced(ctx, p, op.Fence{Node: target.name, By: "fence_keepone"})
		},
		Led: func(context.Context) []core.NodeName {
			p.sleep(p.w.between(time.Millisecond, 20*time.Millisecond))
			var led []core.NodeName
			for _, m := range n.w.nodes {
				if d := m.daemon; m != n && d != nil && !d.hung && d.hint != nil && n.w.net.connected(n, m) {
					led = append(led, m.name)
				}
			}
			slices.SortStableFunc(led, func(a, b core.NodeName) int { return bit(a == target.name) - bit(b == target.name) })
			return led
		},
		Through: func(ctx context.Context, name core.NodeName) (op.Fenced, error) {
			m := n.w.names[name]
			p.sleep(n.w.net.latency(n, m))
			d := m.daemon
			if d == nil || !n.w.net.connected(n, m) {
				return op.Fenced{}, &api.UnreachableError{Node: name, Err: api.ErrNoDaemon}
			}
			fenced, err := d.fenced(ctx, p, op.Fence{Node: target.name, By: "fence_keepone"})
			p.sleep(n.w.net.latency(m, n))
			if m.daemon != d || !n.w.net.connected(n, m) {
				return op.Fenced{}, &api.UnreachableError{Node: name, Err: api.ErrNoDaemon}
			}
			return fenced, err
		},
	}
	return relay.Relay{
		Target: target.name, Self: n.name, Election: election, AloneDelay: aloneDelay, ShellTimeout: shellTimeout, PowerTimeout: powerTimeout,
		Ask: daemons.Ask, Say: func(format string, args ...any) {
			n.w.say("fence_keepone on %s: "+format, append([]any{n.name}, args...)...)
		},
		Quorate: func(context.Context) error {
			if n.view == nil || !n.quorate() {
				return fmt.Errorf("corosync is not quorate on this node")
			}
			return nil
		},
		Shoot: func(context.Context) (op.Fenced, error) { return n.shootAlone(p, s, target) },
	}
}

// shootAlone is the agent's own attempt on the BMC: the real levels.
func (n *node) shootAlone(p *process, s *span, target *node) (op.Fenced, error) {
	o := fence.Order{Node: target.name, By: string(n.name), Shoot: true, Whole: true, GUID: guidOf(target.id), Gap: 200 * time.Millisecond, Limit: powerTimeout}
	now := func() time.Time { return hand{p, s}.Now() }
	g := &alone{p: p, course: fence.NewCourse(o, true, false, now()), now: now}
	fence.Power(p.ctx(s), o, line{p, s, target.bmc}, g)
	if g.proof == nil {
		return op.Fenced{}, fmt.Errorf("power %s off alone: %s", target.name, g.course.Note())
	}
	return op.Fenced{Proof: g.proof.Kind, Scope: g.proof.Kind.Scope(), Words: "by this node alone"}, nil
}

// alone is what the BMC's level stands on when there is no other.
type alone struct {
	p      *process
	course *fence.Course
	now    func() time.Time
	shoot  bool
	proof  *core.Proof
}

func (a *alone) Tell(_ context.Context, e fence.Event) {
	if proof, ok := a.course.Take(e, a.now()); ok {
		a.proof = &proof
	}
}

func (a *alone) Permitted() bool {
	a.shoot = a.shoot || a.course.Permit(a.now())
	return a.shoot
}

func (a *alone) AwaitPermit(_ context.Context, most time.Duration) { a.p.sleep(most) }
func (*alone) LeaseEnded() bool                                    { return false }
func (*alone) AwaitLease(context.Context) bool                     { return false }

func bit(is bool) int {
	if is {
		return 1
	}
	return 0
}
