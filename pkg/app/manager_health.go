package app

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/keepone-ha/keepone/pkg/api"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/guard"
	"github.com/keepone-ha/keepone/pkg/op"
	"github.com/keepone-ha/keepone/pkg/release"
)

// The depths of a probe, as OCF_CHECK_LEVEL has them.
const (
	depthVolume = 10
	depthProbes = 20
)

// opHealth says how this daemon does, for a cluster manager's controller.
func (a *App) opHealth(ctx context.Context, _ api.Caller, _ json.RawMessage, _ func(any) error) (any, error) {
	state := a.replica.State()
	seen := a.bestFacts(ctx)
	h := op.Health{
		Healthy: true, Node: a.file.Name, Manager: state.Spec.Manager, Leader: seen.Leader, Quorum: seen.Quorum,
		Services: map[core.ServiceName]op.Able{},
	}
	for name, able := range a.able() {
		h.Services[name] = op.Able(able)
	}
	switch {
	case state.Cluster == "":
		h.Healthy, h.Why = false, "this node has not yet heard of its cluster: keepone status"
	case a.guardAway(ctx) != nil:
		h.Healthy, h.Why = false, "its guard does not answer: systemctl status keepone-guard"
	case !h.Quorum:
		h.Why = "no leader with a quorum answers"
	}
	return h, nil
}

func (a *App) guardAway(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, guardLimit)
	defer cancel()
	client, err := guard.Dial(a.file.RunDir)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	return client.Healthy(ctx)
}

// opProbe looks whether the service is well here.
func (a *App) opProbe(ctx context.Context, _ api.Caller, body json.RawMessage, _ func(any) error) (any, error) {
	var ask op.Probe
	if err := json.Unmarshal(body, &ask); err != nil {
		return nil, api.Refuse("read request: %v", err)
	}
	state := a.replica.State()
	spec := state.Spec.Service(ask.Service)
	if spec == nil {
		return nil, api.Refuse("the cluster document has no service %q", ask.Service)
	}
	return probed(ctx, ask.Service, a.unwell(ctx, *spec, ask.Depth))
}

// probed is what a look says that found why. One that was cut short, as the asker has left or this daemon ends, says
// nothing of the service: a cluster manager would stop it for that.
func probed(ctx context.Context, name core.ServiceName, why string) (op.Probed, error) {
	if err := ctx.Err(); err != nil {
		return op.Probed{}, fmt.Errorf("look at %s: cut short: %w", name, err)
	}
	return op.Probed{OK: why == "", Why: why}, nil
}

// unwell says what is wrong with the service here as deep as asked, empty if nothing is.
func (a *App) unwell(ctx context.Context, spec core.ServiceSpec, depth int) string {
	if depth >= depthVolume {
		if why := a.volumeSick(ctx, spec.Name); why != "" {
			return why
		}
	}
	if depth >= depthProbes {
		if err := a.prober.Probe(ctx, spec); err != nil {
			return err.Error()
		}
	}
	return ""
}

// volumeSick says what is wrong with the service's volume here, empty if nothing is.
func (a *App) volumeSick(ctx context.Context, name core.ServiceName) string {
	if !a.hasGrant(name) {
		return "this node does not hold the service: its storage clients are cut off"
	}
	record, err := release.Load(a.file.RunDir, name)
	if err != nil {
		return fmt.Sprintf("what is here can't be told: %v", err)
	}
	return release.Sick(ctx, record)
}

// device is the block device of the service's volume here, empty if it is not known.
func (a *App) device(name core.ServiceName) string {
	record, err := release.Load(a.file.RunDir, name)
	if err != nil {
		return ""
	}
	return record.Storage.Device
}
