package app

import (
	"context"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/drive/pacemaker"
	"github.com/keepone-ha/keepone/pkg/setup"
)

// pacemakerNode is this node's Pacemaker.
type pacemakerNode struct{}

// Set implements attributes.
func (pacemakerNode) Set(ctx context.Context, name, value string) error {
	return pacemaker.SetAttribute(ctx, name, value)
}

// Delete implements attributes.
func (pacemakerNode) Delete(ctx context.Context, name string) error {
	return pacemaker.DeleteAttribute(ctx, name)
}

// onlyOurs lets client scope do for a node on which Pacemaker shows nothing but keepone's resources.
type onlyOurs struct{ state func() core.State }

// ClientScopeEnough implements ClientScope.
func (o onlyOurs) ClientScopeEnough(ctx context.Context, node core.NodeName) (bool, string) {
	state := o.state()
	if state.Spec.Manager != core.ManagerPacemaker || !state.Spec.ClientScope {
		return false, "the cluster document does not say client_scope = true in [pacemaker]"
	}
	status, err := pacemaker.ReadStatus(ctx)
	if err != nil {
		return false, err.Error()
	}
	return pacemaker.OnlyOurs(status, string(node), setup.FileSystems(state.Spec)...)
}
