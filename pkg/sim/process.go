package sim

import (
	"context"
	"iter"
	"slices"
	"time"

	"github.com/keepone-ha/keepone/pkg/clock"
)

// process is code that waits, written as it is on a node. It is a coroutine: the world goes on only when it waits, so
// there is never more than one thing at a time.
type process struct {
	w      *World
	n      *node
	g      *program
	resume func() (struct{}, bool)
	end    func()
	yield  func(struct{}) bool
	awaits func() bool // ends the wait early; nil: only time does
	wakes  uint64      // counts waits, so that a stale wake-up wakes nobody
	gone   bool        // killed, or returned
}

// killed unwinds a process whose node or program has ended.
type killed struct{}

// program is what processes live and die with.
type program struct {
	n         *node
	processes []*process
	hung      bool
	stuck     []*process // what was to go on while it hung
}

// spawn runs body on a node from now on, until it returns or its daemon dies.
func (n *node) spawn(d *daemon, body func(*process)) *process { return d.run(body) }

// run is spawn for any program.
func (g *program) run(body func(*process)) *process {
	p := &process{w: g.n.w, n: g.n, g: g}
	p.resume, p.end = iter.Pull(func(yield func(struct{}) bool) {
		p.yield = yield
		defer func() {
			p.gone = true
			if r := recover(); r != nil {
				if _, ok := r.(killed); !ok {
					panic(r)
				}
			}
		}()
		body(p)
	})
	g.processes = append(slices.DeleteFunc(g.processes, func(o *process) bool { return o.gone }), p)
	p.wakeIn(0)
	return p
}

// wakeIn wakes the process later, if it has not been woken otherwise before.
func (p *process) wakeIn(d time.Duration) {
	p.wakes++
	mine := p.wakes
	p.w.on(p.n, d, func() {
		switch {
		case p.gone || p.wakes != mine:
		case p.g.hung:
			p.g.stuck = append(p.g.stuck, p)
		default:
			p.resume()
		}
	})
}

// kill ends the process wherever it waits. Nothing of it happens any more.
func (p *process) kill() {
	if !p.gone {
		p.gone = true
		p.end()
	}
}

func (p *process) park() {
	if !p.yield(struct{}{}) {
		panic(killed{})
	}
	p.awaits = nil
}

// sleep waits for d, longer on a slow node.
func (p *process) sleep(d time.Duration) {
	p.wakeIn(p.n.takes(d))
	p.park()
}

// await waits until cond holds, and reports whether it did within d.
func (p *process) await(d time.Duration, cond func() bool) bool {
	until := p.w.now + d
	for !cond() {
		if p.w.now >= until {
			return false
		}
		p.awaits = cond
		p.wakeIn(until - p.w.now)
		p.park()
	}
	return true
}

// stir wakes the program's processes whose wait is over by now.
func (g *program) stir() {
	for _, p := range g.processes {
		if !p.gone && p.awaits != nil && p.awaits() {
			p.awaits = nil
			p.wakeIn(0)
		}
	}
}

// span is a context in virtual time: it ends by its bound, or by hand.
type span struct {
	context.Context
	w      *World
	parent *span         // ends this one with it
	until  time.Duration // 0: no bound
	err    error
}

// within begins a span that lasts for at most d; its processes read virtual time.
func (p *process) within(d time.Duration) *span {
	s := &span{Context: context.Background(), w: p.w}
	if d > 0 {
		s.until = p.w.now + d
	}
	return s
}

// Err says why the span has ended.
func (s *span) Err() error {
	if s.err == nil && s.parent != nil {
		s.err = s.parent.Err()
	}
	if s.err == nil && s.until > 0 && s.w.now >= s.until {
		s.err = context.DeadlineExceeded
	}
	return s.err
}

// ends is the earlier of t and the span's bounds.
func (s *span) ends(t time.Duration) time.Duration {
	for ; s != nil; s = s.parent {
		if s.until > 0 {
			t = min(t, s.until)
		}
	}
	return t
}

// Deadline is in virtual time, as hand.Now is.
func (s *span) Deadline() (time.Time, bool) {
	until := s.ends(forever * 1000)
	return time.Unix(0, 0).Add(until), until < forever*1000
}

// ctx is the span for the process, whose waits it ends.
func (p *process) ctx(s *span) context.Context {
	return clock.With(context.WithValue(s, ours{}, p), hand{p, s})
}

// ours finds the process that a context belongs to.
type ours struct{}

func processOf(ctx context.Context) *process { return ctx.Value(ours{}).(*process) }

// goOn has a program that hung go on.
func (g *program) goOn() {
	g.hung = false
	for _, p := range g.stuck {
		if !p.gone {
			p.wakeIn(0)
		}
	}
	g.stuck = nil
}

// end kills all of the program.
func (g *program) end() {
	for _, p := range g.processes {
		p.kill()
	}
	g.processes, g.stuck = nil, nil
}

// hand lets real code wait as a process.
type hand struct {
	p *process
	s *span
}

func (h hand) Now() time.Time { return time.Unix(0, 0).Add(h.p.w.now) }

// Within implements clock.Clock: a span of its own, that ends with h's.
func (h hand) Within(_ context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	s := h.p.within(h.p.n.takes(d))
	s.parent = h.s
	return h.p.ctx(s), func() {
		if s.err == nil {
			s.err = context.Canceled
		}
	}
}

func (h hand) Pause(_ context.Context, d time.Duration) error {
	until := h.p.w.now + h.p.n.takes(d)
	for h.s.Err() == nil && h.p.w.now < until {
		next := h.s.ends(until)
		h.p.await(next-h.p.w.now, func() bool { return h.s.Err() != nil })
	}
	return h.s.Err()
}
