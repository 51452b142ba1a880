package setup

import (
	"slices"
	"strings"
)

// constraints must be there, by what they say.
func (d *differ) constraints(live Constraints) {
	for _, l := range d.want.Constraints.Locations {
		if l.Node == "" {
			d.rule(l, live.Locations)
			continue
		}
		if !slices.ContainsFunc(live.Locations, func(h Location) bool {
			return h.Resource == l.Resource && h.Node == l.Node && score(h.Score) == score(l.Score)
		}) {
			d.say("constraint is missing: %s has score %s on %s", l.Resource, l.Score, l.Node)
		}
	}
	for _, o := range d.want.Constraints.Orders {
		if !slices.ContainsFunc(live.Orders, func(h Order) bool { return h.plain() == o.plain() }) {
			d.say("constraint is missing: %s %s, then %s %s (%s)", o.FirstAction, o.First, o.ThenAction, o.Then, o.Kind)
		}
	}
	for _, c := range d.want.Constraints.Colocations {
		if !slices.ContainsFunc(live.Colocations, func(h Colocation) bool { return h.plain() == c.plain() }) {
			d.say("constraint is missing: %s where %s is %s, score %s", c.Resource, c.With, strings.ToLower(c.WithRole), c.Score)
		}
	}
	for _, l := range live.Locations {
		if strings.HasPrefix(l.ID, "cli-") && d.ours(l.Resource) {
			d.say("constraint %s is left from a move or a ban: `pcs resource clear %s` ends it", l.ID, l.Resource)
		}
	}
}

// rule keeps a service off the nodes that keepone refuses: whoever takes it out has starts fail instead.
func (d *differ) rule(want Location, live []Location) {
	w := want.Rules[0]
	attribute := w.Expressions[0].Attribute
	for _, l := range live {
		if l.Resource != want.Resource {
			continue
		}
		for _, r := range l.Rules {
			if r.about(attribute) && role(r.Role) == "" && score(r.Score) == score(w.Score) && len(r.Expressions) == len(w.Expressions) {
				return
			}
		}
	}
	d.say("constraint is missing: %s has score -INFINITY where node attribute %s is not defined or less than 1", want.Resource, attribute)
}

// about reports whether a rule is that of an eligible node: not defined, or less than 1.
func (r Rule) about(attribute string) bool {
	defined, less := false, false
	for _, e := range r.Expressions {
		if e.Attribute != attribute {
			return false
		}
		defined = defined || e.Operation == "not_defined"
		less = less || e.Operation == "lt" && e.Value == "1"
	}
	return defined && less && r.Join != "and"
}

// plain is the order without its id and with what Pacemaker takes for granted.
func (o Order) plain() Order {
	o.ID = ""
	o.FirstAction, o.Kind = or(o.FirstAction, "start"), or(o.Kind, "Mandatory")
	o.ThenAction = or(o.ThenAction, o.FirstAction)
	return o
}

func (c Colocation) plain() Colocation {
	c.ID = ""
	c.WithRole, c.Score = role(c.WithRole), score(or(c.Score, "INFINITY"))
	return c
}

func or(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// score writes one in one way.
func score(text string) string {
	switch strings.ToUpper(strings.TrimPrefix(text, "+")) {
	case "INFINITY", "1000000":
		return "INFINITY"
	case "-INFINITY", "-1000000":
		return "-INFINITY"
	}
	return text
}

// ours reports whether a resource is one of the setup's.
func (d *differ) ours(id string) bool {
	for _, p := range d.want.Primitives() {
		if p.ID == id {
			return true
		}
	}
	return slices.ContainsFunc(d.want.Resources.Groups, func(g Group) bool { return g.ID == id }) ||
		slices.ContainsFunc(d.want.Resources.Clones, func(c Clone) bool { return c.ID == id })
}

func (d *differ) levels(live []Level) {
	for _, want := range d.want.Levels {
		i := slices.IndexFunc(live, func(h Level) bool { return h.Target == want.Target && h.Index == want.Index })
		switch {
		case i < 0:
			d.say("fencing level %d of %s is missing: it must be %s", want.Index, want.Target, want.Devices)
		case live[i].Devices != want.Devices:
			d.say("fencing level %d of %s is %s: it must be %s", want.Index, want.Target, live[i].Devices, want.Devices)
		}
	}
}
