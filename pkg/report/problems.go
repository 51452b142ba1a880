package report

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

// problems lists what is wrong, the worst first.
func (b builder) problems(s Status) []Problem {
	var list []Problem
	if !s.Quorum {
		list = append(list, b.quorumProblem(s))
	}
	for _, f := range b.state.Fences {
		if f.Open() {
			list = append(list, fenceProblem(f))
		}
	}
	if s.Pacemaker != nil {
		list = append(list, s.Pacemaker.problems(s.Seen.By)...)
	}
	for _, svc := range s.Services {
		list = append(list, serviceProblems(svc)...)
	}
	for _, node := range s.Nodes {
		list = append(list, b.nodeProblems(node, s)...)
	}
	return list
}

func (b builder) quorumProblem(s Status) Problem {
	var silent []string
	for _, node := range s.Nodes {
		if !node.Heard && node.Name != s.Seen.By {
			silent = append(silent, node.Name)
		}
	}
	next := "wait a few seconds for an election, then look again"
	if len(silent) > 0 {
		next = "bring back enough of " + strings.Join(silent, ", ") + ", or their links to this node; " +
			"only if a majority is destroyed for ever: keepone recover"
	}
	return Problem{"cluster", "no leader is sure of a quorum: nothing can be started or moved, and holders contain " +
		"what they run when their leases end", next}
}

func fenceProblem(f core.Fence) Problem {
	text := fmt.Sprintf("it is being fenced since it is %s (attempt %d)", lifeWords(f.Reason), max(f.Attempt, 1))
	if f.Note != "" {
		text += "; the last attempt said: " + f.Note
	}
	return Problem{"node " + string(f.Node), text, fmt.Sprintf(
		"nothing, if this ends by itself; if you have made sure with your own eyes that %s is off: keepone fence confirm %s", f.Node, f.Node)}
}

// lifeWords keeps a fence's reason within a sentence.
func lifeWords(reason string) string {
	if reason == "" {
		return "lost"
	}
	return "lost: " + reason
}

func serviceProblems(svc Service) []Problem {
	about := "service " + svc.Name
	var list []Problem
	switch svc.State {
	case StateBlocked:
		list = append(list, Problem{about, "it can't be started: " + svc.Reason, "mend that; it starts by itself then"})
	case StateFailed, StateWaiting, StateStarting:
		if svc.Reason != "" {
			list = append(list, Problem{about, "it " + svc.Reason, "it is tried again by itself; keepone history shows every attempt"})
		}
	case StatePromoted:
		if svc.Reason != promotedAlone {
			list = append(list, Problem{
				about, "its volume is mapped on " + svc.Holder + ", its container " + svc.Reason,
				"mend that; crm_mon -1 shows whether Pacemaker tries again, pcs resource cleanup has it do so at once",
			})
		}
	case StateContained:
		list = append(list, Problem{
			about, "it was stopped on " + svc.Holder + " without letting go of its volume",
			"nothing: its storage client is cut off, then it starts again",
		})
	}
	if svc.State == StateRunning && len(svc.Next) == 0 {
		list = append(list, Problem{about, "no other node could take it now", "see the nodes' problems below"})
	}
	return list
}

func (b builder) nodeProblems(node Node, s Status) []Problem {
	about := "node " + node.Name
	var list []Problem
	add := func(text, next string) { list = append(list, Problem{about, text, next}) }
	switch core.Life(node.State) {
	case core.LifeNew:
		add("it has joined but was never heard", "start keepone there: systemctl start keepone-guard keeponed")
	case core.LifeSuspect, core.LifeDown:
		text, next := fmt.Sprintf("no heartbeat for %s", duration(node.Silent)), "look at its power, its links and its console"
		if b.cutOffAlone(node) {
			text += "; its storage clients are cut off, its power was not seen off: it may still answer for addresses that are elsewhere now"
			next += "; if it hangs: keepone fence " + node.Name
		}
		add(text, next)
	case core.LifeFenced:
		add("it is fenced: "+node.Reason, "mend it and power it on; it comes back by itself")
	case core.LifeOnline:
		list = append(list, b.onlineProblems(node, s)...)
	}
	if core.Life(node.State) == core.LifeOnline {
		list = append(list, b.fencingProblems(node)...)
	}
	if node.BMC != "ready" && node.BMC != "none" {
		add("its BMC can't be used to fence it: "+node.BMC, "mend it: if "+node.Name+" is lost, less can be proven")
	}
	return list
}

// fencingProblems tells of a node that could not be fenced if it were lost, and of a BMC that only some can use.
func (b builder) fencingProblems(node Node) []Problem {
	var list []Problem
	for _, f := range node.Fencing {
		if f.Possible || !f.Tried {
			continue
		}
		next := "mend that: if " + node.Name + " is lost with " + f.Service + ", only a human's word will get it started elsewhere"
		if b.state.Spec.PolicyOf(core.ServiceName(f.Service)).FenceableOnly {
			next = "mend that; until then it is no candidate for " + f.Service
		}
		list = append(list, Problem{"node " + node.Name, "it can't be fenced for " + f.Service + ": " + f.Reason, next})
	}
	if node.BMC != "ready" {
		return list // nobody can use it
	}
	for _, by := range b.state.NodeNames() {
		if r := b.facts.View.Nodes[by].Report; r != nil && by != core.NodeName(node.Name) && r.BMCs[core.NodeName(node.Name)] != "" {
			list = append(list, Problem{
				"node " + node.Name, fmt.Sprintf("%s can't use its BMC, others can: %s", by, r.BMCs[core.NodeName(node.Name)]),
				"mend it: if only " + string(by) + " is left, it can't fence " + node.Name + " by its BMC",
			})
		}
	}
	return list
}

// cutOffAlone reports whether the node's storage clients were cut off, and nothing proves that the node itself is off.
func (b builder) cutOffAlone(node Node) bool {
	instance := b.state.Nodes[core.NodeName(node.Name)].Instance
	if _, off := b.state.NodeProof(instance); off {
		return false
	}
	return slices.ContainsFunc(b.state.Fences, func(f core.Fence) bool {
		return f.Instance == instance && slices.ContainsFunc(f.Proofs, func(p core.Proof) bool { return p.Kind == core.ProofStorage })
	})
}

// onlineProblems looks at a node that is heard.
func (b builder) onlineProblems(node Node, s Status) []Problem {
	about := "node " + node.Name
	var list []Problem
	add := func(text, next string) { list = append(list, Problem{about, text, next}) }
	if s.Seen.FromLeader && node.Heard && !node.Daemon {
		add("its guard lives, its daemon does not: what runs there goes on, but nothing can be started there",
			"there: systemctl status keeponed; journalctl -u keeponed")
	}
	for _, link := range node.Links {
		if node.Heard && !link.Up && link.Silent >= 0 {
			add(fmt.Sprintf("its link %s is silent for %s", link.Address, duration(link.Silent)), "look at cable, switch and address of that link")
		}
	}
	for _, storage := range node.Storage {
		switch {
		case storage.Ready || storage.Reason == "":
		case holds(s, node.Name, storage.Service):
			add(fmt.Sprintf("it holds %s, and could not take it again: %s", storage.Service, storage.Reason),
				"mend that: "+storage.Service+" goes on, but may not come back from a restart")
		default:
			add(fmt.Sprintf("it could not take %s: %s", storage.Service, storage.Reason), "mend that; until then it is no candidate")
		}
	}
	report := b.facts.View.Nodes[core.NodeName(node.Name)].Report
	switch {
	case report == nil && s.Seen.FromLeader && node.Heard && node.Daemon:
		add("its daemon lives and sends the leader no report: nothing is given to it", "there: journalctl -u keeponed; if this lasts, restart keeponed there")
	case report != nil && report.Digest != b.state.Document.Digest:
		add("it works by another version of the cluster document", "nothing, if this is gone in a few seconds; else restart keeponed there")
	}
	return list
}

// holds reports whether a node is the holder of a service.
func holds(s Status, node, service string) bool {
	return slices.ContainsFunc(s.Services, func(svc Service) bool { return svc.Name == service && svc.Holder == node })
}

// duration writes seconds for a person: 0.4 s, 12 s, 5 min, 3 h, 2 d.
func duration(s float64) string {
	d := time.Duration(s * float64(time.Second))
	switch {
	case d < 0:
		return "ever"
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	case d < 48*time.Hour:
		return fmt.Sprintf("%.0f h", d.Hours())
	}
	return fmt.Sprintf("%.0f d", d.Hours()/24)
}
