package report

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/op"
	"github.com/keepone-ha/keepone/pkg/whatif"
)

// WhatIf is the answer of `keepone what-if -o json`. Nothing of it has happened.
type WhatIf struct {
	Schema   int             `json:"schema"`
	Lose     string          `json:"lose"`
	BMCDead  bool            `json:"bmcDead"`
	BMC      string          `json:"bmc"`    // why its BMC could prove nothing, empty if it could
	Leader   string          `json:"leader"` // that would be
	Election float64         `json:"electionSeconds"`
	Halted   string          `json:"halted"` // why nothing would be done at all
	State    string          `json:"state"`  // of the lost node, in the end
	Services []WhatIfService `json:"services"`
	Steps    []WhatIfStep    `json:"steps"`
}

// WhatIfService is how it would go with one service.
type WhatIfService struct {
	Name    string       `json:"name"`
	From    string       `json:"from"` // empty: nobody holds it now
	To      string       `json:"to"`   // empty: nobody could have it
	Running bool         `json:"running"`
	Hit     bool         `json:"hit"` // the lost node holds it
	Proof   string       `json:"proof"`
	Phases  *Phases      `json:"phases"` // null unless it would be taken over
	Starts  int          `json:"starts"` // past starts that storage, start and probe are medians of
	Missing string       `json:"missing"`
	Next    []string     `json:"next"` // who could take it after that, best first
	Vetoes  []WhatIfVeto `json:"vetoes"`
}

// WhatIfVeto is why another node could not take a service.
type WhatIfVeto struct {
	Node   string `json:"node"`
	Reason string `json:"reason"`
}

// WhatIfStep is one thing that would be committed.
type WhatIfStep struct {
	After float64 `json:"afterSeconds"`
	Kind  string  `json:"kind"`
	Text  string  `json:"text"`
}

// NewWhatIf asks the question about what a daemon saw.
func NewWhatIf(look op.Look, q whatif.Question) (WhatIf, error) {
	a, err := whatif.Ask(look.State, look.Facts.View, look.Facts.Now, q)
	if err != nil {
		return WhatIf{}, fmt.Errorf("what if %s were lost: %w", q.Lose, err)
	}
	out := WhatIf{
		Schema: Schema, Lose: string(q.Lose), BMCDead: q.BMCDead, BMC: a.BMC, Leader: string(a.Leader), Election: seconds(a.Election),
		Halted: a.Halted, State: string(a.Life), Services: []WhatIfService{}, Steps: []WhatIfStep{},
	}
	for _, o := range a.Services {
		out.Services = append(out.Services, whatIfService(look.State, o))
	}
	for _, s := range a.Steps {
		e := newEvent(s.Event)
		e.Phases = nil // the sum stands with the service
		out.Steps = append(out.Steps, WhatIfStep{seconds(s.After), e.Kind, e.sentence()})
	}
	return out, nil
}

func whatIfService(s core.State, o whatif.Outcome) WhatIfService {
	out := WhatIfService{
		Name: string(o.Service), To: string(o.Holder), Running: o.Running, Hit: o.Held, Proof: string(o.Proof), Starts: o.Starts,
		Missing: o.Missing, Next: []string{}, Vetoes: []WhatIfVeto{},
	}
	if g := s.Services[o.Service].Grant; g != nil {
		out.From = string(g.Node)
	}
	if o.Held && o.Running {
		out.Phases = newEvent(core.Event{Phases: &o.Phases}).Phases
	}
	for _, name := range o.Next {
		out.Next = append(out.Next, string(name))
	}
	for _, name := range slices.Sorted(maps.Keys(o.Vetoes)) {
		if name != core.NodeName(out.From) {
			out.Vetoes = append(out.Vetoes, WhatIfVeto{string(name), o.Vetoes[name]})
		}
	}
	return out
}

// WhatIfText writes a WhatIf for a person.
func WhatIfText(w io.Writer, a WhatIf, style Style) error {
	p := printer{style: style}
	p.wrap("", "", style.paint(bold, "If "+a.Lose+" were lost now")+a.circumstances()+". Nothing of this has happened.", 0)
	if a.Halted != "" {
		p.wrap(style.paint(red, "!")+" ", "  ", "Nothing would be done: "+a.Halted+".", 2)
	}
	t := table{{{text: "SERVICE"}, {text: "NOW ON"}, {text: "THEN"}, {text: "PROOF"}, {text: "ABOUT"}, {text: "AFTER THAT"}}}
	for _, s := range a.Services {
		then, about := whatIfThen(s), "-"
		if s.Phases != nil {
			about = duration(s.Phases.Total)
		}
		t = append(t, []cell{{s.Name, bold}, {text: dash(s.From)}, then, {text: dash(s.Proof)}, {text: about}, {text: dash(strings.Join(s.Next, " "))}})
	}
	p.table(t)
	remarks := printer{style: style}
	for _, s := range a.Services {
		remarks.whatIfRemarks(s, a.Halted)
	}
	if remarks.b.Len() > 0 {
		p.line("\n%s", strings.TrimRight(remarks.b.String(), "\n"))
	}
	if len(a.Steps) > 0 {
		p.line("\nWhat would be done:")
	}
	for _, step := range a.Steps {
		p.wrap(fmt.Sprintf("  %7.2f s  ", step.After), "             ", step.Text, 13)
	}
	_, err := io.WriteString(w, p.b.String())
	return err
}

// circumstances are what the answer stands on.
func (a WhatIf) circumstances() string {
	var list []string
	if a.BMC != "" {
		list = append(list, "its BMC would prove nothing: "+a.BMC)
	}
	if a.Election > 0 {
		list = append(list, fmt.Sprintf("it leads: another leader is elected first, in about %s", duration(a.Election)))
	}
	if len(list) == 0 {
		return ""
	}
	return " (" + strings.Join(list, "; ") + ")"
}

func whatIfThen(s WhatIfService) cell {
	switch {
	case !s.Hit && s.To == s.From:
		return cell{text: "stays"}
	case s.To == "" || s.Missing != "":
		return cell{"NOWHERE", red}
	}
	return cell{s.To, green}
}

func (p *printer) whatIfRemarks(s WhatIfService, halted string) {
	bad := func(text string) { p.wrap(p.style.paint(red, "!")+" ", "  ", text, 2) }
	if s.Missing != "" && halted == "" {
		bad(fmt.Sprintf("%s would wait for this: %s.", s.Name, s.Missing))
	}
	for _, veto := range s.Vetoes {
		bad(fmt.Sprintf("%s could not take %s: %s.", veto.Node, s.Name, veto.Reason))
	}
	switch {
	case s.Phases == nil:
	case s.Starts == 0:
		p.wrap("", "", s.Name+" has no start in the history: its own start is not in the time.", 0)
	default:
		p.wrap("", "", fmt.Sprintf("%s: detect %s, fence %s by the timing of the document; storage %s, start %s, probe %s as the median of %d past starts.",
			s.Name, duration(s.Phases.Detect), duration(s.Phases.Fence), duration(s.Phases.Storage), duration(s.Phases.Start), duration(s.Phases.Probe), s.Starts), 0)
	}
}
