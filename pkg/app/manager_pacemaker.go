package app

import (
	"context"

	"github.com/keepone-ha/keepone/pkg/drive/pacemaker"
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
