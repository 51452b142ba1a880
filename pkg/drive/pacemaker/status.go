package pacemaker

import (
	"encoding/xml"
	"fmt"
	"strings"
)

// Status is what crm_mon shows of the cluster, as the node that was asked knows it.
type Status struct {
	DC         string // empty: none
	Quorate    bool   // corosyncQuorate, as the DC has it
	Version    string // of the DC's Pacemaker
	Options    Options
	Nodes      []Node
	Resources  []Resource                   // an instance of a clone is an entry of its own, a stopped one too
	Attributes map[string]map[string]string // of each node, by name
	Failures   []Failure
	Fencing    []FenceEvent
	Bans       []Banned
	Ran        map[string][]Operation // of each node, what its history holds
}

// Options are cluster properties.
type Options struct {
	StonithEnabled  bool   `xml:"stonith-enabled,attr"`
	MaintenanceMode bool   `xml:"maintenance-mode,attr"`
	StopAll         bool   `xml:"stop-all-resources,attr"`
	NoQuorumPolicy  string `xml:"no-quorum-policy,attr"`
}

// Node is a member.
type Node struct {
	Name        string `xml:"name,attr"`
	ID          string `xml:"id,attr"`
	Online      bool   `xml:"online,attr"`
	Standby     bool   `xml:"standby,attr"`
	Maintenance bool   `xml:"maintenance,attr"`
	Pending     bool   `xml:"pending,attr"` // it joins
	Unclean     bool   `xml:"unclean,attr"` // to be fenced
	Type        string `xml:"type,attr"`
}

// Resource is a primitive, or one instance of it.
type Resource struct {
	ID             string
	Agent          string // "ocf:keepone:rbd", "stonith:fence_keepone"
	Role           string // Started, Stopped, Promoted, Unpromoted, Starting, Stopping, Promoting, Demoting
	TargetRole     string // empty: none is set
	Orphaned       bool   // runs, and is not in the CIB any more
	Blocked        bool
	Managed        bool
	Failed         bool
	FailureIgnored bool
	Pending        string // an operation that goes on
	Nodes          []string
	Parents        []string // clone, group or bundle that it is in, the outermost first
}

// Failure is an operation that failed and is not cleaned up.
type Failure struct {
	Operation string `xml:"op_key,attr"`
	Node      string `xml:"node,attr"`
	Status    string `xml:"exitstatus,attr"`
	Reason    string `xml:"exitreason,attr"`
}

// FenceEvent is one fencing, past or pending.
type FenceEvent struct {
	Target    string `xml:"target,attr"`
	Action    string `xml:"action,attr"`
	Status    string `xml:"status,attr"` // pending, success, failed
	Reason    string `xml:"exit-reason,attr"`
	Client    string `xml:"client,attr"`
	Delegate  string `xml:"delegate,attr"`
	Completed string `xml:"completed,attr"`
}

// BanPrefix begins the ids of the constraints that `pcs resource move-with-constraint` and `ban` leave.
const BanPrefix = "cli-ban-"

// Banned is a constraint that keeps a resource off a node.
type Banned struct {
	ID       string `xml:"id,attr"`
	Resource string `xml:"resource,attr"`
	Node     string `xml:"node,attr"`
	Promoted bool   `xml:"promoted-only,attr"`
}

// Operation is the newest of its kind that a node has done for a resource.
type Operation struct {
	Resource string
	Call     int    // rises with each operation of the node; -1: it goes on
	Task     string // start, stop, monitor, promote, demote
	Interval string // of a recurring monitor
	Code     int    // as OCF has it
}

// notConnected is crm_mon's exit code where no Pacemaker answers (CRM_EX_DISCONNECT).
const notConnected = 102

// Parse reads `crm_mon -1 --output-as=xml` of Pacemaker 2.1.
func Parse(text []byte) (Status, error) {
	var x xmlResult
	if err := xml.Unmarshal(text, &x); err != nil {
		return Status{}, fmt.Errorf("read Pacemaker's status: %w", err)
	}
	switch {
	case x.Status == nil:
		return Status{}, fmt.Errorf("read Pacemaker's status: crm_mon's answer has no end")
	case x.Status.Code == notConnected:
		return Status{}, fmt.Errorf("read Pacemaker's status: %w", ErrNotRunning)
	case x.Status.Code != 0:
		return Status{}, fmt.Errorf("read Pacemaker's status: crm_mon says %d: %s: %s", x.Status.Code, x.Status.Message, strings.Join(x.Status.Errors, "; "))
	}
	s := Status{
		Options: x.Options, Nodes: x.Nodes, Failures: x.Failures, Fencing: x.Fencing, Bans: x.Bans,
		Attributes: map[string]map[string]string{}, Ran: map[string][]Operation{},
	}
	if x.DC.Present {
		s.DC, s.Version, s.Quorate = x.DC.Name, x.DC.Version, x.DC.Quorum
	}
	s.Resources = x.Resources.flat(nil, nil)
	for _, n := range x.Attributes {
		values := map[string]string{}
		for _, a := range n.Attributes {
			values[a.Name] = a.Value
		}
		s.Attributes[n.Name] = values
	}
	for _, n := range x.History {
		for _, r := range n.Resources {
			for _, o := range r.Operations {
				s.Ran[n.Name] = append(s.Ran[n.Name], Operation{Resource: r.ID, Call: o.Call, Task: o.Task, Interval: o.Interval, Code: o.Code})
			}
		}
	}
	return s, nil
}

// Node returns the member of that name, nil if Pacemaker knows none.
func (s *Status) Node(name string) *Node {
	for i := range s.Nodes {
		if s.Nodes[i].Name == name {
			return &s.Nodes[i]
		}
	}
	return nil
}

// xmlResult is the part of crm_mon's answer that Status is made of.
type xmlResult struct {
	XMLName xml.Name `xml:"pacemaker-result"`
	Status  *struct {
		Code    int      `xml:"code,attr"`
		Message string   `xml:"message,attr"`
		Errors  []string `xml:"errors>error"`
	} `xml:"status"`
	DC struct {
		Present bool   `xml:"present,attr"`
		Name    string `xml:"name,attr"`
		Version string `xml:"version,attr"`
		Quorum  bool   `xml:"with_quorum,attr"`
	} `xml:"summary>current_dc"`
	Options    Options `xml:"summary>cluster_options"`
	Nodes      []Node  `xml:"nodes>node"`
	Resources  xmlList `xml:"resources"`
	Attributes []struct {
		Name       string `xml:"name,attr"`
		Attributes []struct {
			Name  string `xml:"name,attr"`
			Value string `xml:"value,attr"`
		} `xml:"attribute"`
	} `xml:"node_attributes>node"`
	History []struct {
		Name      string `xml:"name,attr"`
		Resources []struct {
			ID         string `xml:"id,attr"`
			Operations []struct {
				Call     int    `xml:"call,attr"`
				Task     string `xml:"task,attr"`
				Interval string `xml:"interval,attr"`
				Code     int    `xml:"rc,attr"`
			} `xml:"operation_history"`
		} `xml:"resource_history"`
	} `xml:"node_history>node"`
	Failures []Failure    `xml:"failures>failure"`
	Fencing  []FenceEvent `xml:"fence_history>fence_event"`
	Bans     []Banned     `xml:"bans>ban"`
}

// xmlList is what may hold resources: the cluster, a clone, a group, one replica of a bundle.
type xmlList struct {
	Resources []xmlResource `xml:"resource"`
	Groups    []xmlSet      `xml:"group"`
	Clones    []xmlSet      `xml:"clone"`
	Bundles   []struct {
		ID       string    `xml:"id,attr"`
		Replicas []xmlList `xml:"replica"`
	} `xml:"bundle"`
}

type xmlSet struct {
	ID string `xml:"id,attr"`
	xmlList
}

type xmlResource struct {
	ID             string `xml:"id,attr"`
	Agent          string `xml:"resource_agent,attr"`
	Role           string `xml:"role,attr"`
	TargetRole     string `xml:"target_role,attr"`
	Orphaned       bool   `xml:"orphaned,attr"`
	Blocked        bool   `xml:"blocked,attr"`
	Managed        bool   `xml:"managed,attr"`
	Failed         bool   `xml:"failed,attr"`
	FailureIgnored bool   `xml:"failure_ignored,attr"`
	Pending        string `xml:"pending,attr"`
	Nodes          []struct {
		Name string `xml:"name,attr"`
	} `xml:"node"`
}

// flat appends every primitive of the list, in the order of its kinds.
func (l xmlList) flat(all []Resource, parents []string) []Resource {
	for _, x := range l.Resources {
		r := Resource{
			ID: x.ID, Agent: x.Agent, Role: x.Role, TargetRole: x.TargetRole, Orphaned: x.Orphaned, Blocked: x.Blocked,
			Managed: x.Managed, Failed: x.Failed, FailureIgnored: x.FailureIgnored, Pending: x.Pending, Parents: parents,
		}
		for _, n := range x.Nodes {
			r.Nodes = append(r.Nodes, n.Name)
		}
		all = append(all, r)
	}
	within := func(id string) []string { return append(parents[:len(parents):len(parents)], id) }
	for _, set := range append(l.Groups[:len(l.Groups):len(l.Groups)], l.Clones...) {
		all = set.flat(all, within(set.ID))
	}
	for _, b := range l.Bundles {
		for _, replica := range b.Replicas {
			all = replica.flat(all, within(b.ID))
		}
	}
	return all
}
