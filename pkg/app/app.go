// Package app wires the rooms of one node's daemon together. It decides nothing: the leader's core does, the
// agent and the fencer carry out, and what they did comes back as facts and commands.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keepone-ha/keepone/pkg/agent"
	"github.com/keepone-ha/keepone/pkg/api"
	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/config"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/fence"
	"github.com/keepone-ha/keepone/pkg/managed"
	"github.com/keepone-ha/keepone/pkg/observe"
	"github.com/keepone-ha/keepone/pkg/op"
	"github.com/keepone-ha/keepone/pkg/pki"
	"github.com/keepone-ha/keepone/pkg/release"
	"github.com/keepone-ha/keepone/pkg/replica"
	"github.com/keepone-ha/keepone/pkg/worker"
)

// defaultElection is a newcomer's until it knows the cluster document.
const defaultElection = 400 * time.Millisecond

// Options are what a daemon is started with.
type Options struct {
	File   config.NodeFile
	Binary string // what helpers are run from: this daemon's own binary
	Log    *slog.Logger
	Stderr io.Writer // of helpers

	ClientScope ClientScope // nil: client scope is never enough for the cluster manager
	Turn        func()      // called in each turn of the report loop: every 2 s at least in a daemon that is well; nil: none
}

// App is one node's daemon.
type App struct {
	file     config.NodeFile
	log      *slog.Logger
	id       *pki.Identity
	instance core.Instance

	seeds       *seeds
	peers       *api.Node
	replica     *replica.Replica
	observer    *observe.Observer
	storage     *storage
	bmcs        *fence.Reader
	problems    *bmcProblems
	clocks      clocks
	agent       *agent.Agent
	guard       *guardLink
	clientScope ClientScope
	turn        func()
	manager     *managerWatch
	leading     atomic.Bool // and has passed its barrier

	claims    *managed.Claims
	abilities *managed.Abilities
	publisher *managed.Publisher
	prober    *prober

	decideNow chan struct{}      // 1
	reportNow chan struct{}      // 1
	toPower   chan core.NodeName // what powerLoop is to switch on

	stop []func() // named in order of starting, run from the last
	wait sync.WaitGroup
	end  context.CancelFunc
}

// New reads this node's identity and opens nothing yet.
func New(o Options) (*App, error) {
	id, err := pki.Load(o.File.DataDir)
	if err != nil {
		return nil, fmt.Errorf("start keeponed: %w", err)
	}
	if id.Name != o.File.Name {
		return nil, fmt.Errorf("start keeponed: the node file names %q, the certificate in %s is %q's", o.File.Name, o.File.DataDir, id.Name)
	}
	if err := os.MkdirAll(o.File.RunDir, 0o755); err != nil {
		return nil, fmt.Errorf("start keeponed: make run directory: %w", err)
	}
	instance, err := release.Instance(o.File.RunDir)
	if err != nil {
		return nil, fmt.Errorf("start keeponed: %w", err)
	}
	if warning := id.Warning(time.Now()); warning != "" {
		o.Log.Warn(warning)
	}
	known, err := loadSeeds(o.File.DataDir)
	if err != nil {
		return nil, fmt.Errorf("start keeponed: %w", err)
	}
	helpers := worker.Helpers{Binary: o.Binary, Log: o.Stderr}
	a := &App{
		file: o.File, log: o.Log, id: id, instance: instance, seeds: known,
		storage:   newStorage(helpers, cephOf(o.File)),
		bmcs:      fence.NewReader(openBMC(id.Unseal)),
		problems:  &bmcProblems{all: map[core.NodeName]string{}},
		decideNow: make(chan struct{}, 1), reportNow: make(chan struct{}, 1),
		toPower: make(chan core.NodeName, mostPowerOns),
	}
	if a.turn = o.Turn; a.turn == nil {
		a.turn = func() {}
	}
	a.claims = managed.NewClaims()
	a.prober = &prober{id: id, exec: a.execIn}
	a.abilities = &managed.Abilities{Changed: func() { a.publisher.Again() }}
	a.publisher = newPublisher(o.File.RunDir, pacemakerNode{}, o.Log, a.able, a.hasGrant)
	if a.clientScope = o.ClientScope; a.clientScope == nil {
		a.clientScope = a
	}
	a.observer = observe.New(o.File.Name, boottime.Now(), func() { nudge(a.decideNow) })
	a.guard = newGuardLink(a)
	a.storage.full = a.volumeFull
	return a, nil
}

func cephOf(f config.NodeFile) worker.Ceph {
	return worker.Ceph{Conf: f.Ceph.Conf, Keyring: f.Ceph.Keyring, User: f.Ceph.User}
}

// nudge wakes who waits on c, once.
func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Start opens ports and log and begins to work. After an error nothing is left open.
func (a *App) Start(ctx context.Context) (err error) {
	ctx, a.end = context.WithCancel(ctx)
	defer func() {
		if err != nil {
			a.Stop()
		}
	}()
	mux := api.NewMux(a.id, a.admit, a.log)
	dialer := api.NewDialer(a.id, a.addresses, nil)
	a.peers = api.NewNode(a.file.Name, mux, dialer, a.log)
	a.peers.Handle(methodReport, a.serveReport)
	a.peers.Handle(methodFacts, a.serveFacts)
	a.peers.Handle(methodTryFence, a.serveTryFence)
	a.peers.Handle(methodApplied, a.serveApplied)
	a.peers.Handle(op.MethodFence, a.serveFence)
	a.peers.Handle(op.MethodLeader, a.serveLeader)
	api.ServeJoin(mux, a.id, a.redeem)
	a.replica, err = replica.New(replica.Options{
		Self: a.file.Name, Incarnation: a.id.Incarnation, DataDir: a.file.DataDir,
		Stream: api.NewStream(a.file.Name, mux, dialer), Caller: a.peers,
		Election: a.electionAtStart(), Logger: a.log, Check: a.authority,
		OnApply: func(core.State) { nudge(a.decideNow) },
	})
	if err != nil {
		return fmt.Errorf("start keeponed: %w", err)
	}
	a.onStop(func() { _ = a.replica.Stop() })
	a.guard.raft = a.replica
	a.manager = newManagerWatch(a.replica.Watch, a.leading.Load, func() { nudge(a.decideNow) })
	a.warnIdentity()
	a.peers.Handle(replica.MethodPropose, a.replica.HandlePropose)
	a.onStop(func() { _ = mux.Close() })
	if err := a.listen(ctx, mux); err != nil {
		return err
	}
	if err := a.found(ctx); err != nil {
		return err
	}
	a.agent = a.newAgent()
	a.work(ctx)
	if err := a.openMetrics(); err != nil {
		return err
	}
	return a.openLocal()
}

// electionAtStart is Raft's timeout by the document that this node knew last, or founds its cluster with.
func (a *App) electionAtStart() time.Duration {
	if a.seeds.election > 0 {
		return a.seeds.election
	}
	path := filepath.Join(a.file.DataDir, config.FoundingFile)
	if text, err := os.ReadFile(path); err == nil {
		if spec, err := config.Parse(string(text), config.Options{File: path, Sealed: true}); err == nil {
			return spec.Timing.RaftElection
		}
	}
	return defaultElection
}

func (a *App) onStop(f func()) { a.stop = append(a.stop, f) }

// listen serves the node port on every link.
func (a *App) listen(ctx context.Context, mux *api.Mux) error {
	for _, link := range a.file.Links {
		l, err := api.Listen(ctx, netip.AddrPortFrom(link, a.file.Ports.API))
		if err != nil {
			return fmt.Errorf("start keeponed: %w", err)
		}
		a.wait.Go(func() {
			if err := mux.Serve(l); err != nil {
				a.log.Error("node port closed", "err", err)
			}
		})
	}
	return nil
}

// found makes this node the first of its cluster, if `keepone init` left it that to do.
func (a *App) found(ctx context.Context) error {
	path := filepath.Join(a.file.DataDir, config.FoundingFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("found cluster: %w", err)
	}
	if !a.replica.Empty() && a.replica.State().Cluster != "" {
		return os.Remove(path)
	}
	spec, err := config.Parse(string(text), config.Options{File: path, Sealed: true})
	if err != nil {
		return fmt.Errorf("found cluster: %w", err)
	}
	const bound = 15 * time.Second
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	document := core.Document{Text: string(text), Digest: config.Digest(string(text))}
	err = a.replica.Bootstrap(ctx,
		core.Init{Cluster: newClusterID(spec.Cluster), Document: document, Spec: spec},
		core.Join{Node: a.file.Name, Incarnation: a.id.Incarnation, PublicKey: a.id.Public()})
	if err != nil && !errors.Is(err, replica.ErrBootstrapped) {
		return fmt.Errorf("found cluster: %w", err)
	}
	a.log.Info("cluster founded", "cluster", spec.Cluster)
	return os.Remove(path)
}

func (a *App) newAgent() *agent.Agent {
	return agent.New(agent.Config{
		Self: a.file.Name, Instance: a.instance,
		Places: agent.Places{
			Run: a.file.RunDir, Volumes: a.file.VolumesDir, Cgroups: a.file.CgroupRoot, Ceph: cephOf(a.file),
		},
		Replica: a.replica,
		Starter: starter{a.storageHelpers()},
		Node:    kernel{a.file.RunDir, func() { nudge(a.reportNow) }},
		Net:     network{func(what string, err error) { a.log.Warn(what, "err", err) }},
		Prober:  a.prober,
		Claims:  a.claims,
		Leased:  a.guard.leased,
		Log:     a.log,
	})
}

func (a *App) storageHelpers() worker.Helpers { return a.storage.helpers }

// work starts everything that runs for as long as the daemon does.
func (a *App) work(ctx context.Context) {
	f := &fencer{app: a, done: map[uint64]int{}}
	for _, loop := range []func(context.Context){
		a.guard.run, a.reportLoop, f.loop, a.leadLoop, a.memberLoop,
		func(ctx context.Context) {
			if a.catchUp(ctx) == nil {
				a.wait.Go(func() { a.publisher.Loop(ctx) })
				_ = a.agent.Run(ctx)
			}
		},
		func(ctx context.Context) {
			a.storage.watch(ctx, a.replica.State, func() { nudge(a.reportNow) })
		},
		a.watchBMCs, a.manager.run, a.powerLoop,
	} {
		a.wait.Go(func() { loop(ctx) })
	}
	a.onStop(a.storage.close)
	a.onStop(a.bmcs.Close)
}

// alive reports whether a node's heartbeats arrive.
func (a *App) alive(name core.NodeName) bool {
	_, heard, ok := a.observer.Beat(name)
	return ok && boottime.Now().Sub(heard) < a.replica.State().Spec.Timing.Suspect
}

// Fatal hands out the one error after which the daemon must end.
func (a *App) Fatal() <-chan error { return a.replica.Fatal() }

// Stop ends all of it, last started first. Containers stay: they are the guard's to watch and the next daemon's to
// adopt.
func (a *App) Stop() {
	if a.replica != nil && a.replica.Leads() {
		a.handOver()
	}
	if a.end != nil {
		a.end()
	}
	for i := len(a.stop) - 1; i >= 0; i-- {
		a.stop[i]()
	}
	a.wait.Wait()
}

// handOver gives leadership to a voter that is heard, so that a restart costs no election.
func (a *App) handOver() {
	const bound = 2 * time.Second
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	for _, m := range a.replica.Members() {
		if m.Voter && m.Name != a.file.Name && a.alive(m.Name) {
			if err := a.replica.TransferLeadership(ctx, m.Name); err == nil {
				return
			}
		}
	}
}
