package pacemaker

import (
	"fmt"
	"slices"
	"strings"
)

// OCF's exit codes that a history is judged by (OCF 1.1).
const (
	ocfOK         = 0
	ocfNotRunning = 7
)

// OnlyOurs reports whether nothing can run on the node but what keepone answers for: resources of its agents, fence
// devices, and those that are named (the file systems of its setup). Fencing that covers keepone's storage client alone
// may be told to Pacemaker as success only then: Pacemaker would start everything else again, too, while it runs
// there still. Whatever can't be told makes it false; the text says what it was.
func OnlyOurs(s Status, node string, named ...string) (bool, string) {
	if s.DC == "" || !s.Quorate {
		return false, "Pacemaker has no DC with quorum: what it shows may be old"
	}
	if s.Node(node) == nil {
		return false, fmt.Sprintf("Pacemaker knows no node %s", node)
	}
	agents := map[string]string{}
	for _, r := range s.Resources {
		id := instance(r.ID)
		agents[id] = r.Agent
		if slices.Contains(r.Nodes, node) && !ours(id, r.Agent, named) {
			return false, fmt.Sprintf("%s (%s) is on %s", r.ID, r.Agent, node)
		}
	}
	for _, o := range newest(s.Ran[node]) {
		id := instance(o.Resource)
		if !ours(id, agents[id], named) && !gone(o) {
			return false, fmt.Sprintf("%s may be on %s: its last operation there is %s with code %d", o.Resource, node, o.Task, o.Code)
		}
	}
	return true, ""
}

// ours: an orphan's agent is not known, so it is nobody's.
func ours(id, agent string, named []string) bool {
	return strings.HasPrefix(agent, "ocf:keepone:") || strings.HasPrefix(agent, "stonith:") || slices.Contains(named, id)
}

// gone reports whether an operation, the last one, leaves nothing there.
func gone(o Operation) bool {
	return o.Task == "stop" && o.Code == ocfOK || o.Task == "monitor" && o.Code == ocfNotRunning
}

// newest is the last operation of each resource; one that goes on is newer than any.
func newest(all []Operation) []Operation {
	last := map[string]Operation{}
	var order []string
	for _, o := range all {
		was, ok := last[o.Resource]
		if !ok {
			order = append(order, o.Resource)
		}
		if !ok || was.Call >= 0 && (o.Call < 0 || o.Call > was.Call) {
			last[o.Resource] = o
		}
	}
	out := make([]Operation, len(order))
	for i, name := range order {
		out[i] = last[name]
	}
	return out
}

// instance is a resource's id without the number of its instance in a clone.
func instance(id string) string {
	if base, number, ok := strings.Cut(id, ":"); ok && strings.Trim(number, "0123456789") == "" {
		return base
	}
	return id
}
