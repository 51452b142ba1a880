package app

import (
	"context"
	"encoding/json"
	"path/filepath"
	"time"

	"github.com/keepone-ha/keepone/pkg/api"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/drive/blockfs"
	"github.com/keepone-ha/keepone/pkg/op"
	"github.com/keepone-ha/keepone/pkg/release"
	"github.com/keepone-ha/keepone/pkg/worker"
)

// volumeLimit bounds the making of a volume: unpacking a front-end of some GiB on slow disks.
const volumeLimit = 30 * time.Minute

// opVolume makes or claims a service's volume here. The service must hold no grant: nobody may write it meanwhile.
func (a *App) opVolume(ctx context.Context, _ api.Caller, body json.RawMessage, send func(any) error) (any, error) {
	var in op.Volume
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, api.Refuse("read request: %v", err)
	}
	state := a.replica.State()
	spec := state.Spec.Service(in.Service)
	svc := state.Services[in.Service]
	switch {
	case spec == nil:
		return nil, api.Refuse("service %q is not in the cluster document; `keepone service list` shows them", in.Service)
	case svc.Grant != nil:
		return nil, api.Refuse("service %q is held by %s: `keepone service stop %s` first", in.Service, svc.Grant.Node, in.Service)
	case !in.Claim && (in.From == "" || in.Size == 0):
		return nil, api.Refuse("a volume needs --from (tarball or directory) and --size")
	}
	job := worker.VolumeJob{
		Volume: worker.Volume{
			Ceph: cephOf(a.file), Spec: spec.Volume,
			Mount:  filepath.Join(a.file.VolumesDir, string(in.Service)),
			RunDir: release.Dir(a.file.RunDir, in.Service),
		},
		Limit: volumeLimit,
	}
	if in.Claim {
		job.Claim = &worker.ClaimVolume{Epoch: svc.Epoch + 1}
	} else {
		job.Create = &worker.CreateVolume{Size: in.Size, From: in.From}
	}
	began := time.Now()
	err := a.storage.helpers.Volume(ctx, job, func(p worker.VolumeProgress) {
		if p.Step != "" {
			_ = send(op.Progress{After: time.Since(began), Text: p.Step})
		}
	})
	if err != nil {
		return nil, err
	}
	return struct{}{}, nil
}

// volumeFull reports whether a service's volume is mounted here and has no room left.
func (a *App) volumeFull(ctx context.Context, name core.ServiceName) bool {
	record, err := release.Load(a.file.RunDir, name)
	if err != nil {
		return false
	}
	facts, err := release.Running(a.file.RunDir, record)
	return err == nil && facts.Mounted && blockfs.Full(ctx, record.Storage.Mount)
}
