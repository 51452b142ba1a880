// Package setup makes the configuration of Pacemaker and corosync for a cluster document, and says how a live one
// differs from it. It is pure.
package setup

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/release"
)

// Style is how a service is cut into resources.
type Style string

// The styles.
const (
	// StylePromotable: the volume is a promotable resource as DRBD's is, a file system and the container stand on it.
	StylePromotable Style = "promotable"
	// StyleOne: one resource does it all.
	StyleOne Style = "one"
)

// Options are what the cluster document does not say.
type Options struct {
	Style   Style
	Run     string // the daemons' run directory
	Volumes string // where volumes are mounted
	// PerNode makes one fence device for each node instead of one for all.
	PerNode bool
	// PasswordScript prints a BMC's password. With it Pacemaker has a second way to fence, past keepone: the stock agent.
	PasswordScript string
}

// Setup is what Pacemaker and corosync are to be told.
type Setup struct {
	CIB      CIB
	Corosync Corosync
}

const (
	controller = "keepone-controller"
	fenceAll   = "fence-keepone"

	// The schema and the feature set of Debian 12's Pacemaker 2.1.5; a newer one upgrades both by itself.
	schema  = "pacemaker-3.9"
	feature = "3.16.1"

	// stickiness is above every preference, so that a node that comes back takes nothing from the one that holds.
	stickiness = 1000
	// preference is the score for each place in a service's list of preferred nodes.
	preference = 10

	// grace is what Pacemaker waits beyond keepone's own bounds: an agent that ends by itself says why, one that is
	// killed at its timeout says nothing, and a stop that is cut short gets the node fenced.
	grace = 10 * time.Second
	// fenceBound outlasts the fence agent's own power_timeout, 45 s, so that it can say why it failed.
	fenceBound = 60 * time.Second

	// What the agents advertise. The document's own limits may ask for more.
	startAdvertised = 180 * time.Second // of a promotion, too
	stopAdvertised  = 120 * time.Second // of a demotion, too
	short           = 20 * time.Second

	// depthProbes is the monitor that asks the front-end's probes. It looks at a slower pace than the one that asks the
	// kernel: one answer that is missing restarts the service.
	depthProbes = "20"
)

// runDefault is the agents' own default of run_dir.
const runDefault = "/run/keepone"

// New makes the setup. The spec is one that pkg/config has checked.
func New(spec core.Spec, o Options) Setup {
	b := builder{spec: spec, o: o}
	b.properties()
	b.controller()
	for _, svc := range spec.Services {
		if o.Style == StyleOne {
			b.one(svc)
		} else {
			b.promotable(svc)
		}
	}
	b.fencing()
	b.cib.Feature, b.cib.Schema, b.cib.Epoch = feature, schema, 1
	b.cib.Nodes, b.cib.Status = &struct{}{}, &struct{}{}
	return Setup{CIB: b.cib, Corosync: newCorosync(spec)}
}

// Volume is the resource whose promotion score says where a service's volume is best promoted (StylePromotable).
func Volume(service core.ServiceName) string { return "rbd-" + string(service) }

// VolumeClone is its promotable clone.
func VolumeClone(service core.ServiceName) string { return Volume(service) + "-clone" }

// Container is the resource that is the service's container; in StyleOne it is all of the service.
func Container(service core.ServiceName) string { return "container-" + string(service) }

// FileSystem is the one resource of the setup that is of a stock agent (StylePromotable).
func FileSystem(service core.ServiceName) string { return "fs-" + string(service) }

// FileSystems are those of every service.
func FileSystems(spec core.Spec) []string {
	var ids []string
	for _, svc := range spec.Services {
		ids = append(ids, FileSystem(svc.Name))
	}
	return ids
}

type builder struct {
	spec core.Spec
	o    Options
	cib  CIB
}

func (b *builder) properties() {
	b.cib.Properties = set("cib-bootstrap-options",
		"stonith-enabled", "true",
		"no-quorum-policy", "stop",
		// A start that keepone refused may succeed a moment later: it must not close the node for ever.
		"start-failure-is-fatal", "false",
		// Failures run out, and attributes count, at this pace at the latest.
		"cluster-recheck-interval", "60s",
		"stonith-timeout", span(fenceBound))
}

func (b *builder) controller() {
	p := ocf(controller, "keepone", "controller")
	p.Params = b.params(controller)
	// A dead keeponed is systemd's to mend. Pacemaker shall show it, and not try: its own restart would take a node's
	// attributes away from below a service that lives on, and hold up everything else while it waits.
	p.Ops = ops(controller,
		op{name: "start", timeout: short, onFail: "ignore"}, op{name: "stop", timeout: short},
		op{name: "monitor", interval: 10 * time.Second, timeout: short, onFail: "ignore"})
	b.clone(Clone{ID: controller + "-clone", Meta: set(controller+"-clone-meta", "interleave", "true"), Primitive: p})
}

// params of a resource of keepone's agents: where the daemon is, if it is not where they look for it.
func (b *builder) params(id string, pairs ...string) []Set {
	if b.o.Run != runDefault {
		pairs = append(pairs, "run_dir", b.o.Run)
	}
	if len(pairs) == 0 {
		return nil
	}
	return set(id+"-params", pairs...)
}

func (b *builder) clone(c Clone) { b.cib.Resources.Clones = append(b.cib.Resources.Clones, c) }

// promotable is rbd as a promotable clone, and a group of file system and container where it is promoted.
func (b *builder) promotable(svc core.ServiceSpec) {
	rbd, name := Volume(svc.Name), string(svc.Name)
	clone, group := VolumeClone(svc.Name), "group-"+name
	p := ocf(rbd, "keepone", "rbd")
	p.Params = b.params(rbd, "service", name)
	p.Ops = ops(rbd,
		op{name: "start", timeout: 60 * time.Second}, op{name: "promote", timeout: startBound(svc)},
		// Demote and stop end all of the service that is still here: the container's own limit counts for them, too.
		op{name: "demote", timeout: stopBound(svc)}, op{name: "stop", timeout: stopBound(svc)},
		op{name: "monitor", role: "Promoted", interval: 10 * time.Second, timeout: short},
		op{name: "monitor", role: "Unpromoted", interval: 11 * time.Second, timeout: short}) // two monitors need two intervals
	meta := append([]string{"promotable", "true", "promoted-max", "1", "promoted-node-max", "1", "clone-node-max", "1", "interleave", "true"}, failures(svc)...)
	b.clone(Clone{ID: clone, Meta: set(clone+"-meta", meta...), Primitive: p})

	fs := ocf(FileSystem(svc.Name), "heartbeat", "Filesystem")
	fs.Params = set(fs.ID+"-params", "device", b.o.Run+"/dev/"+name, "directory", b.o.Volumes+"/"+name, "fstype", svc.Volume.FS)
	fs.Ops = ops(fs.ID, // what the agent advertises
		op{name: "start", timeout: 60 * time.Second}, op{name: "stop", timeout: 60 * time.Second},
		op{name: "monitor", interval: 20 * time.Second, timeout: 40 * time.Second})
	b.cib.Resources.Groups = append(b.cib.Resources.Groups, Group{
		ID: group, Meta: set(group+"-meta", failures(svc)...), Primitives: []Primitive{fs, b.container(svc, "container")},
	})

	b.eligible(svc.Name, clone)
	b.order(Order{First: clone, FirstAction: "promote", Then: group, ThenAction: "start", Kind: "Mandatory"})
	b.cib.Constraints.Colocations = append(b.cib.Constraints.Colocations, Colocation{
		ID: "colocation-" + group, Resource: group, With: clone, WithRole: "Promoted", Score: "INFINITY",
	})
	b.order(Order{First: controller + "-clone", FirstAction: "start", Then: clone, ThenAction: "start", Kind: "Optional"})
}

// one is the whole service as one resource.
func (b *builder) one(svc core.ServiceSpec) {
	p := b.container(svc, "whole")
	p.Meta = set(p.ID+"-meta", failures(svc)...)
	b.cib.Resources.Primitives = append(b.cib.Resources.Primitives, p)
	b.eligible(svc.Name, p.ID)
	for i, node := range svc.Prefer {
		b.location(Location{Resource: p.ID, Node: string(node), Score: strconv.Itoa(preference * (len(svc.Prefer) - i))})
	}
	b.order(Order{First: controller + "-clone", FirstAction: "start", Then: p.ID, ThenAction: "start", Kind: "Optional"})
}

func (b *builder) container(svc core.ServiceSpec, mode string) Primitive {
	p := ocf(Container(svc.Name), "keepone", "container")
	p.Params = b.params(p.ID, "service", string(svc.Name), "mode", mode)
	p.Ops = ops(p.ID,
		op{name: "start", timeout: startBound(svc)}, op{name: "stop", timeout: stopBound(svc)},
		op{name: "monitor", interval: 10 * time.Second, timeout: short},
		op{name: "monitor", interval: 30 * time.Second, timeout: short, depth: depthProbes})
	return p
}

// startBound outlasts an activation, which may first wait for a leader, and for the old holder's fence.
func startBound(svc core.ServiceSpec) time.Duration {
	return max(startAdvertised, svc.StartLimit+2*grace)
}

// stopBound outlasts a stop that hangs at every step: pkg/release ends it, and never says stopped when it is not (I7).
func stopBound(svc core.ServiceSpec) time.Duration {
	return max(stopAdvertised, release.Options{Graceful: svc.StopLimit}.Bound()+grace)
}

// failures bounds restarts in place as the document does, and keeps the service where it is.
func failures(svc core.ServiceSpec) []string {
	return []string{
		"migration-threshold", strconv.Itoa(svc.Restart.Failures), "failure-timeout", span(svc.Restart.Window),
		"resource-stickiness", strconv.Itoa(stickiness),
	}
}

// eligible keeps a resource off every node that keepone would refuse: a start is scheduled only where the grant is or
// can be given.
func (b *builder) eligible(service core.ServiceName, resource string) {
	id := "eligible-" + resource
	b.cib.Constraints.Locations = append(b.cib.Constraints.Locations, Location{ID: id, Resource: resource, Rules: []Rule{{
		ID: id + "-rule", Score: "-INFINITY", Join: "or",
		Expressions: []Expression{
			{ID: id + "-defined", Attribute: core.ElectionAttribute(service), Operation: "not_defined"},
			{ID: id + "-value", Attribute: core.ElectionAttribute(service), Operation: "lt", Type: "integer", Value: "1"},
		},
	}}})
}

func (b *builder) location(l Location) {
	l.ID = "location-" + l.Resource + "-" + l.Node
	b.cib.Constraints.Locations = append(b.cib.Constraints.Locations, l)
}

func (b *builder) order(o Order) {
	o.ID = "order-" + o.First + "-" + o.Then
	b.cib.Constraints.Orders = append(b.cib.Constraints.Orders, o)
}

// fencing makes keepone's device, or one for each node, and the order in which devices are tried.
func (b *builder) fencing() {
	var all []string
	for _, n := range b.spec.Nodes {
		all = append(all, string(n.Name))
	}
	if !b.o.PerNode {
		b.fenceKeepone(fenceAll, strings.Join(all, " "))
	}
	for _, n := range b.spec.Nodes {
		device := fenceAll
		if b.o.PerNode {
			device = "fence-" + string(n.Name)
			b.fenceKeepone(device, string(n.Name))
		}
		if n.BMC == nil { // nothing but keepone can answer for it: Pacemaker finds the device by itself
			continue
		}
		b.level(n.Name, 1, device)
		if b.o.PasswordScript != "" {
			b.level(n.Name, 2, b.fenceBMC(n))
		}
	}
}

func (b *builder) level(node core.NodeName, index int, device string) {
	b.cib.Levels = append(b.cib.Levels, Level{
		ID: fmt.Sprintf("fencing-%s-%d", node, index), Target: string(node), Index: index, Devices: device,
	})
}

func (b *builder) fenceKeepone(id, nodes string) {
	b.device(id, "fence_keepone", "pcmk_host_list", nodes,
		"pcmk_reboot_timeout", span(fenceBound), "pcmk_off_timeout", span(fenceBound), "pcmk_host_check", "static-list")
}

// fenceBMC is the stock agent for a BMC. The password stays in a script's hands: a CIB is readable for every member.
func (b *builder) fenceBMC(n core.NodeSpec) string {
	id := "bmc-" + string(n.Name)
	host, port := n.BMC.Address, "623"
	if h, p, err := net.SplitHostPort(n.BMC.Address); err == nil {
		host, port = h, p
	}
	b.device(id, "fence_ipmilan", "pcmk_host_list", string(n.Name), "pcmk_host_check", "static-list",
		"ip", host, "ipport", port, "username", n.BMC.User, "password_script", b.o.PasswordScript,
		"lanplus", "1", "cipher", strconv.Itoa(n.BMC.CipherSuite))
	return id
}

func (b *builder) device(id, agent string, params ...string) {
	b.cib.Resources.Primitives = append(b.cib.Resources.Primitives, Primitive{
		ID: id, Class: "stonith", Type: agent, Params: set(id+"-params", params...),
		Ops: ops(id, op{name: "monitor", interval: 60 * time.Second, timeout: 30 * time.Second}),
	})
}

func ocf(id, provider, agent string) Primitive {
	return Primitive{ID: id, Class: "ocf", Provider: provider, Type: agent}
}

type op struct {
	name     string
	role     string
	interval time.Duration
	timeout  time.Duration
	depth    string // OCF_CHECK_LEVEL, empty: the agent's own
	onFail   string // empty: Pacemaker's own
}

func ops(resource string, list ...op) []Operation {
	var out []Operation
	for _, o := range list {
		id := resource + "-" + o.name
		if o.role != "" {
			id += "-" + strings.ToLower(o.role)
		}
		made := Operation{Name: o.name, Interval: span(o.interval), Timeout: span(o.timeout), Role: o.role, OnFail: o.onFail}
		if o.depth != "" {
			id += "-" + o.depth
			made.Params = set(id+"-params", checkLevel, o.depth)
		}
		made.ID = id
		out = append(out, made)
	}
	return out
}
