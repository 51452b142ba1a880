package setup

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Conf is a section of a corosync.conf.
type Conf struct {
	Name     string
	Values   map[string]string
	Sections []Conf
}

// ParseConf reads a corosync.conf: sections in braces, "key: value", comments after #.
func ParseConf(text []byte) (Conf, error) {
	stack := []Conf{{Values: map[string]string{}}}
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		line = strings.TrimSpace(line)
		last := &stack[len(stack)-1]
		if line == "" || line[0] == '#' {
			continue
		}
		if name, ok := strings.CutSuffix(line, "{"); ok {
			if len(stack) > maxDepth {
				return Conf{}, fmt.Errorf("read corosync.conf: line %d: sections within sections beyond %d", n, maxDepth)
			}
			stack = append(stack, Conf{Name: strings.TrimSpace(name), Values: map[string]string{}})
			continue
		}
		if line == "}" {
			if len(stack) == 1 {
				return Conf{}, fmt.Errorf("read corosync.conf: line %d: } without its {", n)
			}
			outer := &stack[len(stack)-2]
			outer.Sections = append(outer.Sections, *last)
			stack = stack[:len(stack)-1]
			continue
		}
		key, value, ok := strings.Cut(line, ":")
		if !ok {
			return Conf{}, fmt.Errorf("read corosync.conf: line %d: neither a section nor key: value", n)
		}
		last.Values[strings.TrimSpace(key)] = strings.TrimSpace(value)
	}
	if len(stack) > 1 {
		return Conf{}, errors.New("read corosync.conf: a section has no end")
	}
	return stack[0], nil
}

// maxDepth is more than corosync knows.
const maxDepth = 8

// section returns the first section of that name; empty if there is none.
func (c Conf) section(name string) Conf {
	for _, s := range c.Sections {
		if s.Name == name {
			return s
		}
	}
	return Conf{}
}

// Differs says in words how a corosync.conf differs from what the setup wants. Numbers of nodes are the operator's own:
// they must not change while corosync runs.
func (c Corosync) Differs(have Conf) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, "corosync.conf: "+fmt.Sprintf(format, args...)) }
	totem := have.section("totem")
	for _, want := range [][2]string{
		{"cluster_name", c.Cluster},
		{"transport", "knet"},
		{"token", strconv.FormatInt(c.Token.Milliseconds(), 10)},
		{"token_coefficient", "0"},
		{"consensus", strconv.FormatInt(c.Consensus.Milliseconds(), 10)},
	} {
		switch got := totem.Values[want[0]]; {
		case got == "" && want[0] == "transport": // knet is the default
		case got == "":
			say("totem %s is not set: it must be %s", want[0], want[1])
		case got != want[1]:
			say("totem %s is %s: it must be %s", want[0], got, want[1])
		}
	}
	for _, want := range []string{"crypto_cipher", "crypto_hash"} {
		if got := totem.Values[want]; (got == "" || got == "none") && totem.Values["secauth"] != "on" {
			say("totem %s is not set: whoever is on the links could speak for a node", want)
		}
	}
	if got := have.section("quorum").Values["provider"]; got != "corosync_votequorum" {
		say("quorum provider is %q: it must be corosync_votequorum", got)
	}
	return append(out, c.membersDiffer(have.section("nodelist"))...)
}

func (c Corosync) membersDiffer(list Conf) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, "corosync.conf: "+fmt.Sprintf(format, args...)) }
	for _, m := range c.Members {
		i := slices.IndexFunc(list.Sections, func(s Conf) bool { return s.Values["name"] == string(m.Name) })
		if i < 0 {
			say("node %s is missing", m.Name)
			continue
		}
		for n, link := range m.Links {
			key := fmt.Sprintf("ring%d_addr", n)
			if got := list.Sections[i].Values[key]; got == "" {
				say("node %s has no %s: it must be %s", m.Name, key, link)
			} else if got != link.String() {
				say("node %s has %s %s: it must be %s", m.Name, key, got, link)
			}
		}
	}
	for _, s := range list.Sections {
		name := s.Values["name"]
		if s.Name == "node" && !slices.ContainsFunc(c.Members, func(m Member) bool { return string(m.Name) == name }) {
			say("node %s is no node of the cluster document", or(name, "without a name"))
		}
	}
	return out
}

// Runs says how the timing that corosync runs with differs; it may be older than the file.
func (c Corosync) Runs(token, consensus time.Duration) []string {
	if token == c.Token && consensus == c.Consensus {
		return nil
	}
	return []string{fmt.Sprintf("corosync runs with token %d, consensus %d: it must be %d and %d; `corosync-cfgtool -R` makes it read its file again",
		token.Milliseconds(), consensus.Milliseconds(), c.Token.Milliseconds(), c.Consensus.Milliseconds())}
}
