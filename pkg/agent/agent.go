// Package agent makes this node do what is committed: a grant for this very instance becomes a running
// container, step by step, and everything else becomes nothing. It reports what came of it as commands; it
// decides nothing about other nodes.
package agent

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/release"
	"github.com/keepone-ha/keepone/pkg/worker"
)

// Replica is what the agent needs of the replicated state.
type Replica interface {
	// State is what this node has applied so far. It may be behind the leader's.
	State() core.State
	// Watch is State, and a channel that is closed when it is no longer the newest.
	Watch() (core.State, <-chan struct{})
	// Propose has the leader commit c. Unknown: it may be committed yet.
	Propose(ctx context.Context, c core.Command) (core.Outcome, error)
}

// Starter runs one activation in a helper process inside the service's cgroup.
type Starter interface {
	// Start spawns the helper. The progress channel is closed when the helper has ended.
	Start(ctx context.Context, plan worker.Plan) (Activation, error)
}

// Activation is one running helper.
type Activation interface {
	Progress() <-chan worker.Progress
	Go() error // lets the helper pass StepMapped
	Kill()     // ends it; what it did stays for the stop that must follow
}

// Here is what of one service is on this node. Its zero value: nothing.
type Here struct {
	Record *release.Record // nil: nothing of it was activated in this life
	Facts  release.Facts   // what the kernel says of the record
	Buried bool            // a tombstone stops the record's attempt: somebody stops it, or has
	Lease  bool            // the guard was the first who did, at the end of its lease
}

// Node takes down, and knows what is here: pkg/release, or a fake.
type Node interface {
	// Services are those with a record of this life, readable or not.
	Services() ([]core.ServiceName, error)
	// Here looks at one service. With an error nothing is known of it.
	Here(name core.ServiceName) (Here, error)
	Stop(ctx context.Context, r release.Record, graceful time.Duration) release.Result
	StopContainer(ctx context.Context, r release.Record, graceful time.Duration) release.Result
	// Exited is closed when the container's init has ended. An error: it can't be watched.
	Exited(ctx context.Context, r release.Record) (<-chan struct{}, error)
	// Failing says what is certainly wrong with the volume; empty: nothing, or it can't be told.
	Failing(ctx context.Context, r release.Record) string
}

// Net looks after the service's addresses on its link.
type Net interface {
	// Duplicate says who else answers for an address of the service.
	Duplicate(ctx context.Context, n core.NetworkSpec) (Bearer, error)
	// Announce tells the network where the addresses are, again and again while good says so.
	Announce(ctx context.Context, a Announcement, good func() bool)
}

// Bearer is who answers for a service's address while it does not run here. The zero value: nobody.
type Bearer struct {
	Stranger  string // somebody who was given the address by mistake; says what to do
	OldHolder bool   // the service's own MAC: the kernel of a holder that was cut off is still on the network
}

// Announcement says where a service's addresses are.
type Announcement struct {
	Network   core.NetworkSpec
	Link      string // the container's, a port of the bridge
	Contested bool   // an old holder's kernel answers too: announce often, and for as long as it runs here
}

// Prober asks the service whether it answers.
type Prober interface {
	// Probe returns nil if every probe of the service is healthy, else what the first unhealthy one said.
	Probe(ctx context.Context, svc core.ServiceSpec) error
}

// Claims is what a cluster manager has asked for on this node and still waits for.
type Claims interface {
	// Claimed reports whether the service is claimed, and a channel that is closed when that may have changed.
	Claimed(name core.ServiceName) (bool, <-chan struct{})
}

// Config is what an agent works with.
type Config struct {
	Self     core.NodeName
	Instance core.Instance
	Places   Places
	Replica  Replica
	Starter  Starter
	Node     Node
	Net      Net
	Prober   Prober
	Claims   Claims                                  // of a cluster manager
	Leased   func(core.ServiceName, core.Epoch) bool // the guard's word that the lease is live
	Log      *slog.Logger
}

// Places are where things of services are on this node.
type Places struct {
	Run     string // /run/keepone
	Volumes string
	Cgroups string
	Ceph    worker.Ceph
}

// Agent runs one runner for each service.
type Agent struct {
	cfg     Config
	mu      sync.Mutex
	runners map[core.ServiceName]*runner
}

// New makes an agent; Run starts it.
func New(cfg Config) *Agent {
	return &Agent{cfg: cfg, runners: map[core.ServiceName]*runner{}}
}

// Run works until ctx ends, then returns when every runner has. It leaves what runs running: the daemon may be
// restarted at any time, and adopts what it finds.
func (a *Agent) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	recorded, err := a.cfg.Node.Services()
	if err != nil {
		a.cfg.Log.Error("can't list what was activated here; a service without a grant here is left alone", "err", err)
	}
	for {
		state, changed := a.cfg.Replica.Watch()
		for _, name := range a.needed(state, recorded) {
			r := newRunner(a.cfg, name)
			a.mu.Lock()
			a.runners[name] = r
			a.mu.Unlock()
			running.Go(func() { r.run(ctx) })
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// Wake has the service looked at now: something of it was changed by another hand.
func (a *Agent) Wake(name core.ServiceName) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r := a.runners[name]; r != nil {
		select {
		case r.woken <- struct{}{}:
		default:
		}
	}
}

// needed are the services without a runner that have a grant for this node or a record here.
func (a *Agent) needed(state core.State, recorded []core.ServiceName) []core.ServiceName {
	var names []core.ServiceName
	add := func(name core.ServiceName) {
		if _, ok := a.runners[name]; !ok {
			names = append(names, name)
		}
	}
	known := map[core.ServiceName]bool{}
	for _, name := range state.ServiceNames() {
		if g := state.Services[name].Grant; g != nil && g.Node == a.cfg.Self && g.Instance == a.cfg.Instance {
			known[name] = true
			add(name)
		}
	}
	for _, name := range recorded {
		if !known[name] {
			add(name)
		}
	}
	return names
}

// Health says how each service here does, for status.
func (a *Agent) Health() map[core.ServiceName]string {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := map[core.ServiceName]string{}
	for name, r := range a.runners {
		all[name] = r.doing()
	}
	return all
}
