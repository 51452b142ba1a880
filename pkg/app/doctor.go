package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keepone-ha/keepone/pkg/api"
	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/op"
)

// addCheck notes one check: a problem, or what was found fine.
type addCheck func(node core.NodeName, what, problem, fine string)

// opDoctor looks at all that a worst night needs.
func (a *App) opDoctor(ctx context.Context, _ api.Caller, _ json.RawMessage, _ func(any) error) (any, error) {
	state := a.replica.State()
	seen, _ := a.tryFences(ctx, state) // not what some round said a while ago
	var d op.Doctor
	add := func(node core.NodeName, what, problem, fine string) {
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
		doctorFence(name, state, seen.View, add)
		doctorReport(name, v, state, add)
		doctorClock(name, seen.Clocks, add)
	}
	doctorVersions(state, seen.View, add)
	if local, err := a.ownChecks(); err != nil {
		add(a.file.Name, "guard", err.Error(), "")
	} else {
		add(a.file.Name, "guard", "", local)
	}
	if want := a.file.Watchdog; want.Device != "" {
		doctorWatchdog(a.file.Name, want.Device, seen.View.Nodes[a.file.Name].Watchdog, add)
	}
	return d, nil
}

func silence(v core.NodeView) string {
	if v.Live == core.LiveOnline {
		return ""
	}
	return fmt.Sprintf("silent for %s on every link", v.Silent.Round(time.Second))
}

// doctorFence checks whether what the others found is enough for each service that the node may hold.
func doctorFence(name core.NodeName, state core.State, view core.View, add addCheck) {
	for _, svc := range state.Spec.Services {
		if !state.Spec.MayHold(name, svc.Name) {
			continue
		}
		problem := ""
		if p := core.Fenceable(state, view, name, svc.Name); !p.OK {
			problem = p.Why
		}
		add(name, "fence for "+string(svc.Name), problem, "its policy could be met")
	}
}

// doctorReport checks what a node's daemon says of itself.
func doctorReport(name core.NodeName, v core.NodeView, state core.State, add addCheck) {
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
		fine := "image opens, client may be fenced"
		if !ready.Relists {
			fine += ", not taken off the blocklist (docs/operations.md)"
		}
		add(name, "storage of "+string(svc.Name), problem, fine)
	}
}

// ownChecks asks this node's guard.
func (a *App) ownChecks() (string, error) {
	beat, heard, ok := a.observer.Beat(a.file.Name)
	if !ok || boottime.Now().Sub(heard) > time.Second {
		return "", errors.New("its heartbeats do not arrive: systemctl status keepone-guard")
	}
	return fmt.Sprintf("heartbeat %d", beat.Seq), nil
}

// doctorWatchdog checks that a watchdog that the node file names is armed.
func doctorWatchdog(name core.NodeName, device string, armed time.Duration, add addCheck) {
	problem := ""
	if armed == 0 {
		problem = device + " is not armed: journalctl -u keepone-guard says why"
	}
	add(name, "watchdog", problem, fmt.Sprintf("%s is armed, %s", device, armed))
}

// clocks keeps how far each node's wall clock was from this one's when its newest report arrived.
type clocks struct {
	mu   sync.Mutex
	skew map[core.NodeName]time.Duration
}

func (c *clocks) set(name core.NodeName, skew time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.skew == nil {
		c.skew = map[core.NodeName]time.Duration{}
	}
	c.skew[name] = skew
}

func (c *clocks) all() map[core.NodeName]time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := map[core.NodeName]time.Duration{}
	for name, skew := range c.skew {
		all[name] = skew
	}
	return all
}

// mostSkew is what a person reading two journals side by side puts up with. Nothing else hangs on wall clocks but
// the dates of certificates and Ceph's monitors, which complain at 50 ms themselves.
const mostSkew = time.Second

func doctorClock(name core.NodeName, skews map[core.NodeName]time.Duration, add addCheck) {
	skew, ok := skews[name]
	switch {
	case !ok: // no report: said already
	case skew.Abs() > mostSkew:
		way := "ahead of"
		if skew < 0 {
			way = "behind"
		}
		add(name, "clock", fmt.Sprintf("%s %s the leader's: no decision hangs on it, but journals and Ceph do; look at its NTP "+
			"(timedatectl)", skew.Abs().Round(100*time.Millisecond), way), "")
	default:
		add(name, "clock", "", "within "+mostSkew.String()+" of the leader's")
	}
}

// doctorVersions wants one version everywhere: another one is fine while nodes are upgraded, one after the other.
func doctorVersions(state core.State, view core.View, add addCheck) {
	byVersion := map[string][]string{}
	for _, name := range state.NodeNames() {
		if report := view.Nodes[name].Report; report != nil {
			byVersion[report.Version] = append(byVersion[report.Version], string(name))
		}
	}
	var list []string
	for version, names := range byVersion {
		list = append(list, version+" on "+strings.Join(names, ", "))
	}
	slices.Sort(list)
	switch len(list) {
	case 0:
	case 1:
		add("", "versions", "", list[0])
	default:
		add("", "versions", strings.Join(list, "; ")+": finish the upgrade", "")
	}
}
