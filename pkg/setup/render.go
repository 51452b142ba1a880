package setup

import (
	"encoding/xml"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// XML is the CIB. It holds no nodes: they add themselves.
func (s Setup) XML() string {
	text, err := xml.MarshalIndent(s.CIB, "", "  ")
	if err != nil {
		panic(err) // plain structs of texts and numbers
	}
	return empty.ReplaceAllString(string(text), "/>") + "\n"
}

// empty is the end of an element without content: no element here has a text.
var empty = regexp.MustCompile(`></[a-z_-]+>`)

// cibFile is where the pcs commands collect their changes.
const cibFile = "keepone-cib.xml"

// PCS is the same as commands for pcs. They work on a copy of the CIB and push it as one change, so that Pacemaker never
// acts on half of it.
func (s Setup) PCS() string {
	p := pcs{}
	p.comment("Run this on one node of a running cluster, as root. corosync.conf: keepone pacemaker setup --format corosync")
	p.raw("set -e")
	p.raw("pcs cluster cib " + cibFile)
	p.raw("cp " + cibFile + " " + cibFile + ".before")
	p.comment("the cluster")
	p.command([]string{"property", "set"}, pairs(s.CIB.Properties)...)
	p.comment("services")
	for _, c := range s.CIB.Resources.Clones {
		p.clone(c)
	}
	for _, g := range s.CIB.Resources.Groups {
		for _, m := range g.Primitives {
			p.command(append(create(m), "--group", g.ID))
		}
		p.command([]string{"resource", "meta", g.ID}, pairs(g.Meta)...)
	}
	for _, m := range s.CIB.Resources.Primitives {
		if m.Class != "stonith" {
			p.command(create(m))
		}
	}
	p.comment("where and in which order")
	p.constraints(s.CIB.Constraints)
	p.comment("fencing")
	for _, m := range s.CIB.Resources.Primitives {
		if m.Class == "stonith" {
			p.command(create(m))
		}
	}
	for _, l := range s.CIB.Levels {
		p.command([]string{"stonith", "level", "add", fmt.Sprint(l.Index), l.Target, l.Devices})
	}
	p.raw("pcs cluster cib-push " + cibFile + " diff-against=" + cibFile + ".before")
	return p.b.String()
}

type pcs struct{ b strings.Builder }

func (p *pcs) raw(line string)     { p.b.WriteString(line + "\n") }
func (p *pcs) comment(text string) { p.b.WriteString("# " + text + "\n") }

func (p *pcs) command(words []string, more ...string) {
	line := []string{"pcs", "-f", cibFile}
	for _, w := range append(slices.Clone(words), more...) {
		line = append(line, quote(w))
	}
	p.raw(strings.Join(line, " "))
}

func (p *pcs) clone(c Clone) {
	kind := "clone"
	var options []string
	for _, pair := range pairs(c.Meta) {
		if pair == "promotable=true" {
			kind = "promotable" // pcs' own word for it
			continue
		}
		options = append(options, pair)
	}
	p.command(append(create(c.Primitive), kind, c.ID), options...)
}

func (p *pcs) constraints(c Constraints) {
	for _, l := range c.Locations {
		if l.Node != "" {
			p.command([]string{"constraint", "location", "add", l.ID, l.Resource, l.Node, l.Score})
		}
		for _, r := range l.Rules {
			p.command([]string{"constraint", "location", l.Resource, "rule", "id=" + r.ID, "constraint-id=" + l.ID, "score=" + r.Score}, expressions(r)...)
		}
	}
	for _, o := range c.Orders {
		p.command([]string{"constraint", "order", o.FirstAction, o.First, "then", o.ThenAction, o.Then, "kind=" + o.Kind, "id=" + o.ID})
	}
	for _, l := range c.Colocations {
		p.command([]string{"constraint", "colocation", "add", l.Resource, "with", l.WithRole, l.With, "score=" + l.Score, "id=" + l.ID})
	}
}

func expressions(r Rule) []string {
	var words []string
	for i, e := range r.Expressions {
		if i > 0 {
			words = append(words, r.Join)
		}
		if e.Value == "" {
			words = append(words, e.Operation, e.Attribute)
			continue
		}
		words = append(words, e.Attribute, e.Operation, e.Type, e.Value)
	}
	return words
}

// create is the command that makes a resource, without what it is a part of.
func create(m Primitive) []string {
	words := []string{"resource", "create", m.ID, m.agent()}
	if m.Class == "stonith" {
		words = []string{"stonith", "create", m.ID, m.Type}
	}
	words = append(words, pairs(m.Params)...)
	for _, o := range m.Ops {
		words = append(words, "op", o.Name, "interval="+o.Interval, "timeout="+o.Timeout)
		if o.Role != "" {
			words = append(words, "role="+o.Role)
		}
		if o.OnFail != "" {
			words = append(words, "on-fail="+o.OnFail)
		}
		words = append(words, pairs(o.Params)...)
	}
	if len(m.Meta) > 0 {
		words = append(append(words, "meta"), pairs(m.Meta)...)
	}
	return words
}

func pairs(sets []Set) []string {
	var out []string
	for _, s := range sets {
		for _, p := range s.Pairs {
			out = append(out, p.Name+"="+p.Value)
		}
	}
	return out
}

// quote is a word for a shell.
func quote(word string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-=./:,@%+"
	if word != "" && strings.Trim(word, plain) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
