package sim

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/ocf"
	"github.com/keepone-ha/keepone/pkg/ocf/container"
	"github.com/keepone-ha/keepone/pkg/ocf/controller"
	agents "github.com/keepone-ha/keepone/pkg/ocf/node"
	"github.com/keepone-ha/keepone/pkg/ocf/rbd"
	"github.com/keepone-ha/keepone/pkg/release"
)

// opTimeout is what Pacemaker gives an operation, as pkg/setup has it.
func opTimeout(a action) time.Duration {
	switch {
	case a.verb == ocf.Monitor || a.resource == controllerID:
		return 20 * time.Second
	case strings.HasPrefix(a.resource, "fs-"), strings.HasPrefix(a.resource, "rbd-") && a.verb == ocf.Start:
		return 60 * time.Second
	case a.verb == ocf.Stop, a.verb == ocf.Demote:
		return 120 * time.Second
	}
	return 180 * time.Second
}

// intervals of the monitors that follow a start.
func intervals(resource string, r role) []monitoring {
	switch {
	case resource == controllerID:
		return []monitoring{{10 * time.Second, 0}}
	case strings.HasPrefix(resource, "fs-"):
		return []monitoring{{20 * time.Second, 0}}
	case strings.HasPrefix(resource, "rbd-") && r == promoted:
		return []monitoring{{10 * time.Second, 0}}
	case strings.HasPrefix(resource, "rbd-"):
		return []monitoring{{11 * time.Second, 0}}
	}
	return []monitoring{{10 * time.Second, 0}, {30 * time.Second, 20}}
}

type monitoring struct {
	every time.Duration
	depth int
}

// execute runs one operation on this node, once the resource's last one has ended; then hears its exit code.
func (c *pacemaker) execute(a action, ended func(ocf.Code)) {
	c.n.agents.run(func(p *process) {
		p.await(forever, func() bool { return !c.locked[a.resource] })
		c.locked[a.resource] = true
		defer func() { c.locked[a.resource] = false; c.n.w.on(c.n, 0, c.n.agents.stir) }()
		probe := a.verb == ocf.Monitor
		code := c.n.act(p, a, 0, 0)
		if c.n.pcmk != c {
			return
		}
		was := c.history[a.resource].role
		c.record(a, probe, code)
		ended(code)
		if is := c.history[a.resource].role; is >= started && is != was {
			c.monitor(a, is)
		}
	})
}

// monitor has the resource looked at again and again, for as long as it is what it is now.
func (c *pacemaker) monitor(a action, is role) {
	a.verb = ocf.Monitor
	c.turns[a.resource]++
	turn := c.turns[a.resource]
	for _, m := range intervals(a.resource, is) {
		c.n.agents.run(func(p *process) {
			for {
				p.sleep(m.every)
				p.await(forever, func() bool { return !c.locked[a.resource] })
				if c.n.pcmk != c || c.turns[a.resource] != turn || c.history[a.resource].role != is {
					return
				}
				if c.n.cib.maintenance || c.history[a.resource].failed {
					continue
				}
				c.locked[a.resource] = true
				code := c.n.act(p, a, m.every, m.depth)
				c.locked[a.resource] = false
				c.n.w.on(c.n, 0, c.n.agents.stir)
				if c.n.pcmk == c && c.history[a.resource].role == is {
					c.record(a, false, code)
				}
			}
		})
	}
}

// act runs one agent, within Pacemaker's timeout.
func (n *node) act(p *process, a action, interval time.Duration, depth int) ocf.Code {
	w := n.w
	code, done := ocf.ErrGeneric, false
	var said strings.Builder
	q := n.agents.run(func(q *process) {
		q.sleep(w.between(5*time.Millisecond, 40*time.Millisecond)) // its program starts
		if n.wrong.agents {
			q.await(forever, func() bool { return false })
		}
		code = n.agent(q, a, interval, depth, &said)
		done = true
		w.checks.acted(n, a, code)
		w.on(n, 0, n.agents.stir)
	})
	n.acting = append(slices.DeleteFunc(n.acting, func(o *process) bool { return o.gone }), q)
	p.await(opTimeout(a), func() bool { return done || q.gone })
	q.kill()
	if a.verb != ocf.Monitor || code == ocf.ErrGeneric {
		w.say("%s %s on %s: %s after all done %v %s", a.resource, a.verb, n.name, code, done, strings.TrimSpace(said.String()))
	}
	return code
}

// agent is the real agent's work; the stock Filesystem agent is a model.
func (n *node) agent(p *process, a action, interval time.Duration, depth int, said io.Writer) ocf.Code {
	bounded := p.within(opTimeout(a))
	open := func(string, string) agents.Node {
		return agents.Node{
			RunDir: "/run/keepone", Kernel: kernel{n, p}, Daemon: socket{n}, Attributes: attributes{n}, Memory: memory{n}, Links: symlinks{n},
		}
	}
	vars := map[string]string{
		"OCF_RESKEY_service": string(a.service), "OCF_RESOURCE_INSTANCE": a.resource, "OCF_CHECK_LEVEL": strconv.Itoa(depth),
		"OCF_RESKEY_CRM_meta_interval": strconv.FormatInt(interval.Milliseconds(), 10),
		"OCF_RESKEY_CRM_meta_timeout":  strconv.FormatInt(opTimeout(a).Milliseconds(), 10),
	}
	var agent *ocf.Agent
	switch {
	case a.resource == controllerID:
		agent = controller.New(open)
	case strings.HasPrefix(a.resource, "rbd-"):
		agent = rbd.New(open)
	case strings.HasPrefix(a.resource, "fs-"):
		return n.filesystem(p, a)
	default:
		agent = container.New(open)
		vars["OCF_RESKEY_mode"] = "container"
		if n.w.shape.One {
			vars["OCF_RESKEY_mode"] = "whole"
		}
	}
	return agent.Run(p.ctx(bounded), ocf.Env{
		Args: []string{string(a.verb)}, Getenv: func(name string) string { return vars[name] }, Out: io.Discard, Err: said,
	})
}

// filesystem is ocf:heartbeat:Filesystem: it mounts the device, and its stop waits for an unmount that hangs.
func (n *node) filesystem(p *process, a action) ocf.Code {
	h := n.holding(a.service)
	switch a.verb {
	case ocf.Start:
		if h.mounted {
			return ocf.Success
		}
		if n.links["/run/keepone/dev/"+string(h.name)] == "" || h.client == nil || !h.client.alive {
			return ocf.ErrInstalled
		}
		p.sleep(p.w.between(30*time.Millisecond, 200*time.Millisecond))
		for n.wrong.unmount && !p.w.ceph.answers() {
			p.sleep(time.Second)
		}
		if h.client == nil || h.mount() != nil {
			return ocf.ErrGeneric
		}
		return ocf.Success
	case ocf.Stop:
		p.await(forever, func() bool { return !n.wrong.unmount || !h.mounted })
		for h.mounted && h.client != nil && h.client.alive && !h.client.cut && !h.flushes(p) {
			p.sleep(time.Second)
		}
		h.mounted = false
		return ocf.Success
	}
	if h.mounted {
		return ocf.Success
	}
	return ocf.NotRunning
}

// socket is the daemon as agents reach it.
type socket struct{ n *node }

func (s socket) Call(ctx context.Context, method string, req any, _ func(json.RawMessage), resp any) error {
	return s.n.call(ctx, method, req, resp)
}

// kernel is what agents see of the kernel and the records.
type kernel struct {
	n *node
	p *process
}

func (k kernel) Record(_ string, service core.ServiceName) (release.Record, error) {
	h := k.n.holding(service)
	if h == nil || !h.has {
		return release.Record{}, fs.ErrNotExist
	}
	return h.rec, nil
}

func (k kernel) Device(string, core.ServiceName) string { return "" }

func (k kernel) Running(_ string, r release.Record) (release.Facts, error) {
	return k.n.holding(r.Service).facts(), nil
}

func (k kernel) Stop(_ context.Context, _ string, r release.Record, o release.Options) release.Result {
	return k.n.holding(r.Service).stop(k.p, o.Graceful, false)
}

func (k kernel) StopContainer(_ context.Context, _ string, r release.Record, o release.Options) release.Result {
	return k.n.holding(r.Service).stop(k.p, o.Graceful, true)
}

// memory is what agents keep in the run directory.
type memory struct{ n *node }

func (m memory) Keep(name string, text []byte) error { m.n.kept[name] = text; return nil }
func (m memory) Drop(name string) error              { delete(m.n.kept, name); return nil }

func (m memory) Kept(name string) ([]byte, error) {
	text, ok := m.n.kept[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return text, nil
}

type symlinks struct{ n *node }

func (symlinks) Free(string) error                 { return nil }
func (s symlinks) Point(path, device string) error { s.n.links[path] = device; return nil }
func (s symlinks) Remove(path string) error        { delete(s.n.links, path); return nil }

// attributes are attrd_updater on a node: the value is on its way when it returns.
type attributes struct{ n *node }

var errAttrd = errors.New("run attrd_updater: could not connect to pacemaker-attrd")

func (a attributes) Set(_ context.Context, name, value string) error {
	return a.update(name, attribute{value: value})
}

func (a attributes) Delete(_ context.Context, name string) error {
	return a.update(name, attribute{gone: true})
}

func (a attributes) update(name string, v attribute) error {
	n := a.n
	if n.pcmk == nil {
		return errAttrd
	}
	n.w.tokens++
	v.seq = uint64(n.w.tokens)
	if n.w.chance(n.wrong.attrdLost) {
		n.w.say("an update of %s on %s is lost", name, n.name)
		return nil
	}
	late := n.w.between(time.Millisecond, 20*time.Millisecond) + n.w.between(0, n.wrong.attrdLate)
	for _, m := range n.peers() {
		n.w.on(m, late, func() { m.told(n, name, v) })
	}
	return nil
}
