package app

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"

	"github.com/keepone-ha/keepone/pkg/api"
	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/core"
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

// opDoctor looks at all that a worst night needs.
func (a *App) opDoctor(ctx context.Context, _ api.Caller, _ json.RawMessage, _ func(any) error) (any, error) {
	state := a.replica.State()
	seen := a.bestFacts(ctx)
	var d op.Doctor
	add := func(node core.NodeName, what string, problem, fine string) {
		c := op.Check{Node: node, What: what, OK: problem == "", Words: fine}
		if problem != "" {
			c.Words = problem
		}
		d.Checks = append(d.Checks, c)
	}
	quorum := ""
	if !seen.Quorum {
		quorum = "no leader is sure of a quorum: start the missing nodes, or look at their links"
	}
	add("", "quorum", quorum, fmt.Sprintf("%s leads", seen.Leader))
	for _, name := range state.NodeNames() {
		v := seen.View.Nodes[name]
		add(name, "heartbeats", silence(v), "heard")
		for link, silent := range seen.Links[name] {
			problem := ""
			if silent > state.Spec.Timing.Suspect {
				problem = fmt.Sprintf("nothing heard for %s: look at cable, switch and address", silent.Round(time.Second))
			}
			add(name, fmt.Sprintf("link %d", link+1), problem, "heard")
		}
		if spec := state.Spec.Node(name); spec != nil && spec.BMC != nil {
			add(name, "BMC", seen.BMC[name], "can be fenced")
		} else if spec != nil && !spec.Witness {
			add(name, "BMC", "none in the cluster document: only storage and a human can fence it", "")
		}
		a.doctorReport(name, v, state, add)
	}
	if local, err := a.ownChecks(); err != nil {
		add(a.file.Name, "guard", err.Error(), "")
	} else {
		add(a.file.Name, "guard", "", local)
	}
	return d, nil
}

func silence(v core.NodeView) string {
	if v.Live == core.LiveOnline {
		return ""
	}
	return fmt.Sprintf("silent for %s on every link", v.Silent.Round(time.Second))
}

// doctorReport checks what a node's daemon says of itself.
func (a *App) doctorReport(name core.NodeName, v core.NodeView, state core.State, add func(core.NodeName, string, string, string)) {
	if v.Report == nil {
		add(name, "daemon", "no report: see its journal (journalctl -u keeponed)", "")
		return
	}
	digest := ""
	if v.Report.Digest != state.Document.Digest {
		digest = "works by another version of the cluster document; it should follow within seconds"
	}
	add(name, "cluster document", digest, state.Document.Digest)
	if spec := state.Spec.Node(name); spec != nil && spec.Witness {
		return
	}
	for _, svc := range state.Spec.Services {
		ready := v.Report.Ready[svc.Name]
		problem := ""
		if !ready.OK {
			if problem = ready.Reason; problem == "" {
				problem = "has not been tried yet"
			}
		}
		add(name, "storage of "+string(svc.Name), problem, "image opens, client may be fenced")
	}
}

// ownChecks asks this node's guard.
func (a *App) ownChecks() (string, error) {
	beat, heard, ok := a.observer.Beat(a.file.Name)
	if !ok || boottime.Now().Sub(heard) > time.Second {
		return "", fmt.Errorf("its heartbeats do not arrive: systemctl status keepone-guard")
	}
	return fmt.Sprintf("heartbeat %d", beat.Seq), nil
}
