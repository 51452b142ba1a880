package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/release"
	"github.com/keepone-ha/keepone/pkg/worker"
)

const (
	self     core.NodeName    = "a"
	life     core.Instance    = "boot/a1"
	one      core.ServiceName = "one"
	client                    = "10.0.0.1:0/77"
	probing                   = time.Second
	starting                  = 20 * time.Second
)

var errAway = errors.New("away")

// bed is one node with everything around the agent faked. What they did, in order, is in said.
type bed struct {
	t *testing.T

	mu      sync.Mutex
	state   core.State
	changed chan struct{}
	said    []string

	propose  func(core.Command) (core.Outcome, error) // nil: core.Apply
	services error                                    // of Services
	lost     error                                    // of Here
	here     Here
	exited   chan struct{}
	stopped  release.Result // of Stop; the zero value takes everything down
	held     release.Result // of StopContainer; likewise

	plans    []worker.Plan
	progress []worker.Progress // of the next activation; StepMapped waits for Go
	leased   bool
	bearer   Bearer // of the address
	health   error  // of the service
	failing  string // what is wrong with its volume

	claimed bool // of a cluster manager
	waiting chan struct{}
}

func newBed(t *testing.T, g core.Grant) *bed {
	b := &bed{t: t, changed: make(chan struct{}), waiting: make(chan struct{}), leased: true, progress: []worker.Progress{
		{Step: worker.StepLease}, {Step: worker.StepMapped, Address: client}, {Step: worker.StepMounted}, {Step: worker.StepStarted},
	}}
	b.state = core.State{
		Cluster: "lab",
		Nodes:   map[core.NodeName]core.Node{self: {Name: self, Instance: life, Life: core.LifeOnline}},
		Spec: core.Spec{
			Nodes: []core.NodeSpec{{Name: self}},
			Services: []core.ServiceSpec{{
				Name: one, StartLimit: starting, StopLimit: time.Second,
				Probes:  []core.ProbeSpec{{Kind: "tcp", Interval: probing, Timeout: probing, Failures: 3}},
				Restart: core.RestartSpec{Failures: 3, Window: time.Minute, Backoff: time.Second, MaxBackoff: time.Minute},
			}},
		},
		Services: map[core.ServiceName]core.Service{one: {Name: one, Epoch: g.Epoch, Grant: &g}},
	}
	if g.Epoch == 0 {
		b.state.Services[one] = core.Service{Name: one}
	}
	return b
}

// newManagedBed is one node of a cluster whose manager claims the service. The grant is staged if it says so.
func newManagedBed(t *testing.T, g core.Grant) *bed {
	b := newBed(t, g)
	b.state.Spec.Manager, b.claimed = core.ManagerPacemaker, true
	if g.Stage == core.StagePromoted {
		b.progress = []worker.Progress{{Step: worker.StepLease}, {Step: worker.StepMapped, Address: client}, {Step: worker.StepPromoted}}
	}
	return b
}

// claim begins or ends the cluster manager's wait.
func (b *bed) claim(on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.claimed = on
	close(b.waiting)
	b.waiting = make(chan struct{})
}

func (b *bed) Claimed(core.ServiceName) (bool, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.claimed, b.waiting
}

func starts(epoch core.Epoch) core.Grant {
	return core.Grant{Node: self, Instance: life, Epoch: epoch, Phase: core.PhaseStarting, Run: 1}
}

func in(phase core.Phase, epoch core.Epoch, run int) core.Grant {
	g := starts(epoch)
	g.Phase, g.Run = phase, run
	return g
}

// run lets the agent work for so long, then ends it and returns what was said.
func (b *bed) run(d time.Duration) []string {
	b.t.Helper()
	ctx, cancel := context.WithCancel(b.t.Context())
	ended := b.start(ctx)
	time.Sleep(d)
	cancel()
	<-ended
	return b.log()
}

func (b *bed) start(ctx context.Context) <-chan struct{} {
	ended := make(chan struct{})
	a := New(Config{
		Self: self, Instance: life, Places: Places{Run: "/run/keepone", Cgroups: "/sys/fs/cgroup/keepone", Volumes: "/v"},
		Replica: b, Starter: b, Node: b, Net: b, Prober: b, Claims: b,
		Leased: func(core.ServiceName, core.Epoch) bool { b.mu.Lock(); defer b.mu.Unlock(); return b.leased },
		Log:    slog.New(slog.DiscardHandler),
	})
	go func() {
		defer close(ended)
		if err := a.Run(ctx); err != nil {
			b.t.Error(err)
		}
	}()
	return ended
}

func (b *bed) log() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.said...)
}

func (b *bed) say(format string, args ...any) { b.said = append(b.said, fmt.Sprintf(format, args...)) }

func (b *bed) grant() *core.Grant {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state.Services[one].Grant
}

// commit applies c as the leader would.
func (b *bed) commit(c core.Command) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.apply(c); err != nil {
		b.t.Fatalf("%s: %v", c.Kind(), err)
	}
}

func (b *bed) apply(c core.Command) error {
	s, err := core.Apply(b.state, core.Entry{At: b.state.Now, By: self, Command: c})
	if err != nil {
		return err
	}
	b.state = s
	close(b.changed)
	b.changed = make(chan struct{})
	return nil
}

func (b *bed) State() core.State { s, _ := b.Watch(); return s }

func (b *bed) Watch() (core.State, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state, b.changed
}

func (b *bed) Propose(ctx context.Context, c core.Command) (core.Outcome, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if ctx.Err() != nil {
		return core.Refused, ctx.Err()
	}
	if b.propose != nil {
		if outcome, err := b.propose(c); outcome != core.Done {
			return outcome, err
		}
	}
	if err := b.apply(c); err != nil {
		return core.Refused, err
	}
	switch c := c.(type) {
	case core.Vacated:
		b.say("vacated %d: %s", c.Epoch, c.Failure)
	case core.Contained:
		b.say("contained %d: %s", c.Epoch, c.Reason)
	case core.Promoted:
		b.say("promoted %d/%d", c.Epoch, c.Run)
	case core.RunFailed:
		b.say("run failed %d/%d: %s", c.Epoch, c.Run, c.Reason)
	case core.CommitClient:
		b.say("client %s", c.Address)
	case core.Started:
		b.say("started %d/%d", c.Epoch, c.Run)
	}
	return core.Done, nil
}

func (b *bed) Services() ([]core.ServiceName, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.here.Record == nil {
		return nil, b.services
	}
	return []core.ServiceName{one}, b.services
}

func (b *bed) Here(core.ServiceName) (Here, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.here
	if h.Record != nil {
		r := *h.Record
		h.Record = &r
	}
	return h, b.lost
}

func (b *bed) Stop(ctx context.Context, r release.Record, _ time.Duration) release.Result {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.say("stop %d/%d", r.Epoch, r.Attempt)
	if ctx.Err() != nil {
		b.t.Error("a stop was cut short")
	}
	result := b.stopped
	if len(result.Reasons) == 0 {
		result = release.Result{Contained: true, Vacated: true}
	}
	b.here.Buried = true
	if result.Contained {
		b.ends()
	}
	b.here.Record.Marks.Contained = result.Contained
	if result.Vacated {
		b.here.Record.Marks.Vacated, b.here.Facts = true, release.Facts{}
	}
	return result
}

func (b *bed) StopContainer(_ context.Context, r release.Record, _ time.Duration) release.Result {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.say("stop container %d/%d", r.Epoch, r.Attempt)
	result := b.held
	if len(result.Reasons) == 0 {
		result = release.Result{Contained: true}
	}
	b.here.Buried = true
	if b.here.Record.Marks.Contained = result.Contained; result.Contained {
		b.ends()
	}
	return result
}

// ends is the end of the container's init.
func (b *bed) ends() {
	b.here.Facts.Init = false
	if b.exited != nil {
		close(b.exited)
		b.exited = nil
	}
}

func (b *bed) Exited(context.Context, release.Record) (<-chan struct{}, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.here.Facts.Init {
		gone := make(chan struct{})
		close(gone)
		return gone, nil
	}
	if b.exited == nil {
		b.exited = make(chan struct{})
	}
	return b.exited, nil
}

func (b *bed) Failing(context.Context, release.Record) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failing
}

// runs puts a container of the grant here, as an earlier daemon would have left it.
func (b *bed) runs(epoch core.Epoch, attempt int) {
	b.here = Here{
		Record: &release.Record{Service: one, Epoch: epoch, Instance: life, Attempt: attempt},
		Facts:  release.Facts{Init: true, Populated: true, Mounted: true, Mapper: true, MapGroup: true},
	}
}

func (b *bed) Duplicate(ctx context.Context, _ core.NetworkSpec) (Bearer, error) {
	select {
	case <-ctx.Done():
		return Bearer{}, ctx.Err()
	case <-time.After(100 * time.Millisecond):
		return b.bearer, nil
	}
}

func (b *bed) Announce(ctx context.Context, a Announcement, good func() bool) {
	for good() {
		b.mu.Lock()
		b.say("announce%s", map[bool]string{true: " contested"}[a.Contested])
		b.mu.Unlock()
		select {
		case <-ctx.Done():
			b.mu.Lock()
			b.say("announced")
			b.mu.Unlock()
			return
		case <-time.After(time.Minute):
		}
	}
}

func (b *bed) Probe(ctx context.Context, _ core.ServiceSpec) error {
	time.Sleep(time.Millisecond)
	if err := ctx.Err(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.health == nil && !b.here.Facts.Init {
		return errAway
	}
	return b.health
}

// helper is one faked activation.
type helper struct {
	b        *bed
	progress chan worker.Progress
	gone     chan struct{}
	killed   chan struct{}
	once     sync.Once
}

func (b *bed) Start(_ context.Context, p worker.Plan) (Activation, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.say("start %d/%d", p.Epoch, p.Attempt)
	b.plans = append(b.plans, p)
	h := &helper{b: b, progress: make(chan worker.Progress, 16), gone: make(chan struct{}, 1), killed: make(chan struct{})}
	go h.work(p, b.progress)
	return h, nil
}

func (h *helper) work(plan worker.Plan, script []worker.Progress) {
	defer close(h.progress)
	for _, p := range script {
		select {
		case <-h.killed:
			return
		case <-time.After(10 * time.Millisecond):
		}
		h.b.mu.Lock()
		h.effect(plan, p.Step)
		h.b.mu.Unlock()
		h.progress <- p
		if p.Step != worker.StepMapped {
			continue
		}
		select {
		case <-h.killed:
			return
		case <-h.gone:
		}
	}
}

func (h *helper) effect(plan worker.Plan, step worker.Step) {
	b := h.b
	switch step {
	case worker.StepLease:
		here := Here{Record: &release.Record{Service: one, Epoch: plan.Epoch, Instance: plan.Instance, Attempt: plan.Attempt}}
		if plan.Restart {
			here.Facts, here.Record.Storage = b.here.Facts, b.here.Record.Storage
		}
		b.here = here
	case worker.StepMapped:
		b.here.Facts.Mapper = true
	case worker.StepPromoted:
		b.here.Record.Storage.Kept = true
	case worker.StepMounted:
		if !plan.Restart {
			b.say("mount")
		}
		b.here.Facts.Mounted = true
	case worker.StepStarted:
		b.here.Facts.Init = true
	case worker.StepFailed, worker.StepAnnounce:
	}
}

func (h *helper) Progress() <-chan worker.Progress { return h.progress }

func (h *helper) Go() error {
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	h.b.say("go")
	h.gone <- struct{}{}
	return nil
}

func (h *helper) Kill() { h.once.Do(func() { close(h.killed) }) }

// in the bubble of synctest time is virtual, and every goroutine must have ended.
func bubble(t *testing.T, f func(*testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}
