package core

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Init founds the cluster: the first entry of its log.
type Init struct {
	Cluster  string // its id
	Document Document
	Spec     Spec
}

// Kind names the command on the wire.
func (Init) Kind() string { return "init" }

func (c Init) apply(n *next) error {
	if n.Cluster != "" {
		return fmt.Errorf("the cluster was founded already: %w", ErrRefused)
	}
	n.Cluster, n.Document, n.Spec = c.Cluster, c.Document, c.Spec
	n.Document.Version = 1
	n.Nodes, n.Services = map[NodeName]Node{}, map[ServiceName]Service{}
	for _, svc := range c.Spec.Services {
		n.Services[svc.Name] = Service{Name: svc.Name}
	}
	n.note(Event{Kind: EventConfig, Reason: "cluster founded"})
	return nil
}

// IssueToken lets one node join, once, until it expires.
type IssueToken struct {
	ID   string
	Hash string // of the secret, which the cluster never sees
	Node NodeName
	For  time.Duration
}

// Kind names the command on the wire.
func (IssueToken) Kind() string { return "issue-token" }

func (c IssueToken) apply(n *next) error {
	switch {
	case c.ID == "" || c.Hash == "" || c.For <= 0:
		return fmt.Errorf("token without id, hash or end: %w", ErrRefused)
	case n.Spec.Node(c.Node) == nil:
		return fmt.Errorf("node %q is not in the cluster document: add it there first: %w", c.Node, ErrRefused)
	}
	tokens := maps.Clone(n.Tokens)
	if tokens == nil {
		tokens = map[string]Token{}
	}
	maps.DeleteFunc(tokens, func(_ string, t Token) bool { return t.Expires <= n.Now })
	tokens[c.ID] = Token{Hash: c.Hash, Node: c.Node, Expires: n.Now.Add(c.For)}
	n.Tokens = tokens
	return nil
}

// Join makes a node a member. The first founds the cluster, every other one brings a token. A known name with a
// new incarnation is a newcomer with an empty disk.
type Join struct {
	Node        NodeName
	Incarnation string
	PublicKey   []byte
	TokenID     string
	TokenHash   string
}

// Kind names the command on the wire.
func (Join) Kind() string { return "join" }

func (c Join) apply(n *next) error {
	old, known := n.Nodes[c.Node]
	switch {
	case c.Node == "" || c.Incarnation == "":
		return fmt.Errorf("no name or no incarnation: %w", ErrRefused)
	case n.Spec.Node(c.Node) == nil:
		return fmt.Errorf("node %q is not in the cluster document: %w", c.Node, ErrRefused)
	case known && old.Life == LifeOnline:
		return fmt.Errorf("a node named %q is online: a name can't be taken twice: %w", c.Node, ErrRefused)
	}
	if len(n.Nodes) > 0 {
		if err := n.redeem(c); err != nil {
			return err
		}
	}
	node := Node{
		Name: c.Node, Incarnation: c.Incarnation, PublicKey: c.PublicKey,
		Instance: old.Instance, Life: LifeNew, Since: n.Now, Standby: old.Standby,
	}
	if old.Life == LifeFenced {
		node.Life, node.Reason = LifeFenced, old.Reason // I3: its proofs stand; only another instance can come back
	}
	n.Nodes[c.Node] = node
	n.note(Event{Kind: EventMember, Node: c.Node, Reason: "joined"})
	return nil
}

// redeem uses a token up.
func (n *next) redeem(c Join) error {
	t, ok := n.Tokens[c.TokenID]
	switch {
	case !ok:
		return fmt.Errorf("the token was used already, has expired, or is of another cluster; `keepone node add %s` makes a new one: %w", c.Node, ErrRefused)
	case t.Expires <= n.Now:
		return fmt.Errorf("the token has expired; `keepone node add %s` makes a new one: %w", c.Node, ErrRefused)
	case t.Node != c.Node:
		return fmt.Errorf("the token is for node %q, not %q: %w", t.Node, c.Node, ErrRefused)
	case t.Hash != c.TokenHash:
		return fmt.Errorf("the token is not copied whole: %w", ErrRefused)
	}
	n.Tokens = maps.Clone(n.Tokens)
	delete(n.Tokens, c.TokenID)
	return nil
}

// Leave removes a member. It is refused while a grant or an open fence of it remains.
type Leave struct {
	Node NodeName
}

// Kind names the command on the wire.
func (Leave) Kind() string { return "leave" }

func (c Leave) apply(n *next) error {
	if _, ok := n.Nodes[c.Node]; !ok {
		return fmt.Errorf("node %q: %w", c.Node, ErrUnknown)
	}
	for _, name := range n.ServiceNames() {
		svc := n.Services[name]
		if svc.Grant != nil && svc.Grant.Node == c.Node {
			return fmt.Errorf("node %q holds %q: drain it first: %w", c.Node, name, ErrRefused)
		}
	}
	for _, f := range n.Fences {
		if f.Open() && f.Node == c.Node {
			return fmt.Errorf("fence %d of node %q is open: %w", f.ID, c.Node, ErrRefused)
		}
	}
	delete(n.Nodes, c.Node)
	n.note(Event{Kind: EventMember, Node: c.Node, Reason: "removed"})
	return nil
}

// Configure replaces the cluster document.
type Configure struct {
	Expect   uint64 // the version that it was made from
	Document Document
	Spec     Spec
}

// Kind names the command on the wire.
func (Configure) Kind() string { return "configure" }

func (c Configure) apply(n *next) error {
	if c.Expect != n.Document.Version {
		return fmt.Errorf("made from version %d, now at %d: read it again: %w", c.Expect, n.Document.Version, ErrStale)
	}
	for _, name := range n.ServiceNames() {
		svc := n.Services[name]
		if c.Spec.Service(name) != nil {
			continue
		}
		if svc.Grant != nil {
			return fmt.Errorf("service %q runs: stop it before it is taken out: %w", name, ErrRefused)
		}
		if len(svc.Uncut) > 0 {
			// I6: another service could be given the volume, and would not know whom to cut off.
			return fmt.Errorf("service %q was lost by %s and has not run since: start and stop it before it is taken out: %w", name, svc.Uncut[0].Node, ErrRefused)
		}
	}
	if err := n.keepsNodes(c.Spec); err != nil {
		return err
	}
	if err := n.keepsVolumes(c.Spec); err != nil {
		return err
	}
	n.Spec, n.Document = c.Spec, c.Document
	n.Document.Version = c.Expect + 1
	for _, svc := range c.Spec.Services {
		if _, ok := n.Services[svc.Name]; !ok {
			n.Services[svc.Name] = Service{Name: svc.Name}
		}
	}
	maps.DeleteFunc(n.Services, func(name ServiceName, svc Service) bool {
		// A service that ever had a grant keeps its epoch, so that its name can come back (I2).
		return c.Spec.Service(name) == nil && svc.Epoch == 0
	})
	n.note(Event{Kind: EventConfig, Reason: fmt.Sprintf("cluster document version %d", n.Document.Version)})
	return nil
}

// keepsNodes refuses to take out a node, or to change its links, while its storage clients may have to be told
// by their addresses (I6).
func (n *next) keepsNodes(spec Spec) error {
	for _, was := range n.Spec.Nodes {
		if is := spec.Node(was.Name); is != nil && slices.Equal(is.Links, was.Links) {
			continue
		}
		for _, name := range n.ServiceNames() {
			svc := n.Services[name]
			uncut := slices.ContainsFunc(svc.Uncut, func(c Client) bool { return c.Node == was.Name })
			if uncut || (svc.Grant != nil && svc.Grant.Node == was.Name) {
				return fmt.Errorf("node %q holds or has lost service %q: move it first, then change the node's links or take it out: %w", was.Name, name, ErrRefused)
			}
		}
	}
	return nil
}

// keepsVolumes refuses to give a held service another image under its feet: fencing would cut off the wrong one (I6).
func (n *next) keepsVolumes(spec Spec) error {
	for _, now := range spec.Services {
		was := n.Spec.Service(now.Name)
		svc, ok := n.Services[now.Name]
		if !ok || was == nil || (svc.Grant == nil && len(svc.Uncut) == 0) {
			continue
		}
		a, b := was.Volume, now.Volume
		if a.Pool != b.Pool || a.Namespace != b.Namespace || a.Image != b.Image {
			return fmt.Errorf("service %q: its volume can change only when it has stopped and vacated: %w", now.Name, ErrRefused)
		}
	}
	return nil
}

// SetLife commits what the leader sees of a node's instance.
type SetLife struct {
	Node     NodeName
	Instance Instance
	Life     Life
	Heard    Time // of a silent node
	Reason   string
}

// Kind names the command on the wire.
func (SetLife) Kind() string { return "set-life" }

func (c SetLife) apply(n *next) error {
	node, ok := n.Nodes[c.Node]
	switch {
	case !ok:
		return fmt.Errorf("node %q: %w", c.Node, ErrUnknown)
	case node.Instance != c.Instance:
		return ErrStale
	case node.Life == LifeFenced:
		return fmt.Errorf("that instance of %q is fenced; only another one can come back: %w", c.Node, ErrRefused)
	case !slices.Contains([]Life{LifeOnline, LifeSuspect, LifeDown}, c.Life):
		return fmt.Errorf("life %q is not for the leader to set: %w", c.Life, ErrRefused)
	}
	was := node.Life
	switch {
	case c.Life == LifeOnline:
		node.Heard = 0
	case was == LifeOnline || node.Heard == 0: // a silence that began now; one of an earlier life is over
		node.Heard = c.Heard
	}
	node.Life, node.Since, node.Reason = c.Life, n.Now, c.Reason
	n.Nodes[c.Node] = node
	n.note(Event{Kind: EventNode, Node: c.Node, Reason: fmt.Sprintf("%s → %s: %s", was, c.Life, c.Reason)})
	return nil
}

// Boot commits that a node lives as another instance. What the old one held stays held until it is proven
// harmless (I3).
type Boot struct {
	Node     NodeName
	Instance Instance
}

// Kind names the command on the wire.
func (Boot) Kind() string { return "boot" }

func (c Boot) apply(n *next) error {
	node, ok := n.Nodes[c.Node]
	switch {
	case !ok:
		return fmt.Errorf("node %q: %w", c.Node, ErrUnknown)
	case c.Instance == "" || node.Instance == c.Instance:
		return ErrStale
	}
	for _, f := range n.Fences {
		if f.Instance == c.Instance && slices.ContainsFunc(f.Proofs, func(p Proof) bool { return p.Kind.Scope() == ScopeNode }) {
			return fmt.Errorf("that instance of %q is proven off: %w", c.Node, ErrRefused)
		}
	}
	n.Fences = slices.Clone(n.Fences)
	for i := range n.Fences {
		if n.Fences[i].Node == c.Node && n.Fences[i].Instance != c.Instance && n.Fences[i].Open() {
			n.Fences[i].Shoot = false // power-off would hit the new life
		}
	}
	if node.Life == LifeOnline {
		node.Heard = 0 // nobody missed the life that has ended; a silence before that one is told already
	}
	node.Instance, node.Life, node.Since, node.Reason = c.Instance, LifeOnline, n.Now, "booted"
	n.Nodes[c.Node] = node
	n.note(Event{Kind: EventNode, Node: c.Node, Reason: "online: booted"})
	return nil
}

// ServiceNames returns the names in order.
func (s *State) ServiceNames() []ServiceName { return slices.Sorted(maps.Keys(s.Services)) }

// NodeNames returns the names in order.
func (s *State) NodeNames() []NodeName { return slices.Sorted(maps.Keys(s.Nodes)) }
