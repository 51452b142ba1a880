package sim

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/ocf"
)

const (
	threshold      = 3 // migration-threshold: the document's restart.failures
	failureTimeout = 5 * time.Minute
	sticky         = 1000
)

// action is one thing to do next: an operation of a resource, or, without a verb, a fence.
type action struct {
	node     *node
	service  core.ServiceName
	resource string
	verb     ocf.Verb
}

// scheduler works out what can be done now. It looks at nothing but what the DC knows.
type scheduler struct {
	w       *World
	conf    *conf
	here    []*node // members whose Pacemaker runs
	quorate bool
	members map[core.NodeName]*member
	attrs   map[core.NodeName]map[string]string
	out     []action
	fencing bool // some node is to be fenced: nothing starts before it is
	blind   bool // some resource was not looked for everywhere yet: nothing starts before it was
}

func (s *scheduler) do(n *node, svc core.ServiceName, resource string, verb ocf.Verb) {
	s.out = append(s.out, action{n, svc, resource, verb})
}

// next are the actions that wait for no other.
func (s *scheduler) next() []action {
	for _, n := range s.w.nodes {
		if m := s.members[n.name]; s.quorate && (m.expected && !slices.Contains(s.here, n) || m.dirty) {
			s.fencing = true
			s.do(n, "", "", "")
		}
	}
	for _, n := range s.here {
		for _, id := range s.w.resources() {
			if s.at(n, id).role == unknown {
				s.blind = true
				s.do(n, s.w.serviceOf(id), id, ocf.Monitor)
			}
		}
	}
	if s.conf.maintenance {
		return s.out
	}
	s.controllers()
	for i := range s.w.shape.Services {
		svc := service(i)
		switch {
		case s.conf.unmanaged[svc]:
		case s.w.shape.One:
			s.one(svc)
		default:
			s.promotable(svc)
		}
	}
	return s.out
}

func (s *scheduler) at(n *node, id string) place { return s.members[n.name].at[id] }

// usable reports whether resources may run on the node at all.
func (s *scheduler) usable(n *node) bool {
	return s.quorate && slices.Contains(s.here, n) && !s.conf.standby[n.name] && !s.members[n.name].dirty
}

// controllers: failures of keepone's own daemon are ignored.
func (s *scheduler) controllers() {
	for _, n := range s.here {
		is := s.at(n, controllerID)
		want := s.usable(n) && !s.conf.stopped[controllerID]
		switch {
		case want && is.role == stopped && !s.blind:
			s.do(n, "", controllerID, ocf.Start)
		case !want && is.role == started:
			s.do(n, "", controllerID, ocf.Stop)
		}
	}
}

// eligible is the location rule on the attribute of the service.
func (s *scheduler) eligible(n *node, svc core.ServiceName) bool {
	v, err := strconv.Atoi(s.attrs[n.name][core.ElectionAttribute(svc)])
	return err == nil && v >= 1
}

// worn reports whether one of the resources failed on the node too often.
func (s *scheduler) worn(n *node, ids ...string) bool {
	return slices.ContainsFunc(ids, func(id string) bool {
		p := s.at(n, id)
		return p.fails >= threshold && s.w.now-p.last < failureTimeout
	})
}

// choose is the node with the best score, the one that has it kept; nil: none may.
func (s *scheduler) choose(svc core.ServiceName, may func(*node) bool, score func(*node) (int, bool)) *node {
	var best *node
	most := 0
	for _, n := range s.here {
		v, ok := score(n)
		if !ok || !may(n) {
			continue
		}
		if s.conf.moves[svc] == n.name {
			v += 1 << 30
		}
		if best == nil || v > most {
			best, most = n, v
		}
	}
	return best
}

// promotable is a volume that is promoted on one node, and a group of mount and container upon it.
func (s *scheduler) promotable(svc core.ServiceName) {
	vol, mnt, box := volumeOf(svc), mountOf(svc), containerOf(svc)
	may := func(n *node) bool { return s.usable(n) && s.eligible(n, svc) && !s.worn(n, vol) }
	to := s.choose(svc, func(n *node) bool { return may(n) && !s.worn(n, mnt, box) && !s.conf.stopped[vol] }, func(n *node) (int, bool) {
		v, err := strconv.Atoi(s.attrs[n.name]["master-"+vol])
		for _, id := range []string{mnt, box} {
			if s.at(n, id).role == started {
				v += sticky
			}
		}
		if s.at(n, vol).role == promoted {
			v += sticky
		}
		return v, err == nil
	})
	elsewhere := slices.ContainsFunc(s.here, func(n *node) bool {
		return n != to && (s.at(n, vol).role == promoted || s.at(n, mnt).role > stopped || s.at(n, box).role > stopped)
	})
	for _, n := range s.here {
		s.volume(svc, n, n == to, may(n) && !s.conf.stopped[vol], elsewhere)
	}
}

// volume is what is next for one node's share of a promotable service.
func (s *scheduler) volume(svc core.ServiceName, n *node, to, may, elsewhere bool) {
	vol, mnt, box := s.at(n, volumeOf(svc)), s.at(n, mountOf(svc)), s.at(n, containerOf(svc))
	stands := to && vol.role == promoted && !vol.failed
	group := stands && !s.conf.stopped[containerOf(svc)]
	starts := !s.fencing && !s.blind
	switch {
	case (box.role == started && (!group || mnt.role != started || mnt.failed)) || box.failed:
		s.do(n, svc, containerOf(svc), ocf.Stop)
	case (mnt.role == started && !stands) || mnt.failed:
		s.do(n, svc, mountOf(svc), ocf.Stop)
	case vol.role == promoted && !stands:
		s.do(n, svc, volumeOf(svc), ocf.Demote)
	case vol.failed || vol.role == started && !may:
		s.do(n, svc, volumeOf(svc), ocf.Stop)
	case !starts:
	case vol.role == stopped && may:
		s.do(n, svc, volumeOf(svc), ocf.Start)
	case vol.role == started && to && !elsewhere:
		s.do(n, svc, volumeOf(svc), ocf.Promote)
	case stands && mnt.role == stopped:
		s.do(n, svc, mountOf(svc), ocf.Start)
	case group && mnt.role == started && box.role == stopped:
		s.do(n, svc, containerOf(svc), ocf.Start)
	}
}

// one is all of a service as one resource.
func (s *scheduler) one(svc core.ServiceName) {
	id := containerOf(svc)
	load := func(n *node) (count int) {
		for i := range s.w.shape.Services {
			if s.at(n, containerOf(service(i))).role == started {
				count++
			}
		}
		return count
	}
	may := func(n *node) bool { return s.usable(n) && s.eligible(n, svc) && !s.worn(n, id) && !s.conf.stopped[id] }
	to := s.choose(svc, may, func(n *node) (int, bool) {
		if s.at(n, id).role == started {
			return sticky, true
		}
		return -load(n), true
	})
	active := slices.Clone(s.here)
	active = slices.DeleteFunc(active, func(n *node) bool { return s.at(n, id).role < started && !s.at(n, id).failed })
	for _, n := range active {
		if n != to || s.at(n, id).failed || len(active) > 1 {
			s.do(n, svc, id, ocf.Stop)
		}
	}
	if to != nil && len(active) == 0 && !s.fencing && !s.blind {
		s.do(to, svc, id, ocf.Start)
	}
}

// learn is what a result of an operation says of its resource.
func (p place) learn(verb ocf.Verb, probe bool, code ocf.Code, now time.Duration) place {
	was := p
	switch code {
	case ocf.Success:
		p.role, p.failed = cmp.Or(map[ocf.Verb]role{ocf.Stop: stopped, ocf.Promote: promoted}[verb], started), verb == ocf.Monitor && was.role == promoted && !probe
	case ocf.NotRunning:
		p.role, p.failed = stopped, false
	case ocf.RunningPromoted:
		p.role, p.failed = promoted, was.role == started && !probe
	case ocf.FailedPromoted:
		p.role, p.failed = promoted, true
	default:
		p.role, p.failed = max(p.role, started), true
		switch verb {
		case ocf.Promote:
			p.role = promoted
		case ocf.Demote:
			p.role = started
		}
	}
	if lost := code == ocf.NotRunning && was.role > stopped; !probe && (p.failed || lost) {
		p.fails++
		if now-was.last > failureTimeout {
			p.fails = 1
		}
		p.last = now
	}
	return p
}

func (w *World) serviceOf(resource string) core.ServiceName {
	for i := range w.shape.Services {
		if s := service(i); resource == volumeOf(s) || resource == mountOf(s) || resource == containerOf(s) {
			return s
		}
	}
	return ""
}
