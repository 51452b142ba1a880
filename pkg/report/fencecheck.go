package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/op"
)

// FenceCheck is the answer of `keepone fence check -o json`: what every node found when it tried, just now, what a
// fence of the others would need.
type FenceCheck struct {
	Schema int         `json:"schema"`
	Bad    int         `json:"bad"` // nodes that can't be fenced
	Nodes  []FenceNode `json:"nodes"`
}

// FenceNode is one node that may have to be fenced.
type FenceNode struct {
	Name    string    `json:"name"`
	Can     bool      `json:"canBeFenced"`
	BMC     string    `json:"bmc"` // "ready", "none", or what is wrong with it for all the others
	By      []FenceBy `json:"by"`
	Fencing []Fencing `json:"fencing"` // for each service that it may hold
}

// FenceBy is what one other node found.
type FenceBy struct {
	Node    string       `json:"node"`
	Problem string       `json:"problem"` // why it could not be asked, empty if it answered
	BMC     string       `json:"bmc"`     // "ready", "none", "not tried", or what is wrong
	Cuts    []FenceCutBy `json:"storage"`
}

// FenceCutBy says whether a node could cut off the storage clients of a service.
type FenceCutBy struct {
	Service string `json:"service"`
	Ready   bool   `json:"ready"`
	Reason  string `json:"reason"`
}

// NewFenceCheck makes a FenceCheck of what a daemon answered.
func NewFenceCheck(c op.FenceCheck) FenceCheck {
	b := builder{state: c.Look.State, facts: c.Look.Facts}
	b.facts.Instead = false // every node was asked, whoever leads
	out := FenceCheck{Schema: Schema, Nodes: []FenceNode{}}
	for _, name := range b.state.NodeNames() {
		node := b.fenceNode(name, c.Silent)
		if !node.Can {
			out.Bad++
		}
		out.Nodes = append(out.Nodes, node)
	}
	return out
}

func (b builder) fenceNode(name core.NodeName, silent map[core.NodeName]string) FenceNode {
	node := FenceNode{Name: string(name), Can: true, BMC: "none", By: []FenceBy{}, Fencing: []Fencing{}}
	spec := b.state.Spec.Node(name)
	hasBMC := spec != nil && spec.BMC != nil
	if hasBMC {
		node.BMC = "ready"
		if problem, _ := b.state.BMCFound(b.facts.View, name); problem != "" {
			node.BMC = problem
		}
	}
	for _, f := range b.fencing(name) {
		node.Fencing = append(node.Fencing, f)
		node.Can = node.Can && f.Possible
	}
	if len(b.state.Spec.Services) == 0 && spec != nil && !spec.Witness {
		node.Can = node.BMC == "ready" // nothing else can be tried before there is a volume
	}
	for _, by := range b.state.NodeNames() {
		if by != name {
			node.By = append(node.By, b.fenceBy(by, name, hasBMC, silent[by]))
		}
	}
	return node
}

func (b builder) fenceBy(by, name core.NodeName, hasBMC bool, problem string) FenceBy {
	out := FenceBy{Node: string(by), Problem: problem, BMC: "none", Cuts: []FenceCutBy{}}
	r := b.facts.View.Nodes[by].Report
	if hasBMC {
		out.BMC = "not tried"
	}
	if r == nil {
		return out
	}
	if found, tried := r.BMCs[name]; tried && hasBMC {
		if out.BMC = found; found == "" {
			out.BMC = "ready"
		}
	}
	for _, service := range b.state.ServiceNames() {
		if ready, asked := r.Ready[service]; asked && b.eligible(name, service) {
			cut := FenceCutBy{Service: string(service), Ready: ready.MayCut()}
			if !cut.Ready {
				cut.Reason = ready.Reason
			}
			out.Cuts = append(out.Cuts, cut)
		}
	}
	return out
}

// FenceCheckText writes a FenceCheck for a person.
func FenceCheckText(w io.Writer, c FenceCheck, style Style) error {
	p := printer{style: style}
	t := table{{{text: "NODE"}, {text: "CAN BE FENCED"}, {text: "TRIED BY"}, {text: "BMC"}, {text: "STORAGE"}}}
	for _, node := range c.Nodes {
		name, can := cell{node.Name, bold}, canBeFenced(node)
		for _, by := range node.By {
			if by.Problem != "" {
				t = append(t, []cell{name, can, {text: by.Node}, {"no answer", red}, {"no answer", red}})
			} else {
				t = append(t, []cell{name, can, {text: by.Node}, short(by.BMC, "ready", "none"), cutsCell(by)})
			}
			name, can = cell{}, cell{}
		}
	}
	p.table(t)
	p.line("")
	for _, problem := range fenceCheckProblems(c) {
		p.wrap(style.paint(red, "!")+" ", "  ", problem, 2)
	}
	if c.Bad == 0 {
		p.line("%s", style.paint(green, "Every node that may hold a service can be fenced."))
	} else {
		p.line("%s", style.paint(red, fmt.Sprintf("%d of %d nodes can't be fenced.", c.Bad, len(c.Nodes))))
	}
	_, err := io.WriteString(w, strings.TrimPrefix(p.b.String(), "\n"))
	return err
}

func canBeFenced(node FenceNode) cell {
	switch {
	case !node.Can:
		return cell{"NO", red}
	case len(node.Fencing) == 0 && node.BMC != "ready":
		return cell{text: "need not be"}
	}
	return cell{"yes", green}
}

func cutsCell(by FenceBy) cell {
	for _, cut := range by.Cuts {
		if !cut.Ready {
			return cell{"problem", red}
		}
	}
	if len(by.Cuts) == 0 {
		return cell{text: "-"}
	}
	return cell{text: "ready"}
}

// fenceCheckProblems says each thing that is wrong once.
func fenceCheckProblems(c FenceCheck) []string {
	var list []string
	told := map[string]bool{}
	add := func(format string, args ...any) {
		if text := fmt.Sprintf(format, args...); !told[text] {
			told[text] = true
			list = append(list, text)
		}
	}
	for _, node := range c.Nodes {
		for _, f := range node.Fencing {
			if !f.Possible {
				add("%s can't be fenced for %s: %s.", node.Name, f.Service, f.Reason)
			}
		}
		for _, by := range node.By {
			if by.Problem != "" {
				add("%s could not be asked: %s.", by.Node, by.Problem)
			} else if by.BMC != "ready" && by.BMC != "none" {
				add("%s tried the BMC of %s: %s.", by.Node, node.Name, by.BMC)
			}
			for _, cut := range by.Cuts {
				if !cut.Ready {
					add("%s can't cut off clients of %s: %s.", by.Node, cut.Service, cut.Reason)
				}
			}
		}
		if !node.Can && len(node.Fencing) == 0 {
			add("%s can't be fenced: its BMC: %s.", node.Name, node.BMC)
		}
	}
	return list
}
