package core

import (
	"fmt"
	"maps"
	"time"
)

// MaxMaintenance bounds one maintenance window: an end that nobody remembers is no end.
const MaxMaintenance = 7 * 24 * time.Hour

// Ask commits what an operator asks for. Its id is the NextID that its entry drew: see Requested.
type Ask struct {
	What    RequestKind
	Service ServiceName
	Node    NodeName
	By      string
	For     time.Duration
	Token   string // drawn by the asker, to find its request again
}

// Kind names the command on the wire.
func (Ask) Kind() string { return "ask" }

func (c Ask) apply(n *next) error {
	r := Request{
		ID: n.id(), Kind: c.What, Service: c.Service, Node: c.Node, By: c.By, At: n.Now, For: c.For,
		State: RequestOpen, Token: c.Token,
	}
	if c.What == RequestFence {
		r.Instance = n.Nodes[c.Node].Instance
	}
	if err := n.knows(r); err != nil {
		return err
	}
	n.note(Event{Kind: EventRequest, Service: c.Service, Node: c.Node, Request: r.ID, Reason: fmt.Sprintf("%s asked by %s", c.What, c.By)})
	answer, err := n.begin(r)
	if err != nil {
		return err
	}
	if answer != "" {
		r = n.close(r, RequestDone, answer)
	}
	n.keepRequest(r)
	return nil
}

// knows refuses names that the cluster does not have.
func (n *next) knows(r Request) error {
	if r.Service != "" {
		if _, ok := n.Services[r.Service]; !ok || n.Spec.Service(r.Service) == nil {
			return fmt.Errorf("service %q: %w; `keepone service list` shows them", r.Service, ErrUnknown)
		}
	}
	if r.Node != "" {
		if _, ok := n.Nodes[r.Node]; !ok {
			return fmt.Errorf("node %q: %w; `keepone node list` shows them", r.Node, ErrUnknown)
		}
	}
	return nil
}

// begin does what a request changes at once, and answers it if that was all.
func (n *next) begin(r Request) (answer string, err error) {
	switch r.Kind {
	case RequestSwitchover, RequestFailover:
		return "", n.beginMove(r)
	case RequestStart, RequestStop, RequestRestart:
		return "", n.beginService(r)
	case RequestDrain:
		return "", n.setStandby(r, true)
	case RequestUndrain:
		return fmt.Sprintf("%s may host services again", r.Node), n.setStandby(r, false)
	case RequestFence:
		return "", n.beginFence(r)
	case RequestFenceConfirm:
		return n.confirmFence(r)
	case RequestMaintenance:
		return "", n.beginMaintenance(r)
	case RequestMaintainOff:
		if !n.Maintenance.On {
			return "", fmt.Errorf("there is no maintenance: %w", ErrRefused)
		}
		n.endMaintenance()
		return "maintenance has ended", nil
	}
	return "", fmt.Errorf("request %q: %w", r.Kind, ErrUnknown)
}

func (n *next) beginMove(r Request) error {
	svc, err := n.service(r.Service)
	switch {
	case err != nil:
		return err
	case r.Kind == RequestSwitchover && n.managed():
		return n.managersTurn(r)
	case n.Maintenance.On:
		return fmt.Errorf("service %q stays where it is: %w", r.Service, ErrMaintenance)
	case svc.Move != nil:
		return fmt.Errorf("request %d moves it already: %w", svc.Move.Request, ErrRefused)
	case svc.Stopped:
		return fmt.Errorf("service %q is stopped; `keepone service start %s` starts it: %w", r.Service, r.Service, ErrRefused)
	case svc.Grant == nil:
		return fmt.Errorf("service %q runs nowhere now; it starts by itself as soon as it can: %w", r.Service, ErrRefused)
	case svc.Grant.Node == r.Node:
		return fmt.Errorf("service %q is on %s already: %w", r.Service, r.Node, ErrRefused)
	case r.Node != "" && !n.Spec.MayHold(r.Node, r.Service):
		return fmt.Errorf("node %q may not hold service %q by the cluster document: %w", r.Node, r.Service, ErrRefused)
	}
	svc.Move = &Move{To: r.Node, From: svc.Grant.Node, Epoch: svc.Grant.Epoch, Request: r.ID, Lost: r.Kind == RequestFailover}
	n.keep(svc)
	return nil
}

// managersTurn refuses what a cluster manager orders by itself: done behind its back, it would undo it.
func (n *next) managersTurn(r Request) error {
	return fmt.Errorf("manager = %q: the cluster manager moves and restarts service %q, ask it for the %s: %w", n.Spec.Manager, r.Service, r.Kind, ErrRefused)
}

func (n *next) beginService(r Request) error {
	svc, err := n.service(r.Service)
	if err != nil {
		return err
	}
	switch r.Kind {
	case RequestStart:
		if svc.Grant == nil && n.Maintenance.On {
			return fmt.Errorf("service %q: %w", r.Service, ErrMaintenance)
		}
		if svc.Stopped && svc.Grant == nil {
			svc.From = Past{Node: svc.From.Node, Cause: CauseStart} // how it ended before the stop is another story
		}
		svc.Stopped, svc.NotBefore, svc.Avoid, svc.Failures = false, 0, nil, nil
	case RequestStop:
		svc.Stopped, svc.Move = true, nil
	default:
		if n.managed() {
			return n.managersTurn(r)
		}
		g := svc.Grant
		if g == nil || (g.Phase != PhaseRunning && g.Phase != PhaseFailed) {
			return fmt.Errorf("service %q is not running, there is nothing to restart: %w", r.Service, ErrRefused)
		}
		g.Run++
		g.Phase, g.Since = PhaseStarting, n.Now
		n.note(Event{Kind: EventRestart, Service: r.Service, Node: g.Node, Epoch: g.Epoch, Request: r.ID, Reason: "asked by " + r.By})
	}
	n.keep(svc)
	return nil
}

func (n *next) setStandby(r Request, standby bool) error {
	node, ok := n.Nodes[r.Node]
	if !ok {
		return fmt.Errorf("node %q: %w", r.Node, ErrUnknown)
	}
	if node.Standby == standby && !standby {
		return fmt.Errorf("node %q is not drained: %w", r.Node, ErrRefused)
	}
	node.Standby = standby
	n.Nodes[r.Node] = node
	return nil
}

func (n *next) beginFence(r Request) error {
	node := n.Nodes[r.Node]
	switch {
	case node.Instance == "":
		return fmt.Errorf("node %q was never seen, there is nothing to fence: %w", r.Node, ErrRefused)
	case n.Spec.Node(r.Node) == nil || n.Spec.Node(r.Node).BMC == nil:
		return fmt.Errorf("node %q has no BMC in the cluster document; power it off and run `keepone fence confirm %s`: %w", r.Node, r.Node, ErrRefused)
	}
	return nil
}

// confirmFence takes an operator's word that a node is off. It is refused for a life that is heard, or was until
// a moment ago: the word would be wrong (I3). Of a node that is back as another instance, it confirms that the
// earlier ones are gone.
func (n *next) confirmFence(r Request) (string, error) {
	node := n.Nodes[r.Node]
	instances := map[Instance]bool{}
	for _, svc := range n.Services {
		if svc.Grant != nil && svc.Grant.Node == r.Node {
			instances[svc.Grant.Instance] = true
		}
	}
	if node.Life == LifeDown || node.Life == LifeFenced {
		instances[node.Instance] = true
	} else {
		delete(instances, node.Instance)
	}
	if len(instances) == 0 {
		return "", fmt.Errorf("node %q is %s: only a node that counts as down can be confirmed off: %w", r.Node, node.Life, ErrRefused)
	}
	for _, instance := range sortedInstances(instances) {
		if instance == "" {
			continue
		}
		proof := Proof{Kind: ProofHuman, Instance: instance, By: r.By, Reading: "an operator vouches that " + string(r.Node) + " is off"}
		if err := (AddProof{Node: r.Node, Proof: proof}).apply(n); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%s counts as off by the word of %s", r.Node, r.By), nil
}

func (n *next) beginMaintenance(r Request) error {
	switch {
	case n.Maintenance.On:
		return fmt.Errorf("maintenance is on until it ends or `keepone maintenance off`: %w", ErrRefused)
	case r.For <= 0 || r.For > MaxMaintenance:
		return fmt.Errorf("maintenance needs an end between now and %s: %w", MaxMaintenance, ErrRefused)
	}
	for _, name := range n.ServiceNames() {
		if move := n.Services[name].Move; move != nil {
			return fmt.Errorf("request %d moves service %q: wait for it: %w", move.Request, name, ErrRefused)
		}
	}
	t, last := n.Spec.Timing, n.Maintenance
	n.Maintenance = Maintenance{
		On: true, End: n.Now.Add(r.For), Until: n.Now.Add(r.For + t.Lease + t.LeaseMargin),
		Reason: r.By, Accepted: last.Accepted,
	}
	if len(last.Accepted) > 0 {
		n.Maintenance.Until = max(n.Maintenance.Until, last.Until) // I5: who has not heard of its end goes by that
	}
	n.note(Event{Kind: EventMaintenance, Request: r.ID, Reason: fmt.Sprintf("on for %s, by %s", r.For, r.By)})
	return nil
}

// endMaintenance keeps who accepted it: such a holder may run without a lease until it has heard of the end.
func (n *next) endMaintenance() {
	n.Maintenance.On = false
	n.note(Event{Kind: EventMaintenance, Reason: "off"})
}

// EndMaintenance ends it at its end.
type EndMaintenance struct{}

// Kind names the command on the wire.
func (EndMaintenance) Kind() string { return "end-maintenance" }

func (EndMaintenance) apply(n *next) error {
	if !n.Maintenance.On || n.Now < n.Maintenance.End {
		return ErrStale
	}
	n.endMaintenance()
	return nil
}

// AcceptMaintenance commits that a node is offered maintenance: only then may an acknowledgement tell its guard,
// which from there on may enforce no lease, whatever the leader hears of it (I5). Off: it has heard of the end.
type AcceptMaintenance struct {
	Node     NodeName
	Instance Instance
	Off      bool
}

// Kind names the command on the wire.
func (AcceptMaintenance) Kind() string { return "accept-maintenance" }

func (c AcceptMaintenance) apply(n *next) error {
	was, had := n.Maintenance.Accepted[c.Node]
	switch {
	case n.Nodes[c.Node].Instance != c.Instance || c.Instance == "":
		return fmt.Errorf("node %q lives as another instance: %w", c.Node, ErrStale)
	case c.Off && !had, !c.Off && had && was == c.Instance:
		return ErrStale
	case c.Off == n.Maintenance.On:
		return fmt.Errorf("maintenance is on: %t: %w", n.Maintenance.On, ErrStale)
	}
	accepted := maps.Clone(n.Maintenance.Accepted)
	if accepted == nil {
		accepted = map[NodeName]Instance{}
	}
	if c.Off {
		delete(accepted, c.Node)
	} else {
		accepted[c.Node] = c.Instance
	}
	n.Maintenance.Accepted = accepted
	return nil
}

// leaseless reports whether an instance may be running without a lease for maintenance's sake (I5).
func (s *State) leaseless(node NodeName, instance Instance, now Time) bool {
	accepted, ok := s.Maintenance.Accepted[node]
	return ok && accepted == instance && now < s.Maintenance.Until
}

// Answer closes a request, or says how it stands.
type Answer struct {
	Request uint64
	State   RequestState
	Answer  string
}

// Kind names the command on the wire.
func (Answer) Kind() string { return "answer" }

func (c Answer) apply(n *next) error {
	for _, r := range n.Requests {
		if r.ID != c.Request {
			continue
		}
		if r.State != RequestOpen {
			return ErrStale
		}
		if c.State == RequestOpen {
			r.Answer = c.Answer
		} else {
			r = n.close(r, c.State, c.Answer)
		}
		n.keepRequest(r)
		return nil
	}
	return fmt.Errorf("request %d: %w", c.Request, ErrUnknown)
}

// close ends a request and whatever it had set in motion.
func (n *next) close(r Request, state RequestState, answer string) Request {
	r.State, r.Answer, r.Closed = state, answer, n.Now
	if svc, err := n.service(r.Service); err == nil && svc.Move != nil && svc.Move.Request == r.ID {
		svc.Move = nil
		n.keep(svc)
	}
	n.note(Event{
		Kind: EventRequest, Service: r.Service, Node: r.Node, Request: r.ID,
		Reason: fmt.Sprintf("%s %s: %s", r.Kind, state, answer),
	})
	return r
}
