package config

import (
	"errors"
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// maxText bounds a file: a document with 15 nodes and 32 services has some 20 KiB.
const maxText = 1 << 20

// place is where something stands in a file.
type place struct{ line, column int }

// value is a plain value or an array as it stands in the text.
type value struct {
	kind unstable.Kind
	text string         // decoded for strings, as it stands for the others
	raw  unstable.Range // of a string, in the text
}

// reader collects the tree of a document and what is wrong with it. go-toml's decoder stops at the first
// problem and forgets where a value stood, so documents are read from its syntax tree.
type reader struct {
	file     string
	parser   unstable.Parser
	root     *table
	problems Problems
	broken   bool // the text is no TOML: nothing more can be said
}

// table is one entry of the tree: a table, an array or a plain value.
type table struct {
	place
	keys     []string
	entries  map[string]*table
	elements []*table
	value    *value // nil for tables and arrays of tables
	explicit bool
	array    bool
}

func newTable(at place) *table { return &table{place: at, entries: map[string]*table{}} }

// newReader reads text. Syntax errors set broken; duplicate keys and tables are problems like any other.
func newReader(file, text string) *reader {
	r := &reader{file: file, root: newTable(place{1, 1})}
	if len(text) > maxText {
		r.broken = true
		r.add(place{}, "the file has %d bytes: at most %d are read", len(text), maxText)
		return r
	}
	data := []byte(text)
	r.parser.Reset(data)
	current := r.root
	for r.parser.NextExpression() {
		expr := r.parser.Expression()
		switch expr.Kind {
		case unstable.Table, unstable.ArrayTable:
			current = r.header(expr)
		case unstable.KeyValue:
			r.keyValue(current, expr)
		}
	}
	r.finish(data)
	return r
}

// finish says what is wrong with the text as TOML. The decoder is asked too: it knows rules beyond the grammar.
func (r *reader) finish(data []byte) {
	if err := r.parser.Error(); err != nil {
		r.broken = true
		var syntax *unstable.ParserError
		where := place{}
		if errors.As(err, &syntax) && len(syntax.Highlight) > 0 {
			where = r.start(r.parser.Range(syntax.Highlight))
		}
		r.add(where, "not valid TOML: %s", strings.TrimPrefix(err.Error(), "toml: "))
		return
	}
	if len(r.problems) > 0 {
		return // duplicates, which the decoder would tell again, without a place
	}
	var whole map[string]any
	if err := toml.Unmarshal(data, &whole); err != nil {
		r.broken = true
		where := place{}
		var decode *toml.DecodeError
		if errors.As(err, &decode) {
			where.line, where.column = decode.Position()
		}
		r.add(where, "not valid TOML: %s", strings.TrimPrefix(err.Error(), "toml: "))
	}
}

func (r *reader) add(at place, format string, args ...any) {
	r.problems = append(r.problems, Problem{r.file, at.line, at.column, fmt.Sprintf(format, args...)})
}

func (r *reader) placeOf(node *unstable.Node) place { return r.start(node.Raw) }

func (r *reader) start(of unstable.Range) place {
	start := r.parser.Shape(of).Start
	return place{start.Line, start.Column}
}

// header opens the table that a [header] or [[header]] names.
func (r *reader) header(expr *unstable.Node) *table {
	at, path := r.root, "" // of the table that holds the last key
	for keys := expr.Key(); keys.Next(); {
		key := keys.Node()
		name, where := string(key.Data), r.placeOf(key)
		path = join(path, name)
		if keys.IsLast() {
			return r.open(at, expr.Kind == unstable.ArrayTable, name, path, where)
		}
		at = at.child(name, where).last()
	}
	return at
}

func (r *reader) open(in *table, array bool, name, path string, where place) *table {
	have, ok := in.entries[name]
	switch {
	case !ok && array:
		have = in.child(name, where)
		have.array = true
	case !ok:
		have = in.child(name, where)
	case have.value != nil || have.array != array:
		r.add(where, "%s is already set on line %d as something else", path, have.line)
		return newTable(where)
	case have.explicit && !array:
		r.add(where, "[%s] is already there on line %d: merge the two", path, have.line)
		return have
	}
	if array {
		element := newTable(where)
		have.elements = append(have.elements, element)
		return element
	}
	have.explicit, have.place = true, where
	return have
}

// child returns the entry of that name, made if it is missing.
func (t *table) child(name string, where place) *table {
	if have, ok := t.entries[name]; ok {
		return have
	}
	made := newTable(where)
	t.entries[name] = made
	t.keys = append(t.keys, name)
	return made
}

// last is the table that a header or key below t goes to: the newest element if t is an array of tables.
func (t *table) last() *table {
	if t.array && len(t.elements) > 0 {
		return t.elements[len(t.elements)-1]
	}
	return t
}

func (r *reader) keyValue(in *table, expr *unstable.Node) {
	path := ""
	for keys := expr.Key(); keys.Next(); {
		key := keys.Node()
		name, where := string(key.Data), r.placeOf(key)
		path = join(path, name)
		if !keys.IsLast() {
			in = in.child(name, where).last()
			continue
		}
		if have, ok := in.entries[name]; ok {
			r.add(where, "%s is already set on line %d", path, have.line)
			return
		}
		r.fill(in.child(name, where), expr.Value())
	}
}

// fill gives an entry its value.
func (r *reader) fill(entry *table, from *unstable.Node) {
	switch from.Kind {
	case unstable.InlineTable:
		entry.explicit = true
		for children := from.Children(); children.Next(); {
			if child := children.Node(); child.Kind == unstable.KeyValue {
				r.keyValue(entry, child)
			}
		}
	case unstable.Array:
		entry.value = &value{kind: unstable.Array}
		for children := from.Children(); children.Next(); {
			child := children.Node()
			if child.Kind == unstable.Comment {
				continue
			}
			element := newTable(entry.place)
			if child.Raw.Length > 0 {
				element.place = r.placeOf(child)
			}
			r.fill(element, child)
			entry.elements = append(entry.elements, element)
		}
	default:
		entry.value = &value{kind: from.Kind, text: string(from.Data), raw: from.Raw}
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// quote writes s as a TOML basic string.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteRune(c)
		case c < ' ' || c == 0x7f:
			fmt.Fprintf(&b, "\\u%04X", c)
		default:
			b.WriteRune(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
