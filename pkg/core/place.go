package core

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// place gives a free service to the best node that can take it, or says why none can.
func (d *decider) place(name ServiceName) {
	svc := d.s.Services[name]
	if d.s.managed() {
		if !d.s.Maintenance.On {
			d.placeClaimed(svc)
		}
		return
	}
	if svc.Stopped {
		d.block(name, "")
		return
	}
	if d.s.Maintenance.On || d.now < svc.NotBefore {
		return
	}
	d.followImage(svc)
	svc = d.s.Services[name]
	found, why := d.candidates(svc, "")
	if len(found) == 0 {
		d.block(name, why)
		return
	}
	to := wanted(svc.Move, found)
	cause := svc.From.Cause
	if cause == "" {
		cause = CauseStart
	}
	d.do(Give{Service: name, Node: to, Instance: d.s.Nodes[to].Instance, Expect: svc.Epoch, Cause: cause})
}

// wanted is the best of the nodes found that an operator's move allows, or the best of all: a service that
// can't go where it was wanted still has to run.
func wanted(move *Move, found []NodeName) NodeName {
	if move == nil {
		return found[0]
	}
	if len(only(found, move.To)) > 0 {
		return move.To
	}
	for _, name := range found {
		if name != move.From {
			return name
		}
	}
	return found[0]
}

// followImage lifts the epoch above one that a restored State has forgotten (I2). While clients are uncut, one
// above ours is what their cutting off wrote ahead of the next grant, and needs nothing.
func (d *decider) followImage(svc Service) {
	var highest Epoch
	for _, name := range d.s.NodeNames() {
		if r := d.v.Nodes[name].Report; r != nil {
			highest = max(highest, r.Ready[svc.Name].Epoch)
		}
	}
	if highest > svc.Epoch+1 || (highest > svc.Epoch && len(svc.Uncut) == 0) {
		d.do(RaiseEpoch{Service: svc.Name, Epoch: highest})
	}
}

// candidates are the nodes that could take the service now, best first, without the one named; if there is
// none, why says what stands in the way on each node.
func (d *decider) candidates(svc Service, without NodeName) (found []NodeName, why string) {
	var whys []string
	for _, node := range d.s.Spec.Nodes {
		if node.Witness || node.Name == without {
			continue
		}
		if reason := d.unfit(svc, node.Name); reason != "" {
			whys = append(whys, fmt.Sprintf("%s: %s", node.Name, reason))
			continue
		}
		found = append(found, node.Name)
	}
	slices.SortStableFunc(found, func(a, b NodeName) int { return d.compare(svc, a, b) })
	if len(found) == 0 && len(whys) == 0 {
		whys = []string{"the cluster has no other node"}
	}
	return found, join(whys)
}

func join(whys []string) string {
	slices.Sort(whys)
	return strings.Join(whys, "; ")
}

// unfit says why a node can't take the service now, empty if it can.
func (d *decider) unfit(svc Service, name NodeName) string {
	node, member := d.s.Nodes[name]
	v := d.v.Nodes[name]
	ready, asked := Ready{}, false
	if v.Report != nil {
		ready, asked = v.Report.Ready[svc.Name]
	}
	switch {
	case !d.s.Spec.MayHold(name, svc.Name):
		return "not eligible by the cluster document"
	case !member:
		return "has not joined"
	case node.Life == LifeFenced:
		return "fenced; it must boot before it can hold anything"
	case v.Live != LiveOnline || node.Life != LifeOnline && node.Life != LifeNew:
		return "not heard" + in(node.Life)
	case node.Life != LifeOnline || v.Instance != node.Instance:
		return "back as another instance, which has not reported yet"
	case node.Standby:
		return "standby"
	case !v.Daemon || v.Report == nil || v.Report.Instance != node.Instance:
		return "its daemon does not answer"
	case d.s.openFence(node.Instance) != nil:
		return "being fenced"
	case v.Report.holds(svc.Name):
		return "an earlier activation is not cleaned up"
	case !asked:
		return "has not yet shown that it can open the image"
	case !ready.OK:
		return ready.Reason
	}
	if d.s.Spec.PolicyOf(svc.Name).FenceableOnly {
		if p := Fenceable(d.s, d.v, name, svc.Name); !p.OK {
			return "could not be fenced if it were lost: " + p.Why // the next failover would wait for a human
		}
	}
	return ""
}

// compare orders candidates: one that has not failed the service, else the one whose failure is older, the preferred, where it ran last, one that
// does not lead, the least loaded, by name.
func (d *decider) compare(svc Service, a, b NodeName) int {
	rank := func(name NodeName) [5]int {
		avoid := 0
		if until := svc.Avoid[name]; until > d.now {
			avoid = int(until)
		}
		return [5]int{
			avoid,
			d.preference(svc, name),
			bit(name != svc.LastHolder),
			bit(name == d.v.Self),
			d.load(name),
		}
	}
	ra, rb := rank(a), rank(b)
	if c := slices.Compare(ra[:], rb[:]); c != 0 {
		return c
	}
	return cmp.Compare(a, b)
}

// preference of a node by the document; where none is named, all are alike.
func (d *decider) preference(svc Service, name NodeName) int {
	prefer := d.s.Spec.Service(svc.Name).Prefer
	if i := slices.Index(prefer, name); i >= 0 {
		return i
	}
	return len(prefer)
}

// in says how a node that is not heard counts.
func in(life Life) string {
	if life == LifeOnline || life == LifeNew {
		return ""
	}
	return ", " + string(life)
}

func (d *decider) load(name NodeName) int {
	load := 0
	for _, svc := range d.s.Services {
		if svc.Grant != nil && svc.Grant.Node == name {
			load++
		}
	}
	return load
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

func only(names []NodeName, name NodeName) []NodeName {
	if slices.Contains(names, name) {
		return []NodeName{name}
	}
	return nil
}

// PreferLeader names the voter that should lead instead of this one, or nobody: the leader is better not the
// holder, so that one power cut does not cost an election too; and nobody can order its own fence.
func PreferLeader(s State, v View) NodeName {
	if !s.busy(v.Self) {
		return ""
	}
	var other NodeName
	for _, name := range v.Voters {
		n := v.Nodes[name]
		if name == v.Self || s.marked(name) || n.Live != LiveOnline || !n.Daemon || n.Report == nil {
			continue
		}
		if !s.busy(name) {
			return name
		}
		other = cmp.Or(other, name)
	}
	if s.marked(v.Self) {
		return other // a holder can order the fence of another
	}
	return ""
}

// busy reports whether a node holds a grant or is to be fenced.
func (s *State) busy(name NodeName) bool {
	for _, svc := range s.Services {
		if svc.Grant != nil && svc.Grant.Node == name {
			return true
		}
	}
	return s.marked(name)
}

// marked reports whether a node is to be fenced whole, or is called lost by an operator.
func (s *State) marked(name NodeName) bool {
	for _, svc := range s.Services {
		if svc.leaving() && svc.Move.Lost && svc.Grant.Node == name {
			return true
		}
		if g := svc.Grant; g != nil && g.Node == name && g.Phase == PhaseReleasing {
			return true // its release may have to end in a fence
		}
	}
	return slices.ContainsFunc(s.Requests, func(r Request) bool {
		return r.State == RequestOpen && r.Kind == RequestFence && r.Node == name
	})
}

// Candidates are the nodes that could take the service now, best first, without the one named, as Decide would have
// it; vetoes says of each other node that is no witness what stands in the way there.
func Candidates(s State, v View, now Time, service ServiceName, without NodeName) (found []NodeName, vetoes map[NodeName]string) {
	d := &decider{s: s, v: v, now: max(now, s.Now)}
	svc := s.Services[service]
	found, _ = d.candidates(svc, without)
	vetoes = map[NodeName]string{}
	for _, node := range s.Spec.Nodes {
		if why := d.unfit(svc, node.Name); why != "" && !node.Witness && node.Name != without {
			vetoes[node.Name] = why
		}
	}
	return found, vetoes
}
