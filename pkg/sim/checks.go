package sim

import (
	"fmt"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/ocf"
	"github.com/keepone-ha/keepone/pkg/op"
	"github.com/keepone-ha/keepone/pkg/release"
)

const lookEvery = 100 * time.Millisecond

// checks hold the truth, which only the world knows, against what the guarantees say.
type checks struct {
	w         *World
	broken    []string
	dirty     bool          // who runs or can write may have changed
	looked    time.Duration // when leases were looked at last
	failovers int
}

func newChecks(w *World) *checks { return &checks{w: w} }

func (c *checks) breaks(format string, args ...any) {
	line := fmt.Sprintf("%.3fs ", c.w.now.Seconds()) + fmt.Sprintf(format, args...)
	c.broken = append(c.broken, line)
	c.w.say("BROKEN %s", line)
}

// after looks at the world after an event.
func (c *checks) after() {
	if c.dirty {
		c.dirty = false
		for i := range c.w.ceph.images {
			c.alone(i)
		}
	}
	if c.w.now-c.looked >= lookEvery {
		c.looked = c.w.now
		c.contained()
		c.bitten()
	}
}

// alone makes sure that at most one holder can write, and at most one container runs by a lease (I1, I3, I6).
func (c *checks) alone(i int) {
	writers, runners := "", ""
	for _, n := range c.w.nodes {
		h := n.here[i]
		if !n.power || h.client == nil {
			continue
		}
		at := fmt.Sprintf("%s@%d", n.name, h.rec.Epoch)
		if h.client.alive && h.rec.Storage.Address != "" && !c.w.ceph.banned(h.client.address) {
			if writers != "" {
				c.breaks("I6: %s can be written by %s and %s", h.name, writers, at)
			}
			writers = at
		}
		if h.runs && n.alive() && n.guard != nil && n.read() < n.guard.leases.Deadline(h.right()) && !n.bmc.lied {
			if runners != "" {
				c.breaks("I3: %s runs by a lease on %s and %s", h.name, runners, at)
			}
			runners = at
		}
	}
}

// contained makes sure that no container outlives its lease by more than its guard's bound (I5).
func (c *checks) contained() {
	for _, n := range c.w.nodes {
		if n.guard == nil || n.guard.hung || !n.alive() {
			continue
		}
		for _, h := range n.here {
			if !h.runs || n.wrong.container.undying {
				continue
			}
			if late := n.read().Sub(n.guard.leases.Deadline(h.right())); late > containBound {
				if since := c.w.now - n.tamed; since > containBound {
					c.breaks("I5: %s@%d runs on %s %s after its lease", h.name, h.rec.Epoch, n.name, late)
				}
			}
		}
	}
}

// reads is a holder's first look at an object: what was acknowledged before is there (I8).
func (c *checks) reads(cl *client, k int, o *object) {
	if o.value.seq < o.acked {
		c.breaks("I8: object %d has write %d, and %d was acknowledged", k, o.value.seq, o.acked)
	}
	if o.touched > cl.epoch {
		c.breaks("I6: %s reads object %d at epoch %d, after epoch %d", cl.n.name, k, cl.epoch, o.touched)
	}
}

// lands is a write that an OSD takes: never one of an old holder after the new one has touched the object (I6).
func (c *checks) lands(cl *client, k int, o *object, v write) {
	if v.epoch < o.touched {
		c.breaks("I6: a write of %s at epoch %d lands on object %d after epoch %d", cl.n.name, v.epoch, k, o.touched)
	}
}

// stopped is what a stop said of itself: never stopped while a process runs (I7).
func (c *checks) stopped(h *holding, rec release.Record, result release.Result) {
	if h.rec.Epoch != rec.Epoch || h.rec.Attempt != rec.Attempt {
		return
	}
	if result.Contained && h.runs {
		c.breaks("I7: %s on %s is called stopped and runs", h.name, h.n.name)
	}
	if result.Vacated && h.client != nil && h.client.alive {
		c.breaks("I7: %s on %s is called vacated and is mapped", h.name, h.n.name)
	}
}

// step is one committed entry.
func (c *checks) step(was core.State, e core.Entry, is core.State) {
	if err := core.Check(was, e, is); err != nil {
		c.breaks("%s %+v: %v", e.Kind(), e.Command, err)
	}
	switch v := e.Command.(type) {
	case core.Vacated:
		if h := c.of(e.By, v.Service, v.Instance); h != nil && h.has && h.rec.Epoch == v.Epoch {
			mapped := h.client != nil && h.client.alive && !c.w.ceph.banned(h.client.address)
			if h.runs || mapped {
				c.breaks("I3: %s says that it vacated %s@%d: runs %v, mapped %v", e.By, v.Service, v.Epoch, h.runs, mapped)
			}
		}
	case core.Contained:
		if h := c.of(e.By, v.Service, v.Instance); h != nil && h.has && h.rec.Epoch == v.Epoch && h.runs {
			c.breaks("I3: %s says that it contained %s@%d, which runs", e.By, v.Service, v.Epoch)
		}
	case core.AddProof:
		c.proof(v.Proof)
	}
}

// of is what the instance has of a service, if it lives.
func (c *checks) of(by core.NodeName, name core.ServiceName, instance core.Instance) *holding {
	n := c.w.names[by]
	if n == nil || !n.power || n.life != instance {
		return nil
	}
	for _, h := range n.here {
		if h.name == name {
			return h
		}
	}
	return nil
}

// proof holds a proof of node scope against the truth. A BMC that lies is the one thing that it can't see through.
func (c *checks) proof(p core.Proof) {
	for _, n := range c.w.nodes {
		if n.power && n.life == p.Instance && p.Kind.Scope() == core.ScopeNode && !n.bmc.lied {
			c.breaks("I3: %s of %s is proven by %s, and it lives", p.Kind, p.Instance, p.By)
		}
	}
}

// acted holds what a resource agent said against the truth (I7).
func (c *checks) acted(n *node, a action, code ocf.Code) {
	h := n.holding(a.service)
	if h == nil {
		return
	}
	if a.resource == mountOf(a.service) {
		return // the stock agent's
	}
	down := code == ocf.Success && (a.verb == ocf.Stop || a.verb == ocf.Demote)
	if up := code == ocf.Success && a.verb == ocf.Start && a.resource == containerOf(a.service); up && h.isBuried(h.rec.Epoch, h.rec.Attempt) {
		c.breaks("I7: %s start on %s says %s, and it is stopped", a.resource, n.name, code)
	}
	if down && h.runs {
		c.breaks("I7: %s %s on %s says %s, and the container runs", a.resource, a.verb, n.name, code)
	}
}

// fenced holds what Pacemaker is told of a node against the truth: it restarts elsewhere whatever ran there.
func (c *checks) fenced(target *node, life core.Instance, f op.Fenced) {
	if f.Scope != core.ScopeNode {
		c.breaks("I3: Pacemaker is told that %s is fenced by %s, of %s scope", target.name, f.Proof, f.Scope)
	}
	if target.power && target.life == life && target.pcmk != nil && !target.bmc.lied { // nothing was started there before Pacemaker
		c.breaks("I3: Pacemaker is told that %s is fenced by %s, and %s lives", target.name, f.Proof, life)
	}
}

// heard notes what the history tells.
func (w *World) heard(was, is *core.State) {
	c := w.checks
	for i := len(is.History) - 1; i >= 0 && is.History[i].ID > was.NextID; i-- {
		e := is.History[i]
		if e.Kind == core.EventFailover {
			c.failovers++
		}
		if w.trace.verbose {
			w.say("%s %s%s %s→%s @%d %s %s", e.Kind, e.Service, e.Node, e.From, e.To, e.Epoch, e.Proof, e.Reason)
		}
	}
	c.dirty = true
	w.trace.mix(is.NextID, uint64(is.Now))
}

func (w *World) image(name core.ServiceName) *image {
	for i := range w.ceph.images {
		if service(i) == name {
			return w.ceph.images[i]
		}
	}
	return nil
}
