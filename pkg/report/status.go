// Package report says how a cluster is: as JSON that scripts may rely on, and as text for a person who was just
// woken up. It is pure: it renders what it is given and asks nobody.
package report

import (
	"slices"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/op"
)

// Schema is the version of the JSON of Status and History. Within it, fields are only added.
const Schema = 1

// Status is the answer of `keepone status -o json`.
type Status struct {
	Schema      int          `json:"schema"`
	Cluster     string       `json:"cluster"`
	Quorum      bool         `json:"quorum"`
	Leader      string       `json:"leader"` // empty: none
	Manager     string       `json:"manager"`
	Seen        Seen         `json:"seen"`
	Maintenance *Maintenance `json:"maintenance,omitempty"`
	Nodes       []Node       `json:"nodes"`
	Services    []Service    `json:"services"`
	Requests    []Request    `json:"requests"` // that go on
	Problems    []Problem    `json:"problems"`
	Pacemaker   *Pacemaker   `json:"pacemaker,omitempty"`
}

// Seen says who saw this, and when.
type Seen struct {
	By         string    `json:"by"`
	At         time.Time `json:"at"`
	FromLeader bool      `json:"fromLeader"` // false: one node's own view, which may be old
}

// Maintenance is hands off the cluster until its end.
type Maintenance struct {
	Until  string `json:"until"` // RFC 3339, empty if it can't be told
	Reason string `json:"reason"`
}

// Node is one member.
type Node struct {
	Name     string    `json:"name"`
	State    string    `json:"state"` // new, online, suspect, down, fenced
	Reason   string    `json:"reason"`
	Since    string    `json:"since"`
	Standby  bool      `json:"standby"` // drained
	Witness  bool      `json:"witness"`
	Voter    bool      `json:"voter"`         // of Raft, now
	Heard    bool      `json:"heard"`         // within the suspect bound
	Silent   float64   `json:"silentSeconds"` // since its last heartbeat
	Daemon   bool      `json:"daemon"`
	Watchdog float64   `json:"watchdogSeconds"` // real timeout of an armed one; 0: none is armed
	Links    []Link    `json:"links"`
	BMC      string    `json:"bmc"` // "ready", "none", or what is wrong with it
	Fencing  []Fencing `json:"fencing"`
	Storage  []Storage `json:"storage"`
	Instance string    `json:"instance"`
}

// Link is one of a node's links, as its heartbeats show it.
type Link struct {
	Address string  `json:"address"`
	Up      bool    `json:"up"`
	Silent  float64 `json:"silentSeconds"` // -1: never heard
}

// Fencing says whether a node could be fenced for a service if it were lost right now.
type Fencing struct {
	Service  string `json:"service"`
	Possible bool   `json:"possible"`
	Tried    bool   `json:"tried"`  // false: nobody has yet tried what it hangs on
	Reason   string `json:"reason"` // which proofs could not be had, and why
}

// Storage says whether a node could take a service now.
type Storage struct {
	Service string `json:"service"`
	Ready   bool   `json:"ready"`
	Reason  string `json:"reason"`
}

// Service is one service.
type Service struct {
	Name      string   `json:"name"`
	State     string   `json:"state"` // see the constants
	Holder    string   `json:"holder"`
	Epoch     uint64   `json:"epoch"`
	Since     string   `json:"since"` // of State, RFC 3339
	Reason    string   `json:"reason"`
	Next      []string `json:"next"` // nodes that could take it now, the preferred first
	Addresses []string `json:"addresses"`
}

// The states of a service.
const (
	StateRunning   = "running"
	StateStarting  = "starting"
	StatePromoted  = "promoted"  // under a cluster manager: mapped, the container does not run
	StateFailed    = "failed"    // the run failed; it is tried again
	StateStopping  = "stopping"  // on its way from the holder
	StateContained = "contained" // its processes are gone, its storage client is to be cut off
	StateFencing   = "fencing"   // its holder is lost and is being fenced
	StateStopped   = "stopped"   // by an operator
	StateBlocked   = "blocked"   // can't be started, Reason says why
	StateWaiting   = "waiting"   // to be started
)

// Request is something an operator asked for that goes on.
type Request struct {
	ID   uint64 `json:"id"`
	What string `json:"what"`
	By   string `json:"by"`
	Now  string `json:"now"` // how it stands
}

// Problem is one thing that is wrong, and what to do about it.
type Problem struct {
	About string `json:"about"` // "node b", "service front", "cluster"
	Text  string `json:"text"`
	Next  string `json:"next"`
}

// Build makes the Status of what a daemon answered.
func Build(look op.Look) Status {
	b := builder{state: look.State, facts: look.Facts, clock: newClock(look.State.History)}
	s := Status{
		Schema: Schema, Cluster: b.state.Spec.Cluster, Quorum: b.facts.Quorum, Leader: string(b.facts.Leader),
		Manager: string(b.state.Spec.Manager),
		Seen:    Seen{By: string(b.seenBy()), At: b.facts.At, FromLeader: !b.facts.Instead},
		Nodes:   []Node{}, Services: []Service{}, Requests: []Request{}, Problems: []Problem{},
	}
	if m := b.state.Maintenance; m.On {
		s.Maintenance = &Maintenance{Until: b.clock.text(m.End), Reason: m.Reason}
	}
	for _, name := range b.state.NodeNames() {
		s.Nodes = append(s.Nodes, b.node(b.state.Nodes[name]))
	}
	for _, name := range b.state.ServiceNames() {
		s.Services = append(s.Services, b.service(b.state.Services[name]))
	}
	for _, r := range b.state.Requests {
		if r.State == core.RequestOpen {
			s.Requests = append(s.Requests, Request{ID: r.ID, What: requestWords(r), By: r.By, Now: r.Answer})
		}
	}
	s.Pacemaker = newPacemaker(b.facts.Manager)
	s.Problems = append(s.Problems, b.problems(s)...)
	return s
}

type builder struct {
	state core.State
	facts op.Facts
	clock clock
}

func (b builder) seenBy() core.NodeName {
	if b.facts.View.Self != "" {
		return b.facts.View.Self
	}
	return b.facts.Self
}

func (b builder) node(node core.Node) Node {
	view := b.facts.View.Nodes[node.Name]
	out := Node{
		Name: string(node.Name), State: string(node.Life), Reason: node.Reason, Since: b.clock.text(node.Since),
		Standby: node.Standby, Heard: view.Live == core.LiveOnline, Silent: seconds(view.Silent), Daemon: view.Daemon,
		Watchdog: seconds(view.Watchdog), Instance: string(node.Instance), BMC: "none", Links: []Link{}, Storage: []Storage{}, Fencing: []Fencing{},
	}
	spec := b.state.Spec.Node(node.Name)
	if spec == nil {
		return out
	}
	out.Witness = spec.Witness
	out.Voter = slices.Contains(b.facts.View.Voters, node.Name)
	for i, address := range spec.Links {
		silent, ok := b.facts.Links[node.Name][i]
		link := Link{Address: address.String(), Silent: -1}
		if ok {
			link.Silent, link.Up = seconds(silent), silent <= b.state.Spec.Timing.Suspect
		}
		out.Links = append(out.Links, link)
	}
	if spec.BMC != nil {
		out.BMC = "ready"
		if problem := b.facts.BMC[node.Name]; problem != "" {
			out.BMC = problem
		}
	}
	out.Fencing = append(out.Fencing, b.fencing(node.Name)...)
	for _, name := range b.state.ServiceNames() {
		if b.eligible(node.Name, name) && view.Report != nil {
			ready := view.Report.Ready[name]
			out.Storage = append(out.Storage, Storage{Service: string(name), Ready: ready.OK, Reason: ready.Reason})
		}
	}
	return out
}

// fencing says for each service that a node may hold whether it could be fenced for it. Only a leader hears reports.
func (b builder) fencing(node core.NodeName) []Fencing {
	var list []Fencing
	for _, name := range b.state.ServiceNames() {
		if b.facts.Instead || !b.eligible(node, name) {
			continue
		}
		p := core.Fenceable(b.state, b.facts.View, node, name)
		list = append(list, Fencing{Service: string(name), Possible: p.OK, Tried: p.Known, Reason: p.Why})
	}
	return list
}

// eligible reports whether the document lets a node hold a service.
func (b builder) eligible(node core.NodeName, service core.ServiceName) bool {
	return b.state.Spec.MayHold(node, service)
}

func (b builder) service(svc core.Service) Service {
	out := Service{Name: string(svc.Name), Epoch: uint64(svc.Epoch), Next: []string{}, Addresses: []string{}}
	out.State, out.Reason = b.serviceState(svc)
	if svc.Grant != nil {
		out.Holder, out.Since = string(svc.Grant.Node), b.clock.text(svc.Grant.Since)
	}
	if spec := b.state.Spec.Service(svc.Name); spec != nil {
		for _, prefix := range spec.Network.Addresses {
			out.Addresses = append(out.Addresses, prefix.Addr().String())
		}
		out.Next = append(out.Next, b.next(spec, out.Holder)...)
	}
	return out
}

func (b builder) serviceState(svc core.Service) (state, reason string) {
	g := svc.Grant
	switch {
	case g == nil && svc.Stopped:
		return StateStopped, "by an operator"
	case g == nil && svc.Blocked != "":
		return StateBlocked, svc.Blocked
	case g == nil:
		return StateWaiting, lastFailure(svc)
	}
	for _, f := range b.state.Fences {
		if f.Open() && f.Node == g.Node && f.Instance == g.Instance {
			return StateFencing, "its holder is being fenced: " + f.Reason
		}
	}
	switch g.Phase {
	case core.PhaseStarting:
		return StateStarting, lastFailure(svc)
	case core.PhasePromoted:
		if n := len(svc.Failures); n > 0 && svc.Failures[n-1].At >= g.Times.Granted {
			return StatePromoted, lastFailure(svc) // of this grant
		}
		return StatePromoted, promotedAlone
	case core.PhaseFailed:
		return StateFailed, lastFailure(svc)
	case core.PhaseReleasing:
		return StateStopping, g.Release
	case core.PhaseContained:
		return StateContained, g.Release
	case core.PhaseRunning:
	}
	return StateRunning, ""
}

// promotedAlone is how a cluster manager may want it, and on the way to running.
const promotedAlone = "its volume is mapped, its container does not run"

func lastFailure(svc core.Service) string {
	if len(svc.Failures) == 0 {
		return ""
	}
	f := svc.Failures[len(svc.Failures)-1]
	return "failed on " + string(f.Node) + ": " + f.Reason
}

// next names the nodes that could take a service now, the preferred ones first.
func (b builder) next(spec *core.ServiceSpec, holder string) []string {
	var names []string
	listed := map[core.NodeName]bool{core.NodeName(holder): true}
	for _, name := range append(append([]core.NodeName{}, spec.Prefer...), b.state.NodeNames()...) {
		node, view := b.state.Nodes[name], b.facts.View.Nodes[name]
		if listed[name] || node.Standby || view.Live != core.LiveOnline || view.Report == nil || !b.eligible(name, spec.Name) {
			continue
		}
		listed[name] = true
		if b.state.Spec.PolicyOf(spec.Name).FenceableOnly && !core.Fenceable(b.state, b.facts.View, name, spec.Name).OK {
			continue
		}
		if view.Report.Ready[spec.Name].OK {
			names = append(names, string(name))
		}
	}
	return names
}

func requestWords(r core.Request) string {
	text := string(r.Kind)
	if r.Service != "" {
		text += " " + string(r.Service)
	}
	if r.Node != "" {
		text += " " + string(r.Node)
	}
	return text
}

func seconds(d time.Duration) float64 {
	return float64(d.Round(time.Millisecond)) / float64(time.Second)
}
