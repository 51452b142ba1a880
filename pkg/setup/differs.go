package setup

import (
	"fmt"
	"slices"
	"strings"
)

// Differs says in words how a live CIB differs from the setup, the worst kinds first; empty: not at all. What the live
// one has beyond the setup is the operator's own affair, but for what a move has left on keepone's resources. A
// constraint counts by what it says, whatever its id.
func (s Setup) Differs(live CIB) []string {
	d := differ{want: s.CIB, live: live.index()}
	for _, p := range s.CIB.Primitives() {
		d.primitive(p)
	}
	for _, g := range s.CIB.Resources.Groups {
		d.group(g)
	}
	for _, c := range s.CIB.Resources.Clones {
		d.clone(c)
	}
	d.constraints(live.Constraints)
	d.levels(live.Levels)
	d.values("cluster: property", s.CIB.Properties, live.Properties)
	return d.out
}

// Primitives are all of them, within groups and clones too.
func (c CIB) Primitives() []Primitive {
	all := slices.Clone(c.Resources.Primitives)
	for _, g := range c.Resources.Groups {
		all = append(all, g.Primitives...)
	}
	for _, k := range c.Resources.Clones {
		all = append(all, k.Primitive)
	}
	return all
}

// index is a CIB by its resources' ids.
type index struct {
	primitives map[string]Primitive
	groups     map[string]Group
	clones     map[string]Clone
}

func (c CIB) index() index {
	x := index{map[string]Primitive{}, map[string]Group{}, map[string]Clone{}}
	for _, p := range c.Primitives() {
		x.primitives[p.ID] = p
	}
	for _, g := range c.Resources.Groups {
		x.groups[g.ID] = g
	}
	for _, k := range c.Resources.Clones {
		x.clones[k.ID] = k
	}
	return x
}

type differ struct {
	want CIB
	live index
	out  []string
}

func (d *differ) say(format string, args ...any) { d.out = append(d.out, fmt.Sprintf(format, args...)) }

func (d *differ) primitive(want Primitive) {
	have, ok := d.live.primitives[want.ID]
	what := "resource " + want.ID
	switch {
	case !ok:
		d.say("%s (%s) is missing", what, want.agent())
		return
	case have.agent() != want.agent():
		d.say("%s is a %s: it must be a %s", what, have.agent(), want.agent())
		return
	}
	d.values(what+": parameter", want.Params, have.Params)
	d.values(what+": option", want.Meta, have.Meta)
	for _, o := range want.Ops {
		d.operation(what, o, have.Ops)
	}
}

// values must be there and the same; those that keepone names none for may be anything.
func (d *differ) values(what string, want, have []Set) {
	for _, s := range want {
		for _, p := range s.Pairs {
			got, ok := value(have, p.Name)
			switch {
			case !ok:
				d.say("%s %s is not set: it must be %s", what, p.Name, p.Value)
			case !same(got, p.Value):
				d.say("%s %s is %s: it must be %s", what, p.Name, got, p.Value)
			}
		}
	}
}

// same takes 600s and 10min for the same, and true and 1.
func same(a, b string) bool {
	if a == b {
		return true
	}
	x, ok := parseSpan(a)
	y, also := parseSpan(b)
	if ok && also {
		return x == y
	}
	return truth(a) != "" && truth(a) == truth(b)
}

func truth(text string) string {
	switch strings.ToLower(text) {
	case "true", "yes", "on", "y", "1":
		return "true"
	case "false", "no", "off", "n", "0":
		return "false"
	}
	return ""
}

// operation must be there, with at least its timeout. A monitor may come as often as its operator likes.
func (d *differ) operation(what string, want Operation, live []Operation) {
	words := "operation " + want.Name
	if want.Role != "" {
		words += " of the role " + want.Role
	}
	if want.depth() != "0" {
		words += " with " + checkLevel + "=" + want.depth()
	}
	i := slices.IndexFunc(live, func(o Operation) bool {
		return o.Name == want.Name && role(o.Role) == role(want.Role) && o.depth() == want.depth()
	})
	if i < 0 {
		d.say("%s: %s is missing: it needs interval %s, timeout %s", what, words, want.Interval, want.Timeout)
		return
	}
	if want.OnFail != "" && live[i].OnFail != want.OnFail {
		d.say("%s: %s has no on-fail=%s", what, words, want.OnFail)
	}
	need, _ := parseSpan(want.Timeout)
	switch got, ok := parseSpan(live[i].Timeout); {
	case live[i].Timeout == "":
		d.say("%s: %s has no timeout, and Pacemaker's default is too small: it needs at least %s", what, words, want.Timeout)
	case !ok:
		d.say("%s: %s has timeout %s, which can't be read here: it needs at least %s", what, words, live[i].Timeout, want.Timeout)
	case got < need:
		d.say("%s: %s has timeout %s, which is too small: it needs at least %s", what, words, live[i].Timeout, want.Timeout)
	}
	if got, ok := parseSpan(live[i].Interval); want.Interval != "0s" && ok && got == 0 {
		d.say("%s: %s is done once and never again: it needs interval %s", what, words, want.Interval)
	}
}

// role by its name of today, "Started" being the same as none.
func role(name string) string {
	switch name {
	case "Master":
		return "Promoted"
	case "Slave":
		return "Unpromoted"
	case "Started":
		return ""
	}
	return name
}

func (d *differ) group(want Group) {
	have, ok := d.live.groups[want.ID]
	if !ok {
		d.say("group %s is missing", want.ID)
		return
	}
	d.values("group "+want.ID+": option", want.Meta, have.Meta)
	var members, wanted []string
	for _, p := range have.Primitives {
		members = append(members, p.ID)
	}
	for _, p := range want.Primitives {
		wanted = append(wanted, p.ID)
	}
	// Others may stand in between: an address, a backup of the operator's own.
	rest := members
	for _, id := range wanted {
		i := slices.Index(rest, id)
		if i < 0 {
			d.say("group %s holds %s: it must hold %s, in this order", want.ID, strings.Join(members, ", "), strings.Join(wanted, ", "))
			return
		}
		rest = rest[i+1:]
	}
}

func (d *differ) clone(want Clone) {
	have, ok := d.live.clones[want.ID]
	switch {
	case !ok:
		d.say("clone %s of %s is missing", want.ID, want.Primitive.ID)
		return
	case have.Primitive.ID != want.Primitive.ID:
		d.say("clone %s is of %s: it must be of %s", want.ID, dash(have.Primitive.ID), want.Primitive.ID)
	}
	d.values("clone "+want.ID+": option", want.Meta, have.Meta)
}

func dash(text string) string {
	if text == "" {
		return "something else"
	}
	return text
}
