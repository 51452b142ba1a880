package core

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// testSpec is a cluster of nodes that runs the named services.
func testSpec(nodes string, services ...ServiceName) Spec {
	spec := Spec{
		Cluster: "test", Manager: ManagerKeepone,
		Timing: Timing{
			Heartbeat: 200 * time.Millisecond, Suspect: time.Second, Lease: 3 * time.Second, LeaseMargin: 300 * time.Millisecond,
			Down: 3 * time.Second, RaftElection: 400 * time.Millisecond, OffReadings: 200 * time.Millisecond,
		},
		Fencing: Policy{Require: RequireAny, Proofs: []ProofKind{ProofBMCOff, ProofStorage}},
	}
	for _, name := range strings.Fields(nodes) {
		n := NodeSpec{Name: NodeName(strings.TrimSuffix(name, "+w")), BMC: &BMCSpec{Address: name + "-bmc"}}
		n.Witness = strings.HasSuffix(name, "+w")
		spec.Nodes = append(spec.Nodes, n)
	}
	for _, name := range services {
		spec.Services = append(spec.Services, ServiceSpec{
			Name: name, Volume: VolumeSpec{Pool: "one", Image: string(name)},
			Restart:    RestartSpec{Failures: 3, Window: 5 * time.Minute, Backoff: 2 * time.Second, MaxBackoff: 30 * time.Second},
			StartLimit: 20 * time.Second, StopLimit: 10 * time.Second,
		})
	}
	return spec
}

var policies = map[string]Policy{
	"default":  {Require: RequireAny, Proofs: []ProofKind{ProofBMCOff, ProofStorage}},
	"bmc-only": {Require: RequireAny, Proofs: []ProofKind{ProofBMCOff}},
	"storage":  {Require: RequireAny, Proofs: []ProofKind{ProofStorage}},
	"careful":  {Require: RequireAny, Proofs: []ProofKind{ProofBMCOff}, FenceableOnly: true},
	"both":     {Require: RequireAll, Proofs: []ProofKind{ProofBMCOff, ProofStorage}},
}

// play runs a script and returns its world. Lines: "cluster a b c", "policy NAME", "services one two",
// "manager pacemaker", "prefer one b", "at 20s VERB ...", "run 60s".
func play(script string) (*world, error) {
	spec := testSpec("a b c", "one")
	type act struct {
		at   Time
		args []string
	}
	var acts []act
	var w *world
	for i, line := range strings.Split(script, "\n") {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		bad := func(err error) error { return fmt.Errorf("script line %d %q: %w", i+1, line, err) }
		switch words[0] {
		case "cluster":
			spec.Nodes = testSpec(strings.Join(words[1:], " ")).Nodes
		case "services":
			spec.Services = nil
			for _, name := range words[1:] {
				spec.Services = append(spec.Services, testSpec("", ServiceName(name)).Services...)
			}
		case "manager":
			spec.Manager = Manager(words[1])
		case "policy":
			spec.Fencing = policies[words[1]]
		case "prefer":
			s := spec.Service(ServiceName(words[1]))
			s.Prefer = append(s.Prefer, NodeName(words[2]))
		case "at":
			d, err := time.ParseDuration(words[1])
			if err != nil {
				return nil, bad(err)
			}
			acts = append(acts, act{Time(d), words[2:]})
		case "run":
			d, err := time.ParseDuration(words[1])
			if err != nil {
				return nil, bad(err)
			}
			w = newWorld(spec)
			for _, a := range acts {
				w.run(a.at.Sub(w.now))
				if err := w.act(a.args); err != nil {
					return nil, fmt.Errorf("at %s %s: %w", time.Duration(a.at), strings.Join(a.args, " "), err)
				}
			}
			w.run(Time(d).Sub(w.now))
		default:
			return nil, bad(errors.New("unknown"))
		}
	}
	return w, nil
}

// act does what one script line says.
func (w *world) act(words []string) error {
	if words[0] != "ask" || w.nodes[NodeName(words[1])] == nil {
		w.say("do", strings.Join(words, " "))
	}
	verb, args := words[0], words[1:]
	switch verb {
	case "ask":
		return w.ask(args)
	case "ceph":
		w.ceph = args[0] == "up"
		return nil
	case "configure":
		return w.configure(args)
	case "image":
		n, err := strconv.Atoi(args[1])
		w.images[ServiceName(args[0])].epoch = Epoch(n)
		return err
	case "kill":
		for _, m := range w.nodes {
			if r := m.runs[ServiceName(args[0])]; r != nil && r.up() {
				r.stage = stageDead
			}
		}
		return nil
	}
	m := w.nodes[NodeName(args[0])]
	if m == nil {
		return fmt.Errorf("no node %q", args[0])
	}
	set := map[string]map[ServiceName]bool{"sick": m.sick, "torn": m.torn, "stuck": m.stuck, "dirty": m.dirty}
	if flags := set[verb]; flags != nil {
		flags[ServiceName(args[1])] = args[2] == "on"
		return nil
	}
	switch verb {
	case "claim":
		m.claim(ServiceName(args[1]), Stage(strings.Join(args[2:], "")))
	case "unclaim":
		delete(m.claims, ServiceName(args[1]))
	case "stop":
		m.stopHere(w, ServiceName(args[1]))
	case "lower":
		m.lower(ServiceName(args[1]))
	case "power-cut":
		m.cut()
	case "boot":
		m.boot(w.now)
	case "bmc":
		m.bmc, m.deaf, m.slow = args[1] != "dead", args[1] == "deaf", args[1] == "slow"
	case "cap":
		m.capless = args[1] == "off"
	case "isolate":
		m.links = [2]bool{}
	case "heal":
		m.links = [2]bool{true, true}
	case "link":
		m.links[args[1][0]-'1'] = args[2] == "up"
	case "pause":
		m.paused = m.power
	case "continue":
		m.paused = false
	case "daemon":
		m.daemon = args[1] == "up"
	default:
		return fmt.Errorf("unknown verb %q", verb)
	}
	return nil
}

// configure changes the cluster document: "services one two" or "lease 6s".
func (w *world) configure(args []string) error {
	spec := w.state.Spec
	switch args[0] {
	case "services":
		spec.Services = nil
		for _, name := range args[1:] {
			spec.Services = append(spec.Services, testSpec("", ServiceName(name)).Services...)
			if w.images[ServiceName(name)] == nil {
				w.images[ServiceName(name)] = &image{blocked: map[string]bool{}}
			}
		}
	case "lease":
		d, err := time.ParseDuration(args[1])
		if err != nil {
			return err
		}
		spec.Timing.Lease = d
	default:
		return fmt.Errorf("nothing to configure by %q", args[0])
	}
	if _, err := w.propose(w.nodes[w.leader], Configure{Expect: w.state.Document.Version, Document: w.state.Document, Spec: spec}); err != nil {
		w.say("configure", err.Error())
	}
	return nil
}

// ask is an operator's request: KIND and the names of services and nodes that it is about, and a duration.
func (w *world) ask(args []string) error {
	c := &Ask{What: RequestKind(args[0]), By: "op"}
	for _, word := range args[1:] {
		if d, err := time.ParseDuration(word); err == nil {
			c.For = d
		} else if _, ok := w.images[ServiceName(word)]; ok {
			c.Service = ServiceName(word)
		} else {
			c.Node = NodeName(word)
		}
	}
	if w.leader == "" {
		w.say("ask", strings.Join(args, " ")+": no leader")
		return nil
	}
	if _, err := w.propose(w.nodes[w.leader], c); err != nil {
		w.say("ask", err.Error())
	}
	return nil
}

// end tells how it stands at the end of a story.
func (w *world) end() string {
	var b strings.Builder
	for _, name := range w.state.ServiceNames() {
		svc := w.state.Services[name]
		state := "no grant"
		if g := svc.Grant; g != nil {
			state = fmt.Sprintf("%s on %s at epoch %d", g.Phase, g.Node, g.Epoch)
		}
		if svc.Blocked != "" {
			state += "; blocked: " + svc.Blocked
		}
		fmt.Fprintf(&b, "end: %s %s\n", name, state)
	}
	for _, name := range w.names {
		n := w.state.Nodes[name]
		if n.Life != LifeOnline || n.Standby {
			fmt.Fprintf(&b, "end: %s %s standby=%v (%s)\n", name, n.Life, n.Standby, n.Reason)
		}
	}
	for _, f := range w.state.Fences {
		if f.Open() {
			fmt.Fprintf(&b, "end: fence %d of %s is open, attempt %d: %s\n", f.ID, f.Node, f.Attempt, f.Note)
		}
	}
	for _, r := range w.state.Requests {
		fmt.Fprintf(&b, "end: request %s %s: %s\n", r.Kind, r.State, r.Answer)
	}
	fmt.Fprintf(&b, "end: %d commands decided\n", w.commands)
	return b.String()
}
