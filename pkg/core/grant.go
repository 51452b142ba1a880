package core

import (
	"fmt"
	"slices"
	"time"
)

// Give gives the grant of a service to a node's instance, at the epoch after Expect.
type Give struct {
	Service  ServiceName
	Node     NodeName
	Instance Instance
	Expect   Epoch
	Cause    Cause
	Stage    Stage
}

// Kind names the command on the wire.
func (Give) Kind() string { return "give" }

// apply refuses until the last holder vacated or was fenced (I1, I3).
func (c Give) apply(n *next) error {
	svc, err := n.service(c.Service)
	node, known := n.Nodes[c.Node]
	switch {
	case err != nil:
		return err
	case svc.Epoch != c.Expect:
		return fmt.Errorf("expected epoch %d, now at %d: %w", c.Expect, svc.Epoch, ErrStale)
	case svc.Grant != nil:
		return ErrHeld // I1: Vacated or Lose ends the old one first
	case n.Maintenance.On:
		return ErrMaintenance
	case !known:
		return fmt.Errorf("node %q: %w", c.Node, ErrUnknown)
	case node.Instance != c.Instance || node.Life == LifeFenced:
		return fmt.Errorf("node %q lives as another instance or is fenced: %w", c.Node, ErrStale)
	case n.openFence(c.Instance) != nil || n.provenOff(c.Instance):
		return fmt.Errorf("node %q is being fenced, or is proven off: %w", c.Node, ErrRefused)
	case !n.Spec.MayHold(c.Node, c.Service):
		return fmt.Errorf("node %q may not hold service %q by the cluster document: %w", c.Node, c.Service, ErrRefused)
	case svc.Stopped:
		return fmt.Errorf("service %q is stopped: %w", c.Service, ErrRefused)
	}
	svc.Epoch++ // I2
	times := svc.From.Times
	times.Granted = n.Now
	svc.Grant = &Grant{
		Node: c.Node, Instance: c.Instance, Epoch: svc.Epoch,
		Phase: PhaseStarting, Run: 1, Cause: c.Cause, Stage: c.Stage, Staged: c.Stage == StagePromoted, Times: times, Since: n.Now,
	}
	svc.Blocked = ""
	n.keep(svc)
	n.note(Event{
		Kind: EventGrant, Service: c.Service, From: svc.From.Node, To: c.Node, Epoch: svc.Epoch,
		Proof: svc.From.Proof, Reason: string(c.Cause),
	})
	return nil
}

// CommitClient binds a storage client's address to the grant before anything is written through it (I6).
type CommitClient struct {
	Service  ServiceName
	Epoch    Epoch
	Instance Instance
	Address  string // IP:0/NONCE
}

// Kind names the command on the wire.
func (CommitClient) Kind() string { return "commit-client" }

func (c CommitClient) apply(n *next) error {
	svc, err := n.heldBy(c.Service, c.Epoch, c.Instance)
	switch {
	case err != nil:
		return err
	case c.Address == "":
		return fmt.Errorf("no address: %w", ErrRefused)
	case n.openFence(c.Instance) != nil || n.cutOff(svc):
		// I6: the fence works from the addresses that it was given; a late one would slip through.
		return fmt.Errorf("node %q is being fenced: %w", svc.Grant.Node, ErrRefused)
	case svc.Grant.Phase != PhaseStarting:
		return fmt.Errorf("the grant is %s, not starting: %w", svc.Grant.Phase, ErrStale)
	}
	if !slices.Contains(svc.Grant.Clients, c.Address) {
		svc.Grant.Clients = append(slices.Clone(svc.Grant.Clients), c.Address)
	}
	svc.Uncut = nil // this client acquired the lock, and cut them off before
	n.keep(svc)
	return nil
}

// cutOff reports whether any proof speaks of the service's grant, accepted or not.
func (s *State) cutOff(svc Service) bool {
	g := svc.Grant
	return slices.ContainsFunc(s.proofs(g.Instance), func(p Proof) bool { return p.covers(g.Instance, svc.Name, g.Epoch) })
}

// clientsCut reports whether the storage clients of the service's grant are proven to be cut off.
func (s *State) clientsCut(svc Service) bool {
	g := svc.Grant
	return slices.ContainsFunc(s.proofs(g.Instance), func(p Proof) bool {
		return p.Kind == ProofStorage && p.covers(g.Instance, svc.Name, g.Epoch)
	})
}

// Started says that the service answers its probes on its holder.
type Started struct {
	Service  ServiceName
	Epoch    Epoch
	Instance Instance
	Run      int
	Storage  time.Duration // grant seen to mounted
	Start    time.Duration // mounted to the container running
	Probe    time.Duration // running to answering
}

// Kind names the command on the wire.
func (Started) Kind() string { return "started" }

func (c Started) apply(n *next) error {
	svc, err := n.heldBy(c.Service, c.Epoch, c.Instance)
	if err != nil {
		return err
	}
	g := svc.Grant
	if g.Run != c.Run || g.Phase != PhaseStarting {
		return fmt.Errorf("run %d is %s: %w", g.Run, g.Phase, ErrStale)
	}
	g.Phase, g.Since = PhaseRunning, n.Now
	svc.LastHolder = g.Node
	event := Event{
		Kind: EventStarted, Service: c.Service, Node: g.Node, Epoch: c.Epoch,
		Reason: fmt.Sprintf("answers on %s", g.Node),
		Phases: &Phases{Storage: c.Storage, Start: c.Start, Probe: c.Probe},
	}
	if !g.Ran {
		event = n.arrival(svc, event)
	}
	g.Ran = true
	n.keep(svc)
	n.note(event)
	return nil
}

// arrival tells the whole of a failover or switchover in one event.
func (n *next) arrival(svc Service, e Event) Event {
	g := svc.Grant
	t := g.Times
	e.From, e.To, e.Proof = svc.From.Node, g.Node, svc.From.Proof
	switch g.Cause {
	case CauseFailover:
		e.Kind = EventFailover
		e.Reason = fmt.Sprintf("%s was fenced; answers on %s", svc.From.Node, g.Node)
		if svc.From.Proof == ProofRebooted {
			e.Reason = fmt.Sprintf("%s has rebooted; answers on %s", svc.From.Node, g.Node)
		}
		e.Phases.Detect = span(t.Heard, t.Ordered)
		e.Phases.Fence = span(t.Ordered, t.Proven)
		e.Phases.Decide = span(t.Proven, t.Granted)
		e.Phases.Storage += span(t.Granted, t.Raised) // of a staged grant: promoted, and mounted by the cluster manager
	case CauseSwitchover, CauseRelocate:
		e.Kind = EventSwitchover
		e.Reason = fmt.Sprintf("%s: answers on %s", g.Cause, g.Node)
		e.Phases.Stop = span(t.Released, t.Vacated)
		e.Phases.Decide = span(t.Vacated, t.Granted)
		e.Phases.Storage += span(t.Granted, t.Raised)
	case CauseStart: // nobody waited while it was promoted
		e.Phases.Storage += span(t.Granted, t.Promoted)
	}
	return e
}

// span is the time from a to b, zero if either was not passed.
func span(a, b Time) time.Duration {
	if a == 0 || b < a {
		return 0
	}
	return b.Sub(a)
}

// RunFailed says that a run of the service ended or never answered, while its holder lives.
type RunFailed struct {
	Service  ServiceName
	Epoch    Epoch
	Instance Instance
	Run      int
	Reason   string
}

// Kind names the command on the wire.
func (RunFailed) Kind() string { return "run-failed" }

func (c RunFailed) apply(n *next) error {
	svc, err := n.heldBy(c.Service, c.Epoch, c.Instance)
	if err != nil {
		return err
	}
	g := svc.Grant
	if g.Run != c.Run || (g.Phase != PhaseStarting && g.Phase != PhaseRunning) {
		return fmt.Errorf("run %d is %s: %w", g.Run, g.Phase, ErrStale)
	}
	g.Phase, g.Since = PhaseFailed, n.Now
	svc = n.failed(svc, g.Node, c.Reason)
	n.keep(svc)
	return nil
}

// failed counts a failure against a node and sets the back-off before the next try.
func (n *next) failed(svc Service, node NodeName, reason string) Service {
	spec := n.Spec.Service(svc.Name)
	if spec == nil {
		return svc
	}
	restart := spec.Restart
	svc.Failures = append(recent(svc.Failures, n.Now, restart.Window), Failure{At: n.Now, Node: node, Reason: reason})
	svc.Failures = svc.Failures[max(0, len(svc.Failures)-keepFailures):]
	svc.NotBefore = n.Now.Add(restart.backoff(len(svc.Failures)))
	n.note(Event{Kind: EventFailed, Service: svc.Name, Node: node, Epoch: svc.Epoch, Reason: reason})
	return svc
}

// recent returns the failures within the window that ends now.
func recent(all []Failure, now Time, window time.Duration) []Failure {
	var kept []Failure
	for _, f := range all {
		if now.Sub(f.At) < window {
			kept = append(kept, f)
		}
	}
	return kept
}

// backoff before the next try after this many failures: none, then Backoff, doubling up to MaxBackoff.
func (r RestartSpec) backoff(failures int) time.Duration {
	if failures <= 1 {
		return 0
	}
	wait := r.Backoff
	for range failures - 2 {
		if wait *= 2; wait >= r.MaxBackoff {
			return r.MaxBackoff
		}
	}
	return min(wait, r.MaxBackoff)
}

// Restart orders the next run in place, under the same grant.
type Restart struct {
	Service ServiceName
	Epoch   Epoch
	Run     int // the run that it replaces
	Reason  string
}

// Kind names the command on the wire.
func (Restart) Kind() string { return "restart" }

func (c Restart) apply(n *next) error {
	svc, err := n.held(c.Service, c.Epoch)
	if err != nil {
		return err
	}
	g := svc.Grant
	if g.Run != c.Run || (g.Phase != PhaseFailed && g.Phase != PhaseRunning) {
		return fmt.Errorf("run %d is %s: %w", g.Run, g.Phase, ErrStale)
	}
	g.Run++
	g.Phase, g.Since = PhaseStarting, n.Now
	n.keep(svc)
	n.note(Event{Kind: EventRestart, Service: c.Service, Node: g.Node, Epoch: c.Epoch, Reason: c.Reason})
	return nil
}

// Block says why nothing can be granted now; empty: it can.
type Block struct {
	Service ServiceName
	Reason  string
}

// Kind names the command on the wire.
func (Block) Kind() string { return "block" }

func (c Block) apply(n *next) error {
	svc, err := n.service(c.Service)
	if err != nil {
		return err
	}
	svc.Blocked = c.Reason
	n.keep(svc)
	if c.Reason != "" {
		n.note(Event{Kind: EventBlocked, Service: c.Service, Reason: c.Reason})
	}
	return nil
}

// maxEpoch is far above what a grant a millisecond reaches in a century, and far below the end of Epoch.
const maxEpoch Epoch = 1 << 48

// RaiseEpoch lifts a service's epoch to the one that its image carries, after a restore (I2).
type RaiseEpoch struct {
	Service ServiceName
	Epoch   Epoch
}

// Kind names the command on the wire.
func (RaiseEpoch) Kind() string { return "raise-epoch" }

func (c RaiseEpoch) apply(n *next) error {
	svc, err := n.service(c.Service)
	switch {
	case err != nil:
		return err
	case svc.Grant != nil:
		return ErrHeld
	case c.Epoch <= svc.Epoch:
		return ErrStale
	case c.Epoch > maxEpoch:
		return fmt.Errorf("the image carries epoch %d, which no cluster can have reached: %w", c.Epoch, ErrRefused) // I2: it must not wrap
	}
	svc.Epoch = c.Epoch
	n.keep(svc)
	n.note(Event{
		Kind: EventConfig, Service: c.Service, Epoch: c.Epoch,
		Reason: fmt.Sprintf("the image carries epoch %d: grants go on above it", c.Epoch),
	})
	return nil
}
