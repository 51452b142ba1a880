package config

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/keepone-ha/keepone/pkg/core"
)

// Effect says when a change takes effect, or what it needs.
type Effect string

// The effects of a change.
const (
	EffectAtOnce      Effect = "at once"
	EffectNextStart   Effect = "at the next start of the service"
	EffectRestart     Effect = "when each daemon is restarted; containers go on"
	EffectStopped     Effect = "needs the service stopped"
	EffectMaintenance Effect = "needs maintenance"
	EffectRefused     Effect = "refused"
)

// Change is one difference between two documents, in words for a person. No password is ever in it.
type Change struct {
	What    string           // "service front: image frontend → frontend2"
	Effect  Effect           // when, or what it needs
	Means   string           // what follows from it, may be empty
	Service core.ServiceName // of EffectStopped, the service
	Node    core.NodeName    // of a node that goes, the node
}

func (c Change) String() string {
	text := c.What + " (" + string(c.Effect) + ")"
	if c.Means != "" {
		text += ": " + c.Means
	}
	return text
}

// Diff lists what changes from one document to another, in the order of the document. Equal documents give
// none. The old one may be empty: then everything is new.
func Diff(old, changed core.Spec) []Change {
	d := differ{}
	if old.Cluster != "" {
		d.value("cluster", old.Cluster, changed.Cluster, EffectRefused, "the name is in every certificate")
		d.value("manager", old.Manager, changed.Manager, EffectMaintenance, "another one starts and stops the services")
		d.timing(old.Timing, changed.Timing)
		d.value("fencing", policyWords(&old.Fencing), policyWords(&changed.Fencing), EffectAtOnce,
			"also for fences that are open now")
		d.value("pacemaker.client_scope", strconv.FormatBool(old.ClientScope), strconv.FormatBool(changed.ClientScope), EffectAtOnce,
			"whether storage cut off alone may pass for a fence with Pacemaker")
	}
	for _, node := range old.Nodes {
		if changed.Node(node.Name) == nil {
			d.add(Change{
				What: fmt.Sprintf("node %s goes", node.Name), Effect: EffectAtOnce, Node: node.Name,
				Means: "a member must be removed with `keepone node remove` first",
			})
		}
	}
	for _, node := range changed.Nodes {
		d.node(old.Node(node.Name), node)
	}
	for _, service := range old.Services {
		if changed.Service(service.Name) == nil {
			d.add(Change{
				What: fmt.Sprintf("service %s goes", service.Name), Effect: EffectStopped, Service: service.Name,
				Means: "its volume stays as it is",
			})
		}
	}
	for _, service := range changed.Services {
		d.service(old.Service(service.Name), service)
	}
	return d.changes
}

// differ collects changes; subject is the part of the document that it is at.
type differ struct {
	changes []Change
	subject string
	of      core.ServiceName
}

func (d *differ) add(c Change) { d.changes = append(d.changes, c) }

// value adds a change if old and changed differ. Both are shown with %v.
func (d *differ) value(what string, old, changed any, effect Effect, means string) {
	if reflect.DeepEqual(old, changed) {
		return
	}
	d.add(Change{
		What:   fmt.Sprintf("%s%s %s → %s", d.subject, what, show(old), show(changed)),
		Effect: effect, Means: means, Service: d.of,
	})
}

// secret adds a change without its values.
func (d *differ) secret(what, old, changed string, effect Effect) {
	if old != changed {
		d.add(Change{What: d.subject + what + " changed", Effect: effect, Service: d.of})
	}
}

func show(v any) string {
	text := strings.Trim(fmt.Sprint(v), "[]")
	if text == "" || text == "invalid IP" {
		return "(none)"
	}
	return text
}

func (d *differ) timing(old, changed core.Timing) {
	effects := map[string]Effect{"lease": EffectMaintenance, "lease_margin": EffectMaintenance, "raft_election": EffectRestart}
	means := map[string]string{
		"lease":        "holders still hold leases of the old length",
		"lease_margin": "holders still hold leases of the old length",
	}
	now := timingKeys(&changed)
	for i, was := range timingKeys(&old) {
		effect, ok := effects[was.key]
		if !ok {
			effect = EffectAtOnce
		}
		d.value("timing: "+was.key, words(*was.value), words(*now[i].value), effect, means[was.key])
	}
}

func (d *differ) node(old *core.NodeSpec, node core.NodeSpec) {
	if old == nil {
		d.add(Change{
			What: fmt.Sprintf("node %s is new", node.Name), Effect: EffectAtOnce,
			Means: fmt.Sprintf("`keepone node add %s` makes its token", node.Name),
		})
		return
	}
	d.subject = fmt.Sprintf("node %s: ", node.Name)
	d.value("links", old.Links, node.Links, EffectAtOnce, "its node file must name the same")
	d.value("witness", old.Witness, node.Witness, EffectAtOnce, "a holder keeps what it holds until it is moved")
	was, now := orEmpty(old.BMC), orEmpty(node.BMC)
	d.value("BMC address", was.Address, now.Address, EffectAtOnce, "its BMC counts again once it has proved itself")
	d.value("BMC user", was.User, now.User, EffectAtOnce, "")
	d.secret("BMC password", was.Password, now.Password, EffectAtOnce)
	d.value("BMC cipher suite", was.CipherSuite, now.CipherSuite, EffectAtOnce, "")
	d.value("BMC GUID", was.GUID, now.GUID, EffectAtOnce, "its BMC counts again once it has proved itself")
	d.subject = ""
}

func orEmpty(bmc *core.BMCSpec) core.BMCSpec {
	if bmc == nil {
		return core.BMCSpec{}
	}
	return *bmc
}

func (d *differ) service(old *core.ServiceSpec, service core.ServiceSpec) {
	if old == nil {
		d.add(Change{What: fmt.Sprintf("service %s is new", service.Name), Effect: EffectAtOnce, Means: "it is started"})
		return
	}
	d.subject, d.of = fmt.Sprintf("service %s: ", service.Name), service.Name
	d.value("volume", volumeName(old.Volume), volumeName(service.Volume), EffectStopped, "")
	d.value("file system", old.Volume.FS, service.Volume.FS, EffectStopped, "")
	d.value("mapper", old.Volume.Mapper, service.Volume.Mapper, EffectStopped, "")
	d.value("bridge", old.Network.Bridge, service.Network.Bridge, EffectNextStart, "")
	d.value("MAC", old.Network.MAC, service.Network.MAC, EffectNextStart, "")
	d.value("addresses", old.Network.Addresses, service.Network.Addresses, EffectNextStart, "")
	d.value("gateway", old.Network.Gateway, service.Network.Gateway, EffectNextStart, "")
	d.probes(old.Probes, service.Probes)
	d.value("nodes", old.Nodes, service.Nodes, EffectAtOnce, "a holder keeps it until it is moved")
	d.value("prefer", old.Prefer, service.Prefer, EffectAtOnce, "nothing moves because of it")
	d.value("fencing", policyWords(old.Policy), policyWords(service.Policy), EffectAtOnce, "also for fences that are open now")
	d.value("restart", restartWords(old.Restart), restartWords(service.Restart), EffectAtOnce, "")
	d.value("start_limit", words(old.StartLimit), words(service.StartLimit), EffectNextStart, "")
	d.value("stop_limit", words(old.StopLimit), words(service.StopLimit), EffectAtOnce, "")
	d.subject, d.of = "", ""
}

func (d *differ) probes(old, changed []core.ProbeSpec) {
	d.value("probes", probeWords(old), probeWords(changed), EffectAtOnce, "")
	if len(old) != len(changed) {
		return
	}
	for i := range old {
		d.secret("password of probe "+old[i].Kind, old[i].Password, changed[i].Password, EffectAtOnce)
	}
}

func probeWords(probes []core.ProbeSpec) string {
	var list []string
	for _, p := range probes {
		text := p.Kind
		if p.Port != 0 {
			text += fmt.Sprintf(" :%d", p.Port)
		}
		for _, part := range []string{p.Path, strings.Join(p.Command, " "), p.User} {
			if part != "" {
				text += " " + part
			}
		}
		list = append(list, fmt.Sprintf("%s every %s within %s, %d failures", text, words(p.Interval), words(p.Timeout), p.Failures))
	}
	return strings.Join(list, "; ")
}

func restartWords(r core.RestartSpec) string {
	return fmt.Sprintf("%d failures in %s, back-off %s to %s", r.Failures, words(r.Window), words(r.Backoff), words(r.MaxBackoff))
}

func policyWords(p *core.Policy) string {
	if p == nil {
		return "the cluster's"
	}
	kinds := slices.Clone(p.Proofs)
	names := make([]string, len(kinds))
	for i, kind := range kinds {
		names[i] = string(kind)
	}
	text := string(p.Require) + " of " + strings.Join(names, ", ")
	if p.FenceableOnly {
		text += ", for nodes that can be fenced only"
	}
	return text
}
