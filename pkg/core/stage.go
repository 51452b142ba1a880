package core

import (
	"cmp"
	"fmt"
	"time"
)

// A cluster manager orders and runs the service by itself: a holder brings up what is claimed there and nothing
// more, and neither restarts nor moves it. Keepone still says who may.

// Promoted says that the volume is mapped on its holder and nothing more is up: as far as was wanted, or again after
// the cluster manager has stopped the container above it.
type Promoted struct {
	Service  ServiceName
	Epoch    Epoch
	Instance Instance
	Run      int
	Storage  time.Duration // grant seen to mapped
}

// Kind names the command on the wire.
func (Promoted) Kind() string { return "promoted" }

func (c Promoted) apply(n *next) error {
	svc, err := n.heldBy(c.Service, c.Epoch, c.Instance)
	if err != nil {
		return err
	}
	g := svc.Grant
	switch {
	case g.Run != c.Run || !g.Staged:
		return fmt.Errorf("run %d is %s: %w", g.Run, g.Phase, ErrStale)
	case g.Phase != PhaseStarting && g.Phase != PhaseRunning && g.Phase != PhaseFailed:
		return fmt.Errorf("the grant is %s: %w", g.Phase, ErrStale)
	}
	event := Event{Kind: EventPromoted, Service: c.Service, Node: g.Node, Epoch: c.Epoch, Reason: "its container has ended; the volume stays"}
	switch {
	case g.Phase == PhaseStarting && g.Stage == StagePromoted:
		event.Reason, event.Phases = fmt.Sprintf("volume mapped on %s", g.Node), &Phases{Storage: c.Storage}
		g.Times.Promoted = n.Now
	case g.Phase == PhaseStarting:
		event.Reason = "the start of its container was given up; the volume stays"
	}
	g.Stage, g.Phase, g.Since = StagePromoted, PhasePromoted, n.Now
	n.keep(svc)
	n.note(event)
	return nil
}

// Raise orders a promoted holder to start the container, as the next run.
type Raise struct {
	Service ServiceName
	Epoch   Epoch
	Run     int // the run before
}

// Kind names the command on the wire.
func (Raise) Kind() string { return "raise" }

func (c Raise) apply(n *next) error {
	svc, err := n.held(c.Service, c.Epoch)
	if err != nil {
		return err
	}
	g := svc.Grant
	if g.Run != c.Run || !g.Staged || (g.Phase != PhasePromoted && g.Phase != PhaseFailed) {
		return fmt.Errorf("run %d is %s: %w", g.Run, g.Phase, ErrStale)
	}
	g.Run++
	g.Stage, g.Phase, g.Since = StageRunning, PhaseStarting, n.Now
	if !g.Ran {
		g.Times.Raised = n.Now
	}
	n.keep(svc)
	return nil
}

// Able says what a node may do for a service.
type Able struct {
	OK     bool   // it holds the grant, or could be given it
	Reason string // why not
	Score  int    // higher is better; 0 if not OK
	Barred bool   // by the cluster document: waiting mends nothing
}

// The scores that a cluster manager sees. A holder's is above any that another node could reach.
const (
	scoreHolder = 1000
	scoreBest   = 100
	scoreStep   = 10 // between candidates, best first
	scoreLeast  = 1
)

// Ables says for each service what each node may do, for a cluster manager that chooses among them.
func Ables(s State, v View, now Time) map[ServiceName]map[NodeName]Able {
	d := &decider{s: s, v: v, now: max(now, s.Now)}
	all := map[ServiceName]map[NodeName]Able{}
	for _, spec := range s.Spec.Services {
		all[spec.Name] = d.ables(s.Services[spec.Name])
	}
	return all
}

func (d *decider) ables(svc Service) map[NodeName]Able {
	able := map[NodeName]Able{}
	withheld := d.withheld(svc)
	for _, node := range d.s.Spec.Nodes {
		able[node.Name] = Able{
			Reason: cmp.Or(withheld, d.unfit(svc, node.Name)),
			Barred: node.Witness || !d.s.Spec.MayHold(node.Name, svc.Name),
		}
	}
	if withheld == "" {
		found, _ := d.candidates(svc, "")
		score := scoreBest
		for _, name := range found {
			able[name] = Able{OK: true, Score: score}
			score = max(score-scoreStep, scoreLeast)
		}
	}
	if g := svc.Grant; g != nil && d.s.Nodes[g.Node].Instance == g.Instance {
		able[g.Node] = d.s.HolderAble(svc.Name)
	}
	return able
}

// withheld says why nobody could be given the service now, empty if somebody could.
func (d *decider) withheld(svc Service) string {
	switch {
	case svc.Stopped:
		return stoppedByOperator(svc.Name)
	case d.s.Maintenance.On:
		return "maintenance: nothing is granted until it ends"
	}
	return ""
}

func stoppedByOperator(name ServiceName) string {
	return fmt.Sprintf("an operator stopped it: keepone service start %s", name)
}

// HolderAble says what the holder of the service may do. It needs no leader: a holder that is out of touch with one
// keeps what it has.
func (s *State) HolderAble(name ServiceName) Able {
	g := s.Services[name].Grant
	switch {
	case g == nil:
		return Able{Reason: "nobody holds it"}
	case s.targeted(g.Instance, Target{Service: name, Epoch: g.Epoch}):
		return Able{Reason: "being fenced"}
	case g.Phase == PhaseReleasing || g.Phase == PhaseContained:
		return Able{Reason: "its grant is " + string(g.Phase)}
	case s.Nodes[g.Node].Standby:
		return Able{OK: true, Score: scoreLeast} // it may stay for as long as no other node will have it
	}
	return Able{OK: true, Score: scoreHolder}
}

// managed reports whether a cluster manager orders and runs the services.
func (s *State) managed() bool { return s.Spec.Manager == ManagerPacemaker }

// claim is how far the cluster manager wants the service up on the node, as the node's daemon says.
func (d *decider) claim(node NodeName, name ServiceName) (Stage, bool) {
	r := d.v.Nodes[node].Report
	if r == nil {
		return "", false
	}
	stage, ok := r.Claims[name]
	return stage, ok
}

// placeClaimed gives a free service to the node where the cluster manager starts it, if that may have it.
func (d *decider) placeClaimed(svc Service) {
	var why []string
	for _, node := range d.s.NodeNames() {
		stage, ok := d.claim(node, svc.Name)
		if !ok {
			continue
		}
		d.followImage(svc)
		svc = d.s.Services[svc.Name]
		reason := d.unfit(svc, node)
		if svc.Stopped {
			reason = stoppedByOperator(svc.Name)
		}
		if reason == "" {
			cause := svc.From.Cause
			if cause == "" {
				cause = CauseStart
			}
			d.do(Give{Service: svc.Name, Node: node, Instance: d.s.Nodes[node].Instance, Expect: svc.Epoch, Cause: cause, Stage: stage})
			return
		}
		why = append(why, fmt.Sprintf("%s: %s", node, reason))
	}
	d.block(svc.Name, join(why))
}

// leadClaimed goes along with what the cluster manager starts on the holder, and frees the grant for it where the
// holder can't say itself that it has stopped.
func (d *decider) leadClaimed(svc Service) {
	g := *svc.Grant
	stage, claimed := d.claim(g.Node, svc.Name)
	switch {
	case svc.Stopped && g.Phase != PhaseReleasing:
		d.do(Release{Service: svc.Name, Epoch: g.Epoch, Cause: CauseStart, Reason: "stopped by an operator"})
	case d.s.clientsCut(svc): // no run of this grant can write: the cluster manager starts it anew, on another one
		if g.Phase != PhaseReleasing {
			d.do(Release{Service: svc.Name, Epoch: g.Epoch, Cause: CauseRelocate, Reason: "its storage clients were cut off"})
		}
	case claimed && stage == StageRunning && g.Staged && (g.Phase == PhasePromoted || g.Phase == PhaseFailed):
		d.do(Raise{Service: svc.Name, Epoch: g.Epoch, Run: g.Run})
	case d.leftBehind(svc):
		d.fence(svc, "started elsewhere, and the holder's daemon does not say that it has stopped", false)
	}
}

// leftBehind reports whether the cluster manager starts the service elsewhere, which it does only after it has stopped
// it on the holder or had the node fenced, and the holder's daemon is not there to say so.
func (d *decider) leftBehind(svc Service) bool {
	v := d.v.Nodes[svc.Grant.Node]
	return d.s.managed() && v.Live == LiveOnline && v.Instance == svc.Grant.Instance && !v.Daemon && d.claimedElsewhere(svc)
}

func (d *decider) claimedElsewhere(svc Service) bool {
	for _, node := range d.s.NodeNames() {
		if _, ok := d.claim(node, svc.Name); ok && node != svc.Grant.Node && d.unfit(svc, node) == "" {
			return true
		}
	}
	return false
}
