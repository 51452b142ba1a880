package app

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/guard"
	"github.com/keepone-ha/keepone/pkg/observe"
)

const (
	everyLink  = -1 // an ack goes over all of them: one may work one way only
	pokeEvery  = 500 * time.Millisecond
	guardLimit = time.Second
	ackLimit   = time.Second
	ackGather  = 200 * time.Millisecond // a heartbeat; far below a lease
)

// guardLink is the daemon's side of the guards: it tells this node's own what to do, hears everybody's heartbeats,
// and answers them while this node leads.
type guardLink struct {
	app      *App
	raft     ackRaft
	receiver *guard.Receiver
	send     func(core.NodeName, guard.Ack) error
	beats    chan guard.Arrival // waiting for an ack
	urgent   chan guard.Arrival // the same, not to be kept waiting

	mu   sync.Mutex
	last map[core.NodeName]guard.Arrival // the newest heartbeat of each node
}

// ackRaft is what an ack stands on.
type ackRaft interface {
	Leads() bool
	VerifyQuorum(ctx context.Context) error
	Term() uint64
	State() core.State
	Now() core.Time
}

func newGuardLink(a *App) *guardLink {
	g := &guardLink{app: a, beats: make(chan guard.Arrival, 256), urgent: make(chan guard.Arrival, 16), last: map[core.NodeName]guard.Arrival{}}
	g.send = func(to core.NodeName, ack guard.Ack) error { return g.receiver.SendAck(everyLink, to, ack) }
	return g
}

// run keeps guard.conf true, hears, answers, and pokes.
func (g *guardLink) run(ctx context.Context) {
	poked := make(chan struct{})
	go func() {
		defer close(poked)
		g.poke(ctx)
	}()
	defer func() { <-poked }()
	acked := make(chan struct{})
	go func() {
		defer close(acked)
		g.answer(ctx)
	}()
	defer func() { <-acked }()
	var version uint64
	var members int
	for {
		state, changed := g.app.replica.Watch()
		if state.Cluster != "" && (state.Document.Version != version || memberSum(state) != members) {
			g.app.replica.SetElection(state.Spec.Timing.RaftElection)
			if err := errors.Join(g.configure(ctx, state), g.app.seeds.save(state.Spec), g.app.saveFencing(state)); err != nil {
				g.app.log.Error("configure guard", "err", err)
			} else {
				version, members = state.Document.Version, memberSum(state)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-time.After(pokeEvery):
		}
	}
}

// memberSum changes whenever a member comes, goes or comes back with another key.
func memberSum(s core.State) int {
	sum := 0
	for i, name := range s.NodeNames() {
		for _, b := range []byte(string(name) + string(s.Nodes[name].PublicKey)) {
			sum = sum*31 + int(b) + i
		}
	}
	return sum
}

// configure writes guard.conf and lets the receiver follow.
func (g *guardLink) configure(ctx context.Context, state core.State) error {
	f := g.app.file
	conf := guard.Conf{
		Cluster: state.Cluster, Node: f.Name,
		Heartbeat: state.Spec.Timing.Heartbeat, Lease: state.Spec.Timing.Lease,
		Links: withPort(f.Links, f.Ports.Guard), Watchdog: guard.WatchdogConf(f.Watchdog),
	}
	var guards []guard.Peer
	for _, name := range state.NodeNames() {
		spec := state.Spec.Node(name)
		if spec == nil {
			continue
		}
		key, err := g.app.id.PairKey(state.Nodes[name].PublicKey)
		if err != nil {
			return err
		}
		peer := guard.Peer{Node: name, Links: withPort(spec.Links, f.Ports.Heartbeat)}
		copy(peer.Key[:], key)
		conf.Peers = append(conf.Peers, peer)
		peer.Links = withPort(spec.Links, f.Ports.Guard)
		guards = append(guards, peer)
	}
	if err := guard.WriteConf(f.RunDir, conf); err != nil {
		return err
	}
	if g.receiver != nil {
		g.receiver.SetPeers(guards)
		return nil
	}
	receiver, err := guard.NewReceiver(guard.ReceiverConf{
		Cluster: state.Cluster, Node: f.Name, Links: withPort(f.Links, f.Ports.Heartbeat), Peers: guards,
		Deliver: g.deliver, Log: g.app.log,
	})
	if err != nil {
		return err
	}
	g.receiver = receiver
	g.app.wait.Go(func() {
		if err := receiver.Run(ctx); err != nil {
			g.app.log.Error("heartbeats are not received", "err", err)
		}
	})
	return nil
}

func withPort(links []netip.Addr, port uint16) []netip.AddrPort {
	var all []netip.AddrPort
	for _, link := range links {
		all = append(all, netip.AddrPortFrom(link, port))
	}
	return all
}

// deliver must not block: a heartbeat that finds no room is answered by the next one.
func (g *guardLink) deliver(a guard.Arrival) {
	g.app.observer.Heard(a)
	g.mu.Lock()
	was := g.last[a.Heartbeat.Node].Heartbeat
	g.last[a.Heartbeat.Node] = a
	g.mu.Unlock()
	if was.Instance != a.Heartbeat.Instance || was.Seq != a.Heartbeat.Seq { // else it came over another link before
		g.queue(g.beats, a)
	}
}

func (g *guardLink) queue(to chan<- guard.Arrival, a guard.Arrival) {
	if !g.raft.Leads() {
		return
	}
	select {
	case to <- a:
	default:
	}
}

// ackAgain answers a node's newest heartbeat once more: a new grant has its lease now, not at the next heartbeat.
func (g *guardLink) ackAgain(name core.NodeName) {
	g.mu.Lock()
	a, ok := g.last[name]
	g.mu.Unlock()
	if ok {
		g.queue(g.urgent, a)
	}
}

// answer acks heartbeats: first they arrive, then the quorum is made sure of, and only then they are acked (I5). A
// burst shares one round.
func (g *guardLink) answer(ctx context.Context) {
	for {
		burst := g.gather(ctx)
		if burst == nil {
			return
		}
		bounded, cancel := context.WithTimeout(ctx, ackLimit)
		err := g.raft.VerifyQuorum(bounded)
		cancel()
		if err != nil {
			continue // no quorum, no ack: the leases run out
		}
		for _, a := range burst {
			g.ack(a)
		}
	}
}

// gather waits for a heartbeat, and a little longer for those of the other nodes: a lease counts from when its
// heartbeat was sent, so the wait costs nothing, and a round for each heartbeat would cost CPU all the time. A new
// grant is not kept waiting. Nil: ctx has ended.
func (g *guardLink) gather(ctx context.Context) []guard.Arrival {
	var burst []guard.Arrival
	var enough <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case next := <-g.beats:
			burst = append(burst, next)
			if enough == nil {
				timer := time.NewTimer(ackGather)
				defer timer.Stop()
				enough = timer.C
			}
		case <-enough:
			return burst
		case next := <-g.urgent:
			return append(burst, next)
		}
	}
}

// ack answers one heartbeat with the grants of its very instance.
func (g *guardLink) ack(a guard.Arrival) {
	ack, ok := observe.Ack(g.raft.State(), a.Heartbeat, g.raft.Term(), g.raft.Now())
	if !ok || !g.app.observer.Acking(ack.Grants, a.At) || !observe.StillAcks(g.raft.State(), ack) {
		return
	}
	if err := g.send(a.Heartbeat.Node, ack); err != nil {
		g.app.log.Debug("ack heartbeat", "node", string(a.Heartbeat.Node), "err", err)
	}
}

// poke tells the guard that this daemon is well.
func (g *guardLink) poke(ctx context.Context) {
	for ctx.Err() == nil {
		bounded, cancel := context.WithTimeout(ctx, guardLimit)
		client, err := guard.Dial(g.app.file.RunDir)
		if err == nil {
			err = client.Healthy(bounded)
			_ = client.Close()
		}
		cancel()
		if err != nil && ctx.Err() == nil {
			g.app.log.Debug("the guard does not answer", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pokeEvery):
		}
	}
}

// leased asks the guard whether the lease of a grant is live.
func (g *guardLink) leased(service core.ServiceName, epoch core.Epoch) bool {
	ctx, cancel := context.WithTimeout(context.Background(), guardLimit)
	defer cancel()
	client, err := guard.Dial(g.app.file.RunDir)
	if err != nil {
		return false
	}
	defer func() { _ = client.Close() }()
	until, ok, err := client.Lease(ctx, service, epoch)
	return err == nil && ok && boottime.Now() < until
}
