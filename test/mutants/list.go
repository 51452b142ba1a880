package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// mutant is the code without one of its checks.
type mutant struct {
	id        string
	guarantee string // the first that breaks without the check: I1 to I8
	why       string // what goes wrong then
	hunks     []hunk
	killers   []killer
}

// hunk is a run of whole lines in one file, and what stands there in the mutant.
type hunk struct {
	file     string
	old, new string
}

// killer are the tests of a package that are expected to fail.
type killer struct {
	dir   string // of the package, from the module's root
	tests []string
}

// pattern is what the test binary's -test.run takes.
func (k killer) pattern() string {
	var all []string
	for _, name := range k.tests {
		var levels []string
		for _, level := range strings.Split(name, "/") {
			levels = append(levels, "^"+regexp.QuoteMeta(level)+"$")
		}
		all = append(all, strings.Join(levels, "/"))
	}
	return strings.Join(all, "|")
}

var guarantees = []string{"I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8"}

// parse reads a list; list.txt's head says how it is written.
func parse(text string) ([]mutant, error) {
	var all []mutant
	file := ""
	for i, line := range strings.Split(text, "\n") {
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(line, "#") {
			continue
		}
		bad := func(why string) error { return fmt.Errorf("line %d %q: %s", i+1, line, why) }
		if fields[0] == "==" {
			if len(fields) < 4 || !slices.Contains(guarantees, fields[2]) {
				return nil, bad("want == ID GUARANTEE what goes wrong")
			}
			if slices.ContainsFunc(all, func(m mutant) bool { return m.id == fields[1] }) {
				return nil, bad("that id is taken")
			}
			all = append(all, mutant{id: fields[1], guarantee: fields[2], why: strings.Join(fields[3:], " ")})
			continue
		}
		if len(all) == 0 {
			return nil, bad("no mutant has begun")
		}
		m := &all[len(all)-1]
		switch {
		case fields[0] == "in" && len(fields) == 2:
			file = fields[1]
			m.hunks = append(m.hunks, hunk{file: file})
		case fields[0] == "by" && len(fields) > 2:
			m.killers = append(m.killers, killer{fields[1], fields[2:]})
		case len(m.hunks) == 0:
			return nil, bad("no file is named")
		case line[0] == '-' || line[0] == '+':
			m.take(line)
		default:
			return nil, bad("neither a file, nor tests, nor lines to take out or put in")
		}
	}
	for _, m := range all {
		if len(m.killers) == 0 || slices.ContainsFunc(m.hunks, func(h hunk) bool { return h.old == "" }) {
			return nil, fmt.Errorf("mutant %s: takes nothing out, or names no test", m.id)
		}
	}
	return all, nil
}

// take adds a line to the last hunk. One that is taken out after others were put in begins the next hunk.
func (m *mutant) take(line string) {
	h := &m.hunks[len(m.hunks)-1]
	if line[0] == '-' && h.new != "" {
		m.hunks = append(m.hunks, hunk{file: h.file})
		h = &m.hunks[len(m.hunks)-1]
	}
	if line[0] == '-' {
		h.old += line[1:] + "\n"
	} else {
		h.new += line[1:] + "\n"
	}
}

var errMatch = errors.New("must stand there exactly once")

// mutate returns the changed files by their path from root. What a hunk takes out must stand there exactly once: a
// list that no longer fits the code is an error, never a mutant less.
func (m mutant) mutate(root string) (map[string]string, error) {
	changed := map[string]string{}
	for _, h := range m.hunks {
		text, ok := changed[h.file]
		if !ok {
			read, err := os.ReadFile(filepath.Join(root, h.file))
			if err != nil {
				return nil, fmt.Errorf("mutant %s: %w", m.id, err)
			}
			text = "\n" + string(read)
		}
		if n := strings.Count(text, "\n"+h.old); n != 1 {
			return nil, fmt.Errorf("mutant %s: %s: %w, but does %d times:\n%s", m.id, h.file, errMatch, n, h.old)
		}
		changed[h.file] = strings.Replace(text, "\n"+h.old, "\n"+h.new, 1)
	}
	for file, text := range changed {
		changed[file] = text[1:]
	}
	return changed, nil
}
