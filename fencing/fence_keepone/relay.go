package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/keepone-ha/keepone/pkg/api"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/fence"
	"github.com/keepone-ha/keepone/pkg/fence/relay"
	"github.com/keepone-ha/keepone/pkg/op"
	"github.com/keepone-ha/keepone/pkg/pki"
)

// off has the node fenced, see relay.Relay.
func (a *agent) off(ctx context.Context) (op.Fenced, error) {
	peers, err := a.openPeers()
	if err != nil {
		a.say("other nodes can't be asked: %v", err)
	} else {
		defer peers.close()
	}
	settings, noSettings := fence.LoadSettings(a.file.DataDir)
	return relay.Relay{
		Target: a.Plug, Self: a.file.Name, Election: settings.Timing.RaftElection, NoSettings: noSettings,
		AloneDelay: a.AloneDelay, ShellTimeout: a.ShellTimeout, PowerTimeout: a.PowerTimeout,
		Ask:     func(ctx context.Context) (op.Fenced, bool, error) { return a.ask(ctx, peers) },
		Quorate: a.quorate, Say: a.say,
		Shoot: func(ctx context.Context) (op.Fenced, error) { return a.shoot(ctx, settings) },
	}.Off(ctx)
}

// ask tries this node's daemon, then those of the others that follow a leader. led reports whether any knew one.
func (a *agent) ask(ctx context.Context, peers *peers) (fenced op.Fenced, led bool, err error) {
	return relay.Daemons{
		Local: a.askDaemon, Say: a.say,
		Led: func(ctx context.Context) []core.NodeName { return peers.led(ctx, a.LoginTimeout, a.Plug) },
		Through: func(ctx context.Context, name core.NodeName) (answer op.Fenced, err error) {
			err = peers.node.Call(ctx, name, op.MethodFence, a.request(), &answer)
			return answer, err
		},
	}.Ask(ctx)
}

func (a *agent) request() op.Fence { return op.Fence{Node: a.Plug, By: "fence_keepone"} }

// askDaemon asks the daemon of this node. It says at once that it heard: one that does not within shell_timeout hangs, and
// then another's is asked; what this one may order yet is the same order.
func (a *agent) askDaemon(ctx context.Context) (op.Fenced, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	deaf := time.AfterFunc(a.ShellTimeout, func() { cancel(relay.ErrDeaf) })
	defer deaf.Stop()
	var fenced op.Fenced
	err := api.CallLocal(ctx, a.socket(), op.MethodFence, a.request(), func(line json.RawMessage) {
		deaf.Stop()
		var p op.Progress
		if json.Unmarshal(line, &p) == nil {
			a.say("%s", p.Text)
		}
	}, &fenced)
	if err != nil && errors.Is(context.Cause(ctx), relay.ErrDeaf) {
		err = relay.ErrDeaf
	}
	return fenced, err
}

// peers are the other nodes' daemons, spoken to with this node's own certificate: only root can read its key.
type peers struct {
	node  *api.Node
	mux   *api.Mux
	names []core.NodeName
}

// openPeers knows the others' addresses as the daemon last left them.
func (a *agent) openPeers() (*peers, error) {
	id, err := pki.Load(a.file.DataDir)
	if err != nil {
		return nil, err
	}
	settings, err := fence.LoadSettings(a.file.DataDir)
	if err != nil {
		return nil, err
	}
	p := &peers{}
	for _, n := range settings.Nodes {
		if n.Name != id.Name {
			p.names = append(p.names, n.Name)
		}
	}
	quiet := slog.New(slog.DiscardHandler)
	dialer := api.NewDialer(id, func(name core.NodeName) []netip.AddrPort {
		var at []netip.AddrPort
		if n := settings.Node(name); n != nil {
			for _, link := range n.Links {
				at = append(at, netip.AddrPortFrom(link, a.file.Ports.API))
			}
		}
		return at
	}, a.dial)
	p.mux = api.NewMux(id, nil, quiet) // it serves nothing
	p.node = api.NewNode(id.Name, p.mux, dialer, quiet)
	return p, nil
}

// close ends the connections.
func (p *peers) close() {
	_ = p.node.Close()
	_ = p.mux.Close()
}

// led are the peers that follow a leader, asked side by side; the node that is to be fenced is asked last.
func (p *peers) led(ctx context.Context, limit time.Duration, target core.NodeName) []core.NodeName {
	if p == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var mu sync.Mutex
	var found []core.NodeName
	var wait sync.WaitGroup
	for _, name := range p.names {
		wait.Go(func() {
			var follows op.Leads
			if err := p.node.Call(ctx, name, op.MethodLeader, struct{}{}, &follows); err == nil && follows.Leader != "" {
				mu.Lock()
				defer mu.Unlock()
				found = append(found, name)
			}
		})
	}
	wait.Wait()
	slices.SortFunc(found, func(x, y core.NodeName) int {
		switch {
		case (x == target) != (y == target) && x == target:
			return 1
		case (x == target) != (y == target):
			return -1
		case x < y:
			return -1
		}
		return 1
	})
	return found
}
