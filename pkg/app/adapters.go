package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepone-ha/keepone/pkg/agent"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/drive/netif"
	"github.com/keepone-ha/keepone/pkg/drive/probe"
	"github.com/keepone-ha/keepone/pkg/pki"
	"github.com/keepone-ha/keepone/pkg/release"
	"github.com/keepone-ha/keepone/pkg/worker"
)

// errLeaving is why nothing is started on a node that is being shut down.
var errLeaving = errors.New("this node is going down")

// starter gives the agent its activations.
type starter struct{ helpers worker.Helpers }

func (s starter) Start(ctx context.Context, plan worker.Plan) (agent.Activation, error) {
	if release.Leaving(plan.Run) { // the grant was given before the leader heard of it
		return nil, errLeaving
	}
	a, err := s.helpers.Start(ctx, plan)
	if err != nil {
		return nil, err
	}
	return a, nil
}

// kernel gives the agent pkg/release.
type kernel struct {
	runDir string
	// stopped is called after a stop: this node's report, that it holds the service, is out of date.
	stopped func()
}

func (k kernel) Services() ([]core.ServiceName, error) {
	entries, err := os.ReadDir(filepath.Join(k.runDir, "services"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list records: %w", err)
	}
	var names []core.ServiceName
	for _, e := range entries {
		names = append(names, core.ServiceName(e.Name()))
	}
	return names, nil
}

func (k kernel) Here(name core.ServiceName) (agent.Here, error) {
	r, err := release.Load(k.runDir, name)
	if errors.Is(err, fs.ErrNotExist) {
		return agent.Here{}, nil
	}
	if err != nil {
		return agent.Here{}, err
	}
	facts, err := release.Running(k.runDir, r)
	if err != nil {
		return agent.Here{}, fmt.Errorf("read facts of %s: %w", name, err)
	}
	buried, why, err := release.Buried(k.runDir, name, r.Epoch, r.Attempt)
	return agent.Here{Record: &r, Facts: facts, Buried: buried, Lease: buried && why == release.LeaseEnded}, err
}

func (k kernel) Stop(ctx context.Context, r release.Record, graceful time.Duration) release.Result {
	defer k.stopped()
	return release.Stop(ctx, k.runDir, r, release.Options{Graceful: graceful, Reason: "stopped by keeponed"})
}

func (k kernel) StopContainer(ctx context.Context, r release.Record, graceful time.Duration) release.Result {
	return release.StopContainer(ctx, k.runDir, r, release.Options{Graceful: graceful, Reason: "restart in place"})
}

func (kernel) Failing(ctx context.Context, r release.Record) string { return release.Failing(ctx, r) }

// Exited watches the init by its pidfd: the kernel tells at once, nothing is polled.
func (k kernel) Exited(ctx context.Context, r release.Record) (<-chan struct{}, error) {
	fd, err := unix.PidfdOpen(r.Init.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		gone := make(chan struct{})
		close(gone)
		return gone, nil
	}
	if err != nil {
		return nil, fmt.Errorf("watch init %d: %w", r.Init.PID, err)
	}
	exited := make(chan struct{})
	if alive, err := r.Init.Alive(); err == nil && !alive { // the pid was another's by now
		_ = unix.Close(fd)
		close(exited)
		return exited, nil
	}
	go func() {
		defer func() { _ = unix.Close(fd) }()
		const slice = 500 // ms: how soon the watch itself ends with ctx
		for ctx.Err() == nil {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, slice)
			if n > 0 {
				close(exited)
				return
			}
			if err != nil && !errors.Is(err, unix.EINTR) {
				return
			}
		}
	}()
	return exited, nil
}

// network gives the agent pkg/drive/netif.
type network struct{ warn func(string, error) }

func (n network) Duplicate(ctx context.Context, spec core.NetworkSpec) (agent.Bearer, error) {
	var found agent.Bearer
	mac, err := net.ParseMAC(spec.MAC)
	if err != nil || spec.Bridge == "" {
		return found, nil
	}
	for _, prefix := range spec.Addresses {
		who, err := netif.Duplicate(ctx, spec.Bridge, prefix.Addr())
		if err != nil {
			return found, fmt.Errorf("look for another bearer of %s: %w", prefix.Addr(), err)
		}
		if who == nil {
			continue
		}
		if who.String() == mac.String() {
			// The old holder's kernel answers although its storage is cut off, or it hangs. It is fenced; the
			// announcements have to win the network over, again and again.
			n.warn("look for another bearer", fmt.Errorf("%s is still answered for with the service's own MAC: an old holder's kernel is on the network", prefix.Addr()))
			found.OldHolder = true
			continue
		}
		found.Stranger = fmt.Sprintf("address %s is in use by %s on this link: take it from there, or change the service's address", prefix.Addr(), who)
		return found, nil
	}
	return found, nil
}

func (n network) Announce(ctx context.Context, a agent.Announcement, good func() bool) {
	spec := a.Network
	mac, err := net.ParseMAC(spec.MAC)
	if err != nil || spec.Bridge == "" {
		return
	}
	var addrs []netip.Addr
	for _, prefix := range spec.Addresses {
		addrs = append(addrs, prefix.Addr())
	}
	failed := func(err error) { n.warn("announce addresses", err) }
	if err := netif.Pin(a.Link, mac); err != nil { // a bridge of another make has its own ways
		failed(err)
	}
	what := netif.Announcement{Bridge: spec.Bridge, MAC: mac, Addresses: addrs, Contested: a.Contested}
	if err := netif.Announce(ctx, what, good, failed); err != nil {
		failed(err)
	}
}

// prober gives the agent pkg/drive/probe; each service's probes are made once for each document.
type prober struct {
	id   *pki.Identity
	exec func(ctx context.Context, service core.ServiceName, argv []string) (int, string, error)

	mu   sync.Mutex
	made map[string]probe.Probe
}

func (p *prober) Probe(ctx context.Context, svc core.ServiceSpec) error {
	for _, spec := range svc.Probes {
		asked, err := p.probe(svc, spec)
		if err != nil {
			return err
		}
		if result := asked.Probe(ctx); result.Health != probe.Healthy {
			return fmt.Errorf("%s probe: %s", spec.Kind, result.Reason)
		}
	}
	return nil
}

func (p *prober) probe(svc core.ServiceSpec, spec core.ProbeSpec) (probe.Probe, error) {
	var host netip.Addr
	if len(svc.Network.Addresses) > 0 {
		host = svc.Network.Addresses[0].Addr()
	}
	key := fmt.Sprintf("%s %s %+v", svc.Name, host, spec)
	p.mu.Lock()
	defer p.mu.Unlock()
	if made, ok := p.made[key]; ok {
		return made, nil
	}
	made, err := probe.New(spec, probe.Parts{
		Host:   host,
		Secret: func() (string, error) { return p.id.Unseal(spec.Password) },
		Exec: func(ctx context.Context, argv []string) (int, string, error) {
			return p.exec(ctx, svc.Name, argv)
		},
	})
	if err != nil {
		return nil, fmt.Errorf("make %s probe of %s: %w", spec.Kind, svc.Name, err)
	}
	if p.made == nil || len(p.made) > 64 {
		p.made = map[string]probe.Probe{}
	}
	p.made[key] = made
	return made, nil
}
