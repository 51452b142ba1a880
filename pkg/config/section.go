package config

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2/unstable"
)

// section reads one table. Each getter returns the default where the key is missing, and adds a problem where
// it is of the wrong kind. A key that no getter asked for is unknown.
type section struct {
	r     *reader
	table *table
	path  string // as a person would write it: service.volume
	asked map[string]bool
	subs  *[]section // of the whole document, for unknown
}

func (r *reader) section() section {
	return section{r: r, table: r.root, asked: map[string]bool{}, subs: &[]section{}}
}

// at returns where key stands, or the section if it is missing.
func (s section) at(key string) place {
	if entry, ok := s.table.entries[key]; ok {
		return entry.place
	}
	return s.table.place
}

func (s section) problem(key, message string) { s.r.add(s.at(key), "%s", message) }

func (s section) has(key string) bool {
	s.asked[key] = true
	_, ok := s.table.entries[key]
	return ok
}

// get returns the value of key if it has the wanted kind.
func (s section) get(key string, kind unstable.Kind, want string) (*table, bool) {
	if !s.has(key) {
		return nil, false
	}
	entry := s.table.entries[key]
	if entry.value == nil || entry.value.kind != kind {
		s.problem(key, fmt.Sprintf("%s must be %s", join(s.path, key), want))
		return nil, false
	}
	return entry, true
}

func (s section) str(key, otherwise string) string {
	if entry, ok := s.get(key, unstable.String, "a text in quotes"); ok {
		return entry.value.text
	}
	return otherwise
}

// full is the key as a person would write it.
func (s section) full(key string) string { return join(s.path, key) }

// need is str for a key that must be there.
func (s section) need(key, example string) string {
	text := s.str(key, "")
	if text == "" && (!s.has(key) || s.isText(key)) {
		s.problem(key, fmt.Sprintf("%s is missing: %s = %q", s.full(key), key, example))
	}
	return text
}

func (s section) isText(key string) bool {
	entry := s.table.entries[key]
	return entry != nil && entry.value != nil && entry.value.kind == unstable.String
}

func (s section) oneOf(key, otherwise string, allowed ...string) string {
	text := s.str(key, otherwise)
	if !slices.Contains(allowed, text) {
		s.problem(key, fmt.Sprintf("%s is %q: it must be one of %s", s.full(key), text, strings.Join(allowed, ", ")))
		return otherwise
	}
	return text
}

func (s section) boolean(key string) bool {
	entry, ok := s.get(key, unstable.Bool, "true or false")
	return ok && entry.value.text == "true"
}

func (s section) number(key string, otherwise, low, high int) int {
	entry, ok := s.get(key, unstable.Integer, "a number")
	if !ok {
		return otherwise
	}
	n, err := strconv.ParseInt(strings.ReplaceAll(entry.value.text, "_", ""), 0, 32)
	if err != nil || int(n) < low || int(n) > high {
		s.problem(key, fmt.Sprintf("%s is %s: it must lie from %d to %d", s.full(key), entry.value.text, low, high))
		return otherwise
	}
	return int(n)
}

func (s section) duration(key string, otherwise time.Duration) time.Duration {
	entry, ok := s.get(key, unstable.String, `a duration in quotes, such as "3s" or "200ms"`)
	if !ok {
		return otherwise
	}
	d, err := time.ParseDuration(entry.value.text)
	if err != nil {
		s.problem(key, fmt.Sprintf(`%s is %q: it must be a duration with its unit, such as "3s" or "200ms"`,
			s.full(key), entry.value.text))
		return otherwise
	}
	if d <= 0 || d > maxDuration {
		s.problem(key, fmt.Sprintf("%s is %s: it must be more than 0 and at most %s", s.full(key), d, words(maxDuration)))
		return otherwise
	}
	return d
}

// file is str for an absolute path.
func (s section) file(key, otherwise string) string {
	text := s.str(key, otherwise)
	if !filepath.IsAbs(text) {
		s.problem(key, fmt.Sprintf("%s is %q: it must be an absolute path", s.full(key), text))
		return otherwise
	}
	return filepath.Clean(text)
}

// texts returns an array of strings with their places.
func (s section) texts(key string) []placed {
	entry, ok := s.get(key, unstable.Array, "a list of texts")
	if !ok {
		return nil
	}
	var list []placed
	for _, element := range entry.elements {
		if element.value == nil || element.value.kind != unstable.String {
			s.r.add(element.place, "%s must hold texts in quotes", s.full(key))
			continue
		}
		list = append(list, placed{element.value.text, element.place})
	}
	return list
}

// placed is a text and where it stands.
type placed struct {
	text string
	place
}

func (s section) strings(key string) []string {
	var list []string
	for _, p := range s.texts(key) {
		list = append(list, p.text)
	}
	return list
}

func (s section) addrs(key string) []netip.Addr {
	var list []netip.Addr
	for _, p := range s.texts(key) {
		addr, err := netip.ParseAddr(p.text)
		switch {
		case err != nil:
			s.r.add(p.place, "%s: %q is no IP address", s.full(key), p.text)
		case addr.IsUnspecified() || addr.IsMulticast():
			s.r.add(p.place, "%s: %s is no address of a node", s.full(key), addr)
		default:
			list = append(list, addr.Unmap())
		}
	}
	return list
}

// label is need for a name: a DNS label, since it becomes part of cgroup, interface and certificate names.
func (s section) label(key string, most int) string {
	text := s.need(key, "a")
	if text == "" {
		return ""
	}
	if why := notLabel(text, most); why != "" {
		s.problem(key, fmt.Sprintf("%s is %q: %s", s.full(key), text, why))
	}
	return text
}

// notLabel says why text can't be a name, empty if it can.
func notLabel(text string, most int) string {
	if len(text) > most {
		return fmt.Sprintf("it has %d characters, at most %d are allowed", len(text), most)
	}
	for i, c := range []byte(text) {
		inner := i > 0 && i < len(text)-1
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' && inner) {
			return "a name has lower-case letters, digits and, inside, hyphens alone (a DNS label)"
		}
	}
	return ""
}

// sub returns the table of that name, an empty one if it is missing.
func (s section) sub(key string) section {
	made := section{r: s.r, table: newTable(s.table.place), path: s.full(key), asked: map[string]bool{}, subs: s.subs}
	if !s.has(key) {
		return made
	}
	entry := s.table.entries[key]
	if entry.value != nil || entry.array {
		s.problem(key, fmt.Sprintf("%s must be a table: [%s]", made.path, made.path))
		return made
	}
	made.table = entry
	*s.subs = append(*s.subs, made)
	return made
}

// list returns the tables of an array of tables.
func (s section) list(key string) []section {
	if !s.has(key) {
		return nil
	}
	entry, path := s.table.entries[key], s.full(key)
	if !entry.array && (entry.value == nil || entry.value.kind != unstable.Array) {
		s.problem(key, fmt.Sprintf("%s must be a list of tables: [[%s]]", path, path))
		return nil
	}
	var list []section
	for _, element := range entry.elements {
		if element.value != nil {
			s.r.add(element.place, "%s must be a list of tables: [[%s]]", path, path)
			continue
		}
		made := section{r: s.r, table: element, path: path, asked: map[string]bool{}, subs: s.subs}
		*s.subs = append(*s.subs, made)
		list = append(list, made)
	}
	return list
}

// unknown adds a problem for every key of the document that was not asked for. Called on the root, at the end.
func (s section) unknown() {
	for _, sub := range append([]section{s}, *s.subs...) {
		for _, key := range sub.table.keys {
			if sub.asked[key] {
				continue
			}
			message := fmt.Sprintf("unknown key %s", sub.full(key))
			if near := nearest(key, sub.asked); near != "" {
				message += fmt.Sprintf("; did you mean %s?", near)
			}
			sub.problem(key, message)
		}
	}
}

// isEmpty reports whether key is an array without elements.
func (s section) isEmpty(key string) bool {
	entry := s.table.entries[key]
	return entry != nil && entry.value != nil && entry.value.kind == unstable.Array && len(entry.elements) == 0
}
