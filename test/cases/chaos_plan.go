package cases

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/keepone-ha/keepone/test/lab"
)

// role says whom a fault strikes, as the cluster stands at that moment.
type role string

const (
	theHolder role = "holder"
	theLeader role = "leader"
	another   role = "other" // neither, if there is such a node
)

// fault is one of a plan: equal seeds plan equal faults.
type fault struct {
	kind   *faultKind
	on     role
	hold   time.Duration // from its stroke to its mending
	beside *fault        // strikes while this one lasts, halfway
}

// faultKind is something bad that a storm does to a cluster. What it broke is mended by storm.mend, except for what it hands
// to storm.later.
type faultKind struct {
	name     string
	says     string // a sentence about the node; %s is its name and role
	shortest time.Duration
	longest  time.Duration
	manager  string // only under this one; "": both
	beside   bool   // it may strike while another lasts
	strike   func(ctx context.Context, s *storm, n *lab.Node) error
}

const second = time.Second

var faultKinds = []*faultKind{
	{name: "power-cut", says: "the power of %s is cut", shortest: 3 * second, longest: 8 * second, beside: true, strike: onNode((*lab.Node).PowerCut)},
	{name: "reset", says: "%s is reset", beside: true, strike: onNode((*lab.Node).Reset)},
	{name: "pause", says: "every process of %s stands still", shortest: second / 2, longest: 9 * second, strike: pauseNode},
	{name: "cut-off", says: "%s loses both links", shortest: second / 2, longest: 9 * second, strike: isolate(lab.AllLinks, lab.BothWays)},
	{name: "one-link", says: "%s loses a link", shortest: 2 * second, longest: 6 * second, strike: isolate(0, lab.BothWays)},
	{name: "deaf", says: "%s hears nobody any more", shortest: second / 2, longest: 9 * second, strike: isolate(lab.AllLinks, lab.Inbound)},
	{name: "mute", says: "nobody hears %s any more", shortest: second / 2, longest: 9 * second, strike: isolate(lab.AllLinks, lab.Outbound)},
	{name: "no-raft", says: "%s loses its Raft connections", shortest: second, longest: 8 * second, strike: silence(lab.RaftTalk)},
	{name: "no-corosync", says: "%s loses corosync's messages", shortest: second, longest: 8 * second, manager: "pacemaker", strike: silence(lab.CorosyncTalk)},
	{name: "daemon-killed", says: "keeponed of %s is killed", shortest: second, longest: 3 * second, beside: true, strike: kill(lab.Daemon)},
	{name: "guard-killed", says: "the guard of %s is killed", shortest: second, longest: 3 * second, beside: true, strike: kill(lab.Guard)},
	{name: "both-killed", says: "keeponed and the guard of %s are killed", shortest: second, longest: 3 * second, strike: kill(lab.Daemon, lab.Guard)},
	{name: "daemon-away", says: "keeponed of %s is killed for good", shortest: 2 * second, longest: 8 * second, strike: onNode(haltDaemon)},
	{name: "quorum-lost", says: "keeponed is killed for good on all but %s", shortest: 2 * second, longest: 6 * second, strike: haltOthers},
	{name: "container-killed", says: "the container's processes on %s are killed", shortest: second, longest: 3 * second, beside: true, strike: killContainer},
	{name: "cut-bmc-dead", says: "%s loses its power, and its BMC too", shortest: 6 * second, longest: 9 * second, strike: cutWith(func(b *lab.BMC) error { b.Dead(); return nil })},
	{name: "cut-bmc-slow", says: "%s loses its power, and its BMC is slow", shortest: 5 * second, longest: 9 * second, strike: cutWith(func(b *lab.BMC) error { b.Slow(3 * second); return nil })},
	{name: "cut-bmc-password", says: "%s loses its power, and its BMC knows another password", shortest: 6 * second, longest: 9 * second, strike: cutWithPassword},
	{name: "cut-bmc-swapped", says: "%s loses its power, and its BMC's cable is swapped with another's", shortest: 6 * second, longest: 9 * second, strike: cutWithSwap},
	{name: "all-cut", says: "every node loses its power, %s too", shortest: second, longest: 4 * second, strike: cutAll},
	{name: "mon-stopped", says: "Ceph's mon stands still (the service is on %s)", shortest: 2 * second, longest: 8 * second, strike: stopCeph("mon.a")},
	{name: "osd-stopped", says: "Ceph's OSD stands still (the service is on %s)", shortest: second, longest: 8 * second, strike: stopCeph("osd.0")},
	{name: "ceph-stopped", says: "all of Ceph stands still (the service is on %s)", shortest: second, longest: 8 * second, strike: stopCeph("mon.a", "osd.0")},
	{name: "switchover", says: "an operator moves the service away from %s", beside: true, strike: orderSwitchover},
	{name: "drain", says: "an operator drains %s", shortest: second, longest: 4 * second, beside: true, strike: orderDrain},
	{name: "restart", says: "an operator restarts the service on %s", beside: true, strike: order("service", "restart", service, "--yes")},
	{name: "stop", says: "an operator stops the service on %s", shortest: second, longest: 3 * second, beside: true, strike: orderStop},
	{name: "maintenance", says: "an operator begins a maintenance (the service is on %s)", shortest: 2 * second, longest: 5 * second, beside: true, strike: orderMaintenance},
	{name: "fence", says: "an operator fences %s", shortest: 2 * second, longest: 5 * second, beside: true, strike: orderFence},
}

// planner draws faults for ever: each kind once before one comes again, a third of them with another beside it.
type planner struct {
	rand    *rand.Rand
	manager string
	deck    []*faultKind
}

func newPlanner(seed uint64, manager string) *planner {
	return &planner{rand: rand.New(rand.NewPCG(seed, 0)), manager: manager}
}

func (p *planner) next() fault {
	f := p.draw(p.kind(func(*faultKind) bool { return true }))
	if f.hold >= second && p.rand.IntN(3) == 0 {
		other := p.draw(p.kind(func(k *faultKind) bool { return k.beside && k != f.kind }))
		f.beside = &other
	}
	return f
}

// kind takes the next fitting one off the deck.
func (p *planner) kind(fits func(*faultKind) bool) *faultKind {
	for {
		for i, k := range p.deck {
			if fits(k) {
				p.deck = append(p.deck[:i:i], p.deck[i+1:]...)
				return k
			}
		}
		for _, i := range p.rand.Perm(len(faultKinds)) {
			if k := faultKinds[i]; k.manager == "" || k.manager == p.manager {
				p.deck = append(p.deck, k)
			}
		}
	}
}

func (p *planner) draw(k *faultKind) fault {
	f := fault{kind: k, on: []role{theHolder, theHolder, theHolder, theLeader, another}[p.rand.IntN(5)], hold: k.shortest}
	if spread := k.longest - k.shortest; spread > 0 {
		f.hold += time.Duration(p.rand.Int64N(int64(spread))).Round(100 * time.Millisecond)
	}
	return f
}

func onNode(do func(*lab.Node, context.Context) error) func(context.Context, *storm, *lab.Node) error {
	return func(ctx context.Context, _ *storm, n *lab.Node) error { return do(n, ctx) }
}

func pauseNode(ctx context.Context, s *storm, n *lab.Node) error {
	s.paused[n] = true
	return n.Pause(ctx)
}

func isolate(link int, way lab.Way) func(context.Context, *storm, *lab.Node) error {
	return func(ctx context.Context, _ *storm, n *lab.Node) error { return n.Isolate(ctx, link, way) }
}

func silence(t lab.Talk) func(context.Context, *storm, *lab.Node) error {
	return func(ctx context.Context, _ *storm, n *lab.Node) error { return n.Silence(ctx, t) }
}

func kill(programs ...lab.Program) func(context.Context, *storm, *lab.Node) error {
	return func(ctx context.Context, _ *storm, n *lab.Node) error {
		var errs []error
		for _, p := range programs {
			errs = append(errs, n.Kill(ctx, p))
		}
		return errors.Join(errs...)
	}
}

func haltDaemon(n *lab.Node, ctx context.Context) error { return n.Halt(ctx, lab.Daemon) } //nolint:revive // a method's order

func haltOthers(ctx context.Context, s *storm, n *lab.Node) error {
	var errs []error
	for _, other := range s.Nodes() {
		if other != n && other.IsUp() {
			errs = append(errs, haltDaemon(other, ctx))
		}
	}
	return errors.Join(errs...)
}

func killContainer(ctx context.Context, _ *storm, n *lab.Node) error {
	_, err := n.Exec(ctx, "sh", "-c", "kill -9 $(cat /run/keepone/services/"+service+"/record.json | grep -A3 '\"Init\"' | grep -i '\"pid\"' | tr -dc 0-9)")
	return err
}

func cutWith(spoil func(*lab.BMC) error) func(context.Context, *storm, *lab.Node) error {
	return func(ctx context.Context, _ *storm, n *lab.Node) error {
		return errors.Join(spoil(n.BMC()), n.PowerCut(ctx))
	}
}

func cutWithPassword(ctx context.Context, _ *storm, n *lab.Node) error {
	return errors.Join(n.BMC().WrongPassword(ctx), n.PowerCut(ctx))
}

func cutWithSwap(ctx context.Context, s *storm, n *lab.Node) error {
	n.BMC().Swap(s.Node(1 + n.Index%len(s.Nodes())).BMC())
	return n.PowerCut(ctx)
}

func cutAll(ctx context.Context, s *storm, _ *lab.Node) error {
	var errs []error
	for _, n := range s.Nodes() {
		errs = append(errs, n.PowerCut(ctx))
	}
	return errors.Join(errs...)
}

func stopCeph(daemons ...string) func(context.Context, *storm, *lab.Node) error {
	return func(_ context.Context, s *storm, _ *lab.Node) error {
		var errs []error
		for _, d := range daemons {
			errs = append(errs, s.StopCephDaemon(d))
		}
		return errors.Join(errs...)
	}
}

// orderBound is what an operator waits for a command: at the worst moment it may be refused, fail or not be answered. It is
// short, so that a fault which lasts meanwhile does not last for much longer than it was to.
const orderBound = 5 * time.Second

// order has an operator give a command. What becomes of it is told, and not an error: that is the storm's to judge.
func order(args ...string) func(context.Context, *storm, *lab.Node) error {
	return func(ctx context.Context, s *storm, n *lab.Node) error {
		ctx, cancel := context.WithTimeout(ctx, orderBound)
		defer cancel()
		ask := s.ask(n)
		if _, err := s.keepone(ctx, ask, args...); err != nil {
			s.tell.say("        keepone %v on %s: %.120s", args, ask.Name, firstLine(err.Error()))
		}
		return nil
	}
}

func orderSwitchover(ctx context.Context, s *storm, n *lab.Node) error {
	to := s.last(n)
	if to == nil {
		to = s.Node(1) // every other one is off: it will be refused
	}
	return order("switchover", service, "--to", to.Name, "--yes")(ctx, s, nil)
}

func orderDrain(ctx context.Context, s *storm, n *lab.Node) error {
	s.later("undrain", n.Name)
	return order("drain", n.Name)(ctx, s, n)
}

func orderStop(ctx context.Context, s *storm, _ *lab.Node) error {
	s.later("service", "start", service, "--no-wait")
	return order("service", "stop", service, "--yes")(ctx, s, nil)
}

func orderMaintenance(ctx context.Context, s *storm, _ *lab.Node) error {
	s.later("maintenance", "off")
	return order("maintenance", "on", "--for", "5m")(ctx, s, nil)
}

func orderFence(ctx context.Context, s *storm, n *lab.Node) error {
	return order("fence", n.Name, "--yes")(ctx, s, n)
}

func (f fault) String() string {
	return fmt.Sprintf("%s on %s for %v", f.kind.name, f.on, f.hold)
}
