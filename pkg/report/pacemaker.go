package report

import (
	"slices"
	"strings"

	"github.com/keepone-ha/keepone/pkg/op"
)

// Pacemaker is what the node that saw the Status reads of Pacemaker and corosync. It is there only where the cluster
// document says that Pacemaker manages the cluster.
type Pacemaker struct {
	DC              string              `json:"dc"`              // empty: none
	CorosyncQuorate *bool               `json:"corosyncQuorate"` // null: not known
	Members         []string            `json:"members"`         // of corosync
	MaintenanceMode bool                `json:"maintenanceMode"`
	StonithEnabled  bool                `json:"stonithEnabled"`
	Age             float64             `json:"ageSeconds"` // of Pacemaker's answer; -1: there was none
	Problem         string              `json:"problem"`    // why the newest reading failed
	Nodes           []PacemakerNode     `json:"nodes"`
	Resources       []PacemakerResource `json:"resources"` // keepone's
	Fencing         []string            `json:"fencing"`   // nodes that are being fenced
	Bans            []PacemakerBan      `json:"bans"`      // that a command of Pacemaker's has left
}

// PacemakerBan keeps a resource off a node until somebody takes it back.
type PacemakerBan struct {
	Resource string `json:"resource"`
	Node     string `json:"node"`
}

// PacemakerNode is a member.
type PacemakerNode struct {
	Name        string `json:"name"`
	Online      bool   `json:"online"`
	Standby     bool   `json:"standby"`
	Maintenance bool   `json:"maintenance"`
	Unclean     bool   `json:"unclean"` // to be fenced
}

// PacemakerResource is a resource, or one instance of it.
type PacemakerResource struct {
	ID      string   `json:"id"`
	Agent   string   `json:"agent"`
	Role    string   `json:"role"` // Started, Stopped, Promoted, Unpromoted, or on the way
	Nodes   []string `json:"nodes"`
	Managed bool     `json:"managed"`
	Failed  bool     `json:"failed"`
	Blocked bool     `json:"blocked"`
	// Disabled is what an operator disabled: it, or the group or clone that it is in. Empty: nobody did.
	Disabled string `json:"disabled"`
}

func newPacemaker(f *op.Pacemaker) *Pacemaker {
	if f == nil {
		return nil
	}
	out := &Pacemaker{
		DC: f.DC, MaintenanceMode: f.Maintenance, StonithEnabled: f.Stonith, Age: -1, Problem: f.Problem,
		Members: []string{}, Nodes: []PacemakerNode{}, Resources: []PacemakerResource{}, Fencing: append([]string{}, f.Fencing...),
		Bans: []PacemakerBan{},
	}
	if f.Age >= 0 {
		out.Age = seconds(f.Age)
	}
	if f.Corosync != nil {
		quorate := f.Corosync.Quorate
		out.CorosyncQuorate, out.Members = &quorate, append(out.Members, f.Corosync.Members...)
	}
	for _, n := range f.Nodes {
		out.Nodes = append(out.Nodes, PacemakerNode{Name: n.Name, Online: n.Online && !n.Pending, Standby: n.Standby, Maintenance: n.Maintenance, Unclean: n.Unclean})
	}
	for _, r := range f.Resources {
		out.Resources = append(out.Resources, PacemakerResource{
			ID: r.ID, Agent: r.Agent, Role: r.Role, Nodes: append([]string{}, r.Nodes...), Managed: r.Managed, Failed: r.Failed, Blocked: r.Blocked, Disabled: r.Disabled,
		})
	}
	for _, b := range f.Bans {
		out.Bans = append(out.Bans, PacemakerBan(b))
	}
	return out
}

const controllerAgent = "ocf:keepone:controller"

// problems of Pacemaker, as the node named by sees it.
func (p *Pacemaker) problems(by string) []Problem {
	var list []Problem
	add := func(about, text, next string) { list = append(list, Problem{about, text, next}) }
	switch {
	case p.CorosyncQuorate == nil:
		add("pacemaker", "corosync of "+by+" does not say whether it is quorate", "there: systemctl status corosync; corosync-quorumtool -s")
	case !*p.CorosyncQuorate:
		add("pacemaker", "corosync of "+by+" has no quorum: Pacemaker stops what runs there and starts nothing", "bring back the members that are missing, or their links")
	}
	if p.Age < 0 || p.Problem != "" {
		text := "Pacemaker of " + by + " does not answer"
		if p.Problem != "" {
			text += ": " + p.Problem
		}
		add("pacemaker", text, "there: systemctl status pacemaker; crm_mon -1")
	}
	if p.Age < 0 {
		return list
	}
	if p.DC == "" {
		add("pacemaker", "it has no DC: nothing is started or moved", "wait a few seconds for an election, then look again")
	}
	if p.MaintenanceMode {
		add("pacemaker", "it is in maintenance-mode: nothing is started, stopped or watched", "when the work is done: pcs property set maintenance-mode=false")
	}
	if !p.StonithEnabled {
		add("pacemaker", "stonith-enabled is false: it would start a service again before the lost node is fenced; keepone refuses that",
			"keepone pacemaker setup --check says what else differs")
	}
	for _, agent := range []string{controllerAgent, "stonith:fence_keepone"} {
		if !slices.ContainsFunc(p.Resources, func(r PacemakerResource) bool { return r.Agent == agent }) {
			add("pacemaker", "it has no resource of "+agent, "keepone pacemaker setup prints it, keepone pacemaker setup --check says what else is missing")
		}
	}
	return append(list, p.resourceProblems()...)
}

func (p *Pacemaker) resourceProblems() []Problem {
	var list []Problem
	var disabled []string // told already
	for _, r := range p.Resources {
		about := "resource " + r.ID
		switch {
		case r.Blocked:
			list = append(list, Problem{about, "Pacemaker can't stop it and has given up: it is blocked", "look there, then: pcs resource cleanup " + r.ID})
		case r.Failed:
			list = append(list, Problem{about, "it failed on " + strings.Join(r.Nodes, ", "), "crm_mon -1rf says why; Pacemaker tries again by itself"})
		case !r.Managed && !p.MaintenanceMode:
			list = append(list, Problem{about, "Pacemaker does not manage it", "when the work is done: pcs resource manage " + r.ID})
		}
		if r.Disabled != "" && !slices.Contains(disabled, r.Disabled) {
			disabled = append(disabled, r.Disabled)
			text := "it is disabled in Pacemaker: nothing starts it"
			if r.Agent == controllerAgent {
				text = "it is disabled in Pacemaker: what runs goes on, and no other node may take it"
			}
			list = append(list, Problem{"resource " + r.Disabled, text, "when the work is done: pcs resource enable " + r.Disabled})
		}
	}
	for _, b := range p.Bans {
		list = append(list, Problem{
			"resource " + b.Resource, "it is banned from " + b.Node + ", by a command of Pacemaker's",
			"when that is not wanted any more: pcs resource clear " + b.Resource,
		})
	}
	return list
}

// pacemaker writes its section, nothing where keepone manages the cluster by itself.
func (p *printer) pacemaker(s *Pacemaker) {
	if s == nil {
		return
	}
	quorate := p.style.paint(yellow, "corosync unknown")
	switch {
	case s.CorosyncQuorate != nil && *s.CorosyncQuorate:
		quorate = p.style.paint(green, "corosync quorate")
	case s.CorosyncQuorate != nil:
		quorate = p.style.paint(red, "corosync NOT QUORATE")
	}
	dc := "no DC"
	switch {
	case s.Age < 0:
		dc = "DC unknown"
	case s.DC != "":
		dc = "DC " + s.DC
	}
	p.line("\n%s   %s   %s   members %s", p.style.paint(bold, "Pacemaker"), dc, quorate, dash(strings.Join(s.Members, " ")))
	if s.Problem != "" && s.Age >= 0 {
		p.line("%s", p.style.paint(yellow, "As it was "+duration(s.Age)+" ago."))
	}
	var away []string
	for _, n := range s.Nodes {
		if words := n.words(); words != "" {
			away = append(away, n.Name+" "+words)
		}
	}
	if len(away) > 0 {
		p.line("%s", p.style.paint(yellow, strings.Join(away, ", ")))
	}
	if len(s.Resources) == 0 {
		return
	}
	t := table{{{text: "RESOURCE"}, {text: "ROLE"}, {text: "NODE"}, {text: "AGENT"}, {text: ""}}}
	for _, r := range s.Resources {
		t = append(t, []cell{{r.ID, bold}, {r.Role, r.color()}, {text: dash(strings.Join(r.Nodes, " "))}, {text: r.Agent}, {r.words(), red}})
	}
	p.table(t)
}

func (n PacemakerNode) words() string {
	switch {
	case n.Unclean:
		return "to be fenced"
	case !n.Online:
		return "offline"
	case n.Standby:
		return "standby"
	case n.Maintenance:
		return "in maintenance"
	}
	return ""
}

func (r PacemakerResource) color() string {
	switch r.Role {
	case "Promoted", "Started":
		return green
	case "Unpromoted":
		return ""
	}
	return yellow
}

func (r PacemakerResource) words() string {
	var list []string
	if r.Failed {
		list = append(list, "failed")
	}
	if r.Blocked {
		list = append(list, "blocked")
	}
	if !r.Managed {
		list = append(list, "unmanaged")
	}
	if r.Disabled != "" {
		list = append(list, "disabled")
	}
	return strings.Join(list, ", ")
}
