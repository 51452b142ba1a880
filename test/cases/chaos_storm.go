package cases

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/test/lab"
)

const (
	chaosUsers = 4
	// wellBound is for a cluster to be whole again after a fault was mended: reboots, Pacemaker's joins and its patience
	// with failures included, on a busy machine.
	wellBound = 2 * time.Minute
	// strikeBound is for one fault, or one round of mending: reboots of all nodes on a busy machine.
	strikeBound = 40 * time.Second
	// phasesSlack is what a failover may have taken beyond what its users noticed: the holder may serve on for a while after it
	// was heard last.
	phasesSlack = 5 * time.Second
	// helpAfter is when an operator tells keepone and Pacemaker to forget failures and try again at once, as they ask for.
	helpAfter = 40 * time.Second
)

// storm is faults upon a formed cluster whose front-end is in use.
type storm struct {
	*cluster
	managed *managed // nil unless Pacemaker orders the service
	orders  chaosOrders
	tell    teller
	work    string // for what is to be kept of a storm that found something

	plan   *planner
	users  *lab.Users
	began  time.Time
	epoch  uint64 // at the beginning
	faults int
	kinds  map[string]bool
	paused map[*lab.Node]bool
	hurt   []*lab.Node // nobody is asked there
	undo   [][]string  // commands that an operator gives once all is mended
	events map[uint64]event
	gaps   []time.Duration // of the users, one for each fault that cost a failover
	wrong  []string        // what the cluster did not keep

	unexplained []string // what its history tells wrongly
}

func newStorm(o chaosOrders, all troupe, tell teller, work string) *storm {
	m, _ := all.(*managed)
	return &storm{
		cluster: all.keepones(), managed: m, orders: o, tell: tell, work: work, plan: newPlanner(o.Seed, o.Manager),
		kinds: map[string]bool{}, paused: map[*lab.Node]bool{}, events: map[uint64]event{},
	}
}

// rage lets faults strike until the time is over or the cluster stays broken, and judges. An error is the lab's own.
func (s *storm) rage(ctx context.Context) (verdict, error) {
	s.users = s.Users(ctx, s.address, chaosUsers)
	defer s.users.Stop()
	s.began = time.Now()
	holder, epoch, err := s.holder(ctx, s.anyUp())
	if err != nil {
		return verdict{}, err
	}
	s.epoch = epoch
	s.tell.say("the front-end answers on %s (epoch %d); %d users outside append and read records", holder.Name, epoch, chaosUsers)
	if err := s.remember(ctx); err != nil {
		return verdict{}, err
	}
	for len(s.wrong) == 0 && time.Since(s.began) < s.orders.Duration && (s.orders.Faults == 0 || s.faults < s.orders.Faults) {
		if err := s.endure(ctx, s.plan.next()); err != nil {
			return verdict{}, err
		}
	}
	return s.judge(ctx)
}

// endure has one fault strike, with what strikes beside it, mends it, and waits until the cluster is whole.
func (s *storm) endure(ctx context.Context, f fault) error {
	began := time.Now()
	if err := s.strike(ctx, f); err != nil {
		return err
	}
	if f.beside != nil {
		if err := errors.Join(pass(ctx, f.hold/2), s.strike(ctx, *f.beside)); err != nil {
			return err
		}
	}
	if err := pass(ctx, f.hold-time.Since(began)); err != nil {
		return err
	}
	mended := time.Now()
	reason := s.awaitWell(ctx, mended)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if reason != nil {
		s.wrong = append(s.wrong, fmt.Sprintf("after fault %d (%v) the cluster was not whole again within %v: %v", s.faults, f, wellBound, reason))
		s.tell.say("        not whole again: %v", reason)
		return nil
	}
	known := len(s.events)
	if err := s.remember(ctx); err != nil {
		return err
	}
	s.after(began, mended, known)
	return nil
}

// strike does the bad thing to whom it is meant for.
func (s *storm) strike(ctx context.Context, f fault) error {
	n, words := s.target(ctx, f.on)
	s.faults++
	s.kinds[f.kind.name] = true
	said := fmt.Sprintf(f.kind.says, words)
	s.tell.say("fault %d: %s (%s)", s.faults, said, f.kind.name)
	s.Logf("fault %d: %s", s.faults, said)
	if f.kind.manager == "" || !f.kind.beside {
		s.hurt = append(s.hurt, n)
	}
	ctx, cancel := context.WithTimeout(ctx, strikeBound)
	defer cancel()
	if err := f.kind.strike(ctx, s, n); err != nil {
		// What another fault has taken away already can't be broken: that is told, and no more.
		s.tell.say("        %s: %.120s", f.kind.name, firstLine(err.Error()))
	}
	return context.Cause(ctx)
}

// target is the node of a role as things stand, and how a sentence names it.
func (s *storm) target(ctx context.Context, on role) (*lab.Node, string) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	now, _ := s.status(ctx, s.ask(nil)) // nobody may know: then any node will do
	var holder, leader *lab.Node
	leader = s.named(now.Leader)
	for _, svc := range now.Services {
		holder = s.named(svc.Holder)
	}
	var target *lab.Node
	switch on {
	case theHolder:
		target = holder
	case theLeader:
		target = leader
	case another:
		for _, n := range s.Nodes() {
			if n != holder && n != leader && n.IsUp() {
				target = n
			}
		}
	}
	if target == nil {
		target = s.last(nil)
	}
	if target == nil {
		target = s.Node(1)
	}
	var roles []string
	if target == holder {
		roles = append(roles, "holder")
	}
	if target == leader {
		roles = append(roles, "leader")
	}
	if len(roles) == 0 {
		return target, target.Name
	}
	return target, target.Name + " (" + strings.Join(roles, ", ") + ")"
}

// ask is a node that can be asked, if there is one: not one of those that were struck.
func (s *storm) ask(not *lab.Node) *lab.Node { return s.anyUp(append(slices.Clone(s.hurt), not)...) }

// later has an operator give a command once all is mended.
func (s *storm) later(args ...string) { s.undo = append(s.undo, args) }

// awaitWell mends all that is broken, over and over, until the cluster is whole; it returns what is still wrong at the end.
func (s *storm) awaitWell(ctx context.Context, mended time.Time) error {
	helped := false
	for {
		s.mend(ctx)
		reason := s.unwell(ctx, mended)
		if reason == nil {
			s.hurt, s.undo = nil, nil
			return nil
		}
		if ctx.Err() != nil || time.Since(mended) > wellBound {
			return reason
		}
		if time.Since(mended) > helpAfter && !helped {
			helped = true
			s.help(ctx, reason)
		}
		_ = pass(ctx, 300*time.Millisecond) // the next look at ctx ends it
	}
}

// mend takes back what faults do, as far as it is not yet. What can't be mended now is tried again.
func (s *storm) mend(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, strikeBound)
	defer cancel()
	err := s.ContinueCeph()
	for _, n := range s.Nodes() {
		if n.IsUp() && s.paused[n] {
			err = errors.Join(err, n.Continue(ctx))
		}
		if err == nil {
			delete(s.paused, n)
		}
		err = errors.Join(err, n.Heal(ctx), n.BMC().Heal(ctx), n.PowerOn(ctx))
		for _, p := range []lab.Program{lab.Guard, lab.Daemon} {
			if n.PID(ctx, p) == 0 {
				err = errors.Join(err, n.Start(ctx, p))
			}
		}
		if s.managed != nil && n.PID(ctx, lab.Corosync) == 0 {
			err = errors.Join(err, n.StartPacemaker(ctx))
		}
	}
	for len(s.undo) > 0 && err == nil {
		_, undoErr := s.keepone(ctx, s.anyUp(), s.undo[0]...)
		if undoErr != nil {
			s.Logf("not yet: %v", undoErr)
			break
		}
		s.undo = s.undo[1:]
	}
	if err != nil {
		s.Logf("mend: %v", err)
	}
}

// help is what an operator does who is asked to: both are told to forget failures.
func (s *storm) help(ctx context.Context, reason error) {
	s.tell.say("        not whole yet (%.150v): an operator has failures forgotten", reason)
	ctx, cancel := context.WithTimeout(ctx, strikeBound)
	defer cancel()
	if _, err := s.keepone(ctx, s.anyUp(), "service", "start", service, "--no-wait"); err != nil {
		s.Logf("%v", err)
	}
	if s.managed == nil {
		return
	}
	if err := s.managed.crm(ctx, s.anyUp(), "crm_resource", "--cleanup"); err != nil {
		s.Logf("%v", err)
	}
}

// unwell is what keeps the cluster from being whole: every node takes part and could take over, the service answers its
// users, nothing is asked for.
func (s *storm) unwell(ctx context.Context, mended time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	now, err := s.status(ctx, s.anyUp())
	switch {
	case err != nil:
		return err
	case len(s.undo) > 0:
		return fmt.Errorf("keepone %v was not done yet", s.undo[0])
	case !now.Quorum || now.Leader == "":
		return errors.New("no leader with a quorum")
	case len(now.Services) == 0:
		return errors.New("whoever is asked knows of no service yet")
	case len(now.Requests) > 0:
		return fmt.Errorf("%s goes on: %s", now.Requests[0].What, now.Requests[0].Now)
	}
	for _, n := range now.Nodes {
		if n.State != "online" || !n.Voter {
			return fmt.Errorf("%s is %s, voter %v: %s", n.Name, n.State, n.Voter, n.Reason)
		}
	}
	for _, svc := range now.Services {
		if svc.State != "running" || len(svc.Next) < len(s.Nodes())-1 {
			return fmt.Errorf("%s is %s on %s, %v could take it: %s", svc.Name, svc.State, svc.Holder, svc.Next, svc.Reason)
		}
	}
	if !s.users.AckedAfter(mended) {
		return errors.New("no user's record was acknowledged yet")
	}
	if s.managed != nil {
		return s.managed.ofOneMind(ctx, now.Services[0].Holder)
	}
	return nil
}

// ofOneMind is an error unless every node takes part in Pacemaker, which has the container where the grant is.
func (m *managed) ofOneMind(ctx context.Context, holder string) error {
	v, err := m.anyUp().CRM(ctx)
	if err != nil {
		return err
	}
	for _, n := range m.Nodes() {
		if !v.IsOnline(n.Name) {
			return fmt.Errorf("%s is not online in Pacemaker", n.Name)
		}
	}
	if at := v.Holder(m.resource()); at != holder {
		return fmt.Errorf("keepone's grant is on %s, Pacemaker has %s on %q", holder, m.resource(), at)
	}
	return nil
}

// remember keeps the history, of which the cluster itself forgets the oldest.
func (s *storm) remember(ctx context.Context) error {
	events, err := s.history(ctx, s.anyUp())
	for _, e := range events {
		s.events[e.ID] = e
	}
	return err
}

// past is the history that was remembered, oldest first.
func (s *storm) past() []event {
	all := make([]event, 0, len(s.events))
	for _, e := range s.events {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b event) int { return int(a.ID) - int(b.ID) })
	return all
}

// after tells what became of a fault: the history's own words, and what its users saw.
func (s *storm) after(struck, mended time.Time, known int) {
	past := s.past()
	gap := s.users.LongestGap(struck).Length()
	failovers := 0
	for _, e := range past[min(known, len(past)):] {
		switch e.Kind {
		case "failover":
			failovers++
			if told := e.Phases["total"]; told > gap.Seconds()+phasesSlack.Seconds() {
				s.unexplained = append(s.unexplained, fmt.Sprintf("the history says that the failover to epoch %d took %.1f s, its users waited for %.1f s", e.Epoch, told, gap.Seconds()))
			}
			s.tell.say("        failover %s → %s by the proof of %s, epoch %d, %.1f s", e.From, e.To, e.Proof, e.Epoch, e.Phases["total"])
		case "switchover":
			s.tell.say("        switchover %s → %s, epoch %d", e.From, e.To, e.Epoch)
		}
	}
	if failovers > 0 {
		s.gaps = append(s.gaps, gap)
	}
	s.tell.say("        whole again %.1f s after it was mended; the users' longest wait was %.1f s", time.Since(mended).Seconds(), gap.Seconds())
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}
