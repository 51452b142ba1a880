package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"path/filepath"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/release"
	"github.com/keepone-ha/keepone/pkg/worker"
)

// duty is what State wants of this node for one service.
type duty uint8

const (
	idle  duty = iota // nothing of the service may be here
	hold              // the grant is ours: run it
	leave             // the grant is ours, and is to be vacated
)

// want reads this node's duty from State: only a committed grant for this very instance makes it hold (I4).
func want(s core.State, self core.NodeName, instance core.Instance, name core.ServiceName) (duty, core.Grant) {
	g := s.Services[name].Grant
	if g == nil || g.Node != self || g.Instance != instance {
		return idle, core.Grant{}
	}
	if g.Phase == core.PhaseReleasing || g.Phase == core.PhaseContained {
		return leave, *g
	}
	return hold, *g
}

// Step is what the runner does next, given its duty and what is here.
type Step uint8

// The steps.
const (
	Rest      Step = iota // nothing to do until something changes
	Activate              // from nothing
	Adopt                 // it runs as it should: watch it
	Restart               // volume stays, the container starts anew
	Lost                  // the container ended: say so
	Clean                 // take down what is here
	Vacant                // nothing is here: say vacated
	Mapped                // as far as it is wanted: say promoted
	Unclaimed             // from nothing, and no cluster manager waits for it: give the grant back
)

// Judge says what this node does next for a service, and under which grant; no grant: none is ours. Claimed is whether a
// cluster manager waits for it here. It is pure: the whole of the agent's judgement.
func Judge(s core.State, self core.NodeName, instance core.Instance, name core.ServiceName, here Here, claimed bool) (Step, core.Grant) {
	d, g := want(s, self, instance, name)
	step := next(d, g, here)
	if claimed || s.Spec.Manager != core.ManagerPacemaker {
		return step, g
	}
	switch { // what nobody waits for is not started (I4)
	case step == Activate:
		step = Unclaimed
	case step == Restart && g.Staged:
		step = Mapped
	}
	return step, g
}

// next says what to do.
func next(d duty, g core.Grant, here Here) Step {
	rec, facts := here.Record, here.Facts
	live := rec != nil && !rec.Marks.Vacated
	ours := live && rec.Epoch == g.Epoch && rec.Instance == g.Instance
	if live && !ours && rec.Marks.Dirty && facts.Idle() {
		// An earlier grant's, which was cut off: it can never be called vacated, and there is nothing left to take down.
		live = false
	}
	switch {
	case d == idle && live, d == leave && live, d == hold && live && !ours:
		return Clean
	case d == leave:
		return Vacant
	case d == idle:
		return Rest
	case rec != nil && !live && rec.Epoch == g.Epoch && (g.Staged || rec.Attempt >= g.Run):
		return Vacant // stopped on this node, and buried: only another grant can start it again (I7)
	case !live:
		return Activate
	case g.Staged:
		return nextStaged(g, here)
	case !facts.Mounted || !facts.Mapper:
		return Clean // an activation that a daemon's end cut short, or storage that went away
	case g.Phase == core.PhaseFailed && (!facts.Init || g.Run > rec.Attempt):
		return Rest // reported, and the volume stays; the leader says what next
	case g.Run > rec.Attempt:
		return Restart
	case here.Buried || rec.Marks.Halted || rec.Marks.Contained:
		return Clean // its lease ended, or somebody stops it: nothing of this attempt goes on (I5, I7)
	case !facts.Init:
		return Lost
	}
	return Adopt
}

// nextStaged is next for a volume that a cluster manager's other resources use: it stays when the container ends, until
// whoever mapped it has it taken down.
func nextStaged(g core.Grant, here Here) Step {
	rec, facts := here.Record, here.Facts
	stopped := here.Buried || rec.Marks.Halted || rec.Marks.Contained
	switch {
	case !facts.Mapper || !rec.Storage.Kept:
		return Clean
	case g.Stage == core.StagePromoted && g.Phase == core.PhaseStarting:
		return Mapped
	case g.Stage == core.StagePromoted:
		return Rest
	case g.Run > rec.Attempt && g.Phase == core.PhaseFailed:
		return Mapped // it failed before it began
	case g.Run > rec.Attempt:
		return Restart
	case stopped && facts.Init:
		return Rest // it shuts down
	case stopped:
		return Mapped
	case !facts.Init && g.Phase == core.PhaseFailed:
		return Rest
	case !facts.Init:
		return Lost
	}
	return Adopt
}

// plan is the order for the helper.
func (r *runner) plan(s core.State, g core.Grant) (worker.Plan, bool) {
	spec := s.Spec.Service(r.name)
	if spec == nil {
		return worker.Plan{}, false
	}
	p := r.cfg.Places
	cgroup := filepath.Join(p.Cgroups, string(r.name))
	return worker.Plan{
		Run: p.Run, Service: r.name, Epoch: g.Epoch, Instance: g.Instance, Attempt: g.Run,
		Volume: worker.Volume{
			Ceph: p.Ceph, Spec: spec.Volume,
			Mount: filepath.Join(p.Volumes, string(r.name)), RunDir: release.Dir(p.Run, r.name),
		},
		Takeover:  Takeover(s, r.name, g.Epoch),
		Container: worker.Container{Name: string(r.name), Network: spec.Network, Link: LinkName(r.name)},
		Cgroup:    filepath.Join(cgroup, "run"), MapCgroup: filepath.Join(cgroup, "map"),
		Limit: spec.StartLimit, StopLimit: spec.StopLimit, Stage: g.Stage,
	}, true
}

// Takeover lists every client that this holder must cut off before it acquires (I6).
func Takeover(s core.State, name core.ServiceName, epoch core.Epoch) worker.Takeover {
	t := worker.Takeover{Epoch: epoch}
	seen := map[netip.Addr]bool{}
	for _, c := range s.Services[name].Uncut {
		t.Addresses = append(t.Addresses, c.Addresses...)
		spec := s.Spec.Node(c.Node)
		if spec == nil {
			continue
		}
		for _, addr := range spec.Links {
			if !seen[addr] {
				seen[addr] = true
				t.From = append(t.From, addr)
			}
		}
	}
	return t
}

// LinkName is the host's end of a service's veth pair: a name that fits the kernel's 15 bytes and is the same
// on every node.
func LinkName(name core.ServiceName) string {
	const most = 12
	if len(name) <= most {
		return "ko-" + string(name)
	}
	sum := sha256.Sum256([]byte(name))
	return "ko-" + string(name[:6]) + hex.EncodeToString(sum[:3])
}
