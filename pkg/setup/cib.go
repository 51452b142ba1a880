package setup

import (
	"encoding/xml"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// CIB is the part of Pacemaker's configuration that keepone has a word in, as its XML has it. The same types are what
// is written and what a live one is read into.
type CIB struct {
	XMLName     xml.Name    `xml:"cib"`
	Feature     string      `xml:"crm_feature_set,attr"`
	Schema      string      `xml:"validate-with,attr"`
	AdminEpoch  int         `xml:"admin_epoch,attr"`
	Epoch       int         `xml:"epoch,attr"`
	Updates     int         `xml:"num_updates,attr"`
	Properties  []Set       `xml:"configuration>crm_config>cluster_property_set"`
	Nodes       *struct{}   `xml:"configuration>nodes"`
	Resources   Resources   `xml:"configuration>resources"`
	Constraints Constraints `xml:"configuration>constraints"`
	Levels      []Level     `xml:"configuration>fencing-topology>fencing-level"`
	Status      *struct{}   `xml:"status"`
}

// Set is a list of names and values.
type Set struct {
	ID    string `xml:"id,attr"`
	Pairs []Pair `xml:"nvpair"`
}

// Pair is one of them.
type Pair struct {
	ID    string `xml:"id,attr"`
	Name  string `xml:"name,attr"`
	Value string `xml:"value,attr"`
}

// Resources are of three kinds.
type Resources struct {
	Primitives []Primitive `xml:"primitive"`
	Groups     []Group     `xml:"group"`
	Clones     []Clone     `xml:"clone"`
}

// Primitive is one resource.
type Primitive struct {
	ID       string      `xml:"id,attr"`
	Class    string      `xml:"class,attr"`
	Provider string      `xml:"provider,attr,omitempty"`
	Type     string      `xml:"type,attr"`
	Params   []Set       `xml:"instance_attributes"`
	Meta     []Set       `xml:"meta_attributes"`
	Ops      []Operation `xml:"operations>op"`
}

func (p Primitive) agent() string {
	if p.Provider == "" {
		return p.Class + ":" + p.Type
	}
	return p.Class + ":" + p.Provider + ":" + p.Type
}

// Operation is how an action of an agent is called.
type Operation struct {
	ID       string `xml:"id,attr"`
	Name     string `xml:"name,attr"`
	Interval string `xml:"interval,attr"`
	Timeout  string `xml:"timeout,attr,omitempty"`
	Role     string `xml:"role,attr,omitempty"`
	OnFail   string `xml:"on-fail,attr,omitempty"`
	Params   []Set  `xml:"instance_attributes"`
}

// depth is a monitor's OCF_CHECK_LEVEL; "0" if it has none.
func (o Operation) depth() string {
	if level, ok := value(o.Params, checkLevel); ok {
		return level
	}
	return "0"
}

// checkLevel is the parameter of a monitor that says how deep it looks.
const checkLevel = "OCF_CHECK_LEVEL"

// Group starts its resources in order, on one node.
type Group struct {
	ID         string      `xml:"id,attr"`
	Meta       []Set       `xml:"meta_attributes"`
	Primitives []Primitive `xml:"primitive"`
}

// Clone runs a resource on several nodes.
type Clone struct {
	ID        string    `xml:"id,attr"`
	Meta      []Set     `xml:"meta_attributes"`
	Primitive Primitive `xml:"primitive"`
}

// Constraints say where and in which order.
type Constraints struct {
	Locations   []Location   `xml:"rsc_location"`
	Orders      []Order      `xml:"rsc_order"`
	Colocations []Colocation `xml:"rsc_colocation"`
}

// Location is a score of a resource for a node, or for those that a rule says.
type Location struct {
	ID       string `xml:"id,attr"`
	Resource string `xml:"rsc,attr"`
	Node     string `xml:"node,attr,omitempty"`
	Score    string `xml:"score,attr,omitempty"`
	Rules    []Rule `xml:"rule"`
}

// Rule is a score where its expressions are true.
type Rule struct {
	ID          string       `xml:"id,attr"`
	Role        string       `xml:"role,attr,omitempty"`
	Score       string       `xml:"score,attr"`
	Join        string       `xml:"boolean-op,attr,omitempty"`
	Expressions []Expression `xml:"expression"`
}

// Expression is about a node attribute.
type Expression struct {
	ID        string `xml:"id,attr"`
	Attribute string `xml:"attribute,attr"`
	Operation string `xml:"operation,attr"`
	Type      string `xml:"type,attr,omitempty"`
	Value     string `xml:"value,attr,omitempty"`
}

// Order is one action after another; stopping is the other way round.
type Order struct {
	ID          string `xml:"id,attr"`
	First       string `xml:"first,attr"`
	FirstAction string `xml:"first-action,attr,omitempty"`
	Then        string `xml:"then,attr"`
	ThenAction  string `xml:"then-action,attr,omitempty"`
	Kind        string `xml:"kind,attr,omitempty"`
}

// Colocation is one resource on the node of another.
type Colocation struct {
	ID       string `xml:"id,attr"`
	Resource string `xml:"rsc,attr"`
	With     string `xml:"with-rsc,attr"`
	WithRole string `xml:"with-rsc-role,attr,omitempty"`
	Score    string `xml:"score,attr,omitempty"`
}

// Level is one attempt of fencing a node, by all of its devices.
type Level struct {
	ID      string `xml:"id,attr"`
	Target  string `xml:"target,attr"`
	Index   int    `xml:"index,attr"`
	Devices string `xml:"devices,attr"`
}

// ParseCIB reads what `cibadmin --query` printed.
func ParseCIB(text []byte) (CIB, error) {
	var c CIB
	if err := xml.Unmarshal(text, &c); err != nil {
		return CIB{}, fmt.Errorf("read CIB: %w: it must be what `cibadmin --query` prints", err)
	}
	return c, nil
}

// set makes a list whose ids follow from its own. Pairs are name, value, name, value.
func set(id string, pairs ...string) []Set {
	s := Set{ID: id}
	for pair := range slices.Chunk(pairs, 2) {
		s.Pairs = append(s.Pairs, Pair{ID: id + "-" + pair[0], Name: pair[0], Value: pair[1]})
	}
	return []Set{s}
}

// value of a name in lists, as Pacemaker takes it: the first that has it.
func value(sets []Set, name string) (string, bool) {
	for _, s := range sets {
		for _, p := range s.Pairs {
			if p.Name == name {
				return p.Value, true
			}
		}
	}
	return "", false
}

// span writes a duration as Pacemaker reads it: whole seconds, rounded up.
func span(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10) + "s"
}

// parseSpan reads "150s", "150", "2min", "500ms"; false: it is none of these, such as an ISO 8601 duration.
func parseSpan(text string) (time.Duration, bool) {
	digits := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyz")
	units := map[string]time.Duration{
		"": time.Second, "s": time.Second, "sec": time.Second, "m": time.Minute, "min": time.Minute,
		"h": time.Hour, "hr": time.Hour, "ms": time.Millisecond, "msec": time.Millisecond, "us": time.Microsecond, "usec": time.Microsecond,
	}
	unit, known := units[strings.TrimPrefix(text, digits)]
	n, err := strconv.ParseInt(digits, 10, 32)
	return time.Duration(n) * unit, known && err == nil && n >= 0
}
