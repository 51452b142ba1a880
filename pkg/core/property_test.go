package core

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// clusters are the shapes that the property runs over.
var clusters = []struct {
	nodes    string
	services []ServiceName
	policy   string
}{
	{"a b c", []ServiceName{"one"}, "default"},
	{"a b c", []ServiceName{"one", "two"}, "default"},
	{"a b w+w", []ServiceName{"one"}, "default"},
	{"a b c", []ServiceName{"one", "two"}, "bmc-only"},
	{"a b c", []ServiceName{"one"}, "storage"},
	{"a b c d e", []ServiceName{"one", "two", "three"}, "default"},
	{"a b c", []ServiceName{"one", "two"}, "both"},
}

// TestAnyFaults lets faults and requests strike in any order. Whatever happens, no guarantee may break; once all
// is healed, every service that nobody stopped must answer within a bound, and every request be closed.
func TestAnyFaults(t *testing.T) { anyFaults(t, ManagerKeepone) }

// TestAnyFaultsManaged is the same under a cluster manager, which claims, gives up, stops and moves as it likes. Once all
// is healed, it orders as one that is in its senses.
func TestAnyFaultsManaged(t *testing.T) { anyFaults(t, ManagerPacemaker) }

func anyFaults(t *testing.T, by Manager) {
	t.Helper()
	rapid.Check(t, func(t *rapid.T) {
		shape := rapid.SampledFrom(clusters).Draw(t, "cluster")
		spec := testSpec(shape.nodes, shape.services...)
		spec.Fencing, spec.Manager = policies[shape.policy], by
		w := newWorld(spec)
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		w.jitter = func(d time.Duration) time.Duration { return d/2 + time.Duration(rng.Int64N(int64(d))) }
		w.run(5 * time.Second)
		for range rapid.IntRange(1, 25).Draw(t, "acts") {
			w.strike(t)
			w.run(time.Duration(rapid.SampledFrom([]int{50, 200, 700, 1500, 4000, 12000}).Draw(t, "wait")) * time.Millisecond)
			w.sound(t)
		}
		w.healAll()
		if by == ManagerPacemaker {
			w.manager = newManager()
			for _, name := range w.state.ServiceNames() {
				w.manager.staged[name] = rapid.Bool().Draw(t, "staged")
			}
		}
		for range 48 {
			w.run(5 * time.Second)
			if w.hanging() == "" {
				break
			}
		}
		w.sound(t)
		if hangs := w.hanging(); hangs != "" {
			t.Fatalf("all is healed, but %s\n%s\n%s", hangs, strings.Join(w.lines, "\n"), w.end())
		}
	})
}

func (w *world) sound(t *rapid.T) {
	if len(w.broken) > 0 {
		t.Fatalf("%s\n%s\n%s", strings.Join(w.broken, "\n"), strings.Join(w.lines, "\n"), w.end())
	}
}

// strike does one random thing.
func (w *world) strike(t *rapid.T) {
	node := string(rapid.SampledFrom(w.names).Draw(t, "node"))
	service := string(rapid.SampledFrom(w.state.ServiceNames()).Draw(t, "service"))
	on := rapid.SampledFrom([]string{"on", "off"}).Draw(t, "on")
	lines := []string{
		"power-cut " + node, "boot " + node, "isolate " + node, "heal " + node, "pause " + node, "continue " + node,
		"link " + node + " 1 down", "daemon " + node + " down", "daemon " + node + " up", "bmc " + node + " dead", "bmc " + node + " alive",
		"ceph down", "ceph up", "kill " + service, "sick " + node + " " + service + " " + on, "torn " + node + " " + service + " " + on,
		"stuck " + node + " " + service + " " + on, "dirty " + node + " " + service + " " + on,
		"ask switchover " + service, "ask switchover " + service + " " + node, "ask failover " + service, "ask drain " + node,
		"ask undrain " + node, "ask fence " + node, "ask stop " + service, "ask start " + service, "ask restart " + service,
		fmt.Sprintf("ask maintenance-on %ds", rapid.IntRange(5, 60).Draw(t, "for")), "ask maintenance-off", "ask fence-confirm " + node,
	}
	if w.state.managed() {
		claim := []string{"claim " + node + " " + service, "claim " + node + " " + service + " promoted"}
		stop := []string{"unclaim " + node + " " + service, "lower " + node + " " + service, "stop " + node + " " + service}
		lines = slices.Concat(lines, claim, claim, claim, claim, stop, stop)
	}
	line := rapid.SampledFrom(lines).Draw(t, "line")
	if strings.HasPrefix(line, "ask fence-confirm") && w.nodes[NodeName(node)].power {
		return // an operator who vouches for what is not so breaks every promise
	}
	if err := w.act(strings.Fields(line)); err != nil {
		t.Fatal(err)
	}
}

// healAll mends everything, and starts and undrains what operators had put aside.
func (w *world) healAll() {
	w.ceph = true
	for _, name := range w.names {
		m := w.nodes[name]
		m.links, m.bmc, m.paused, m.daemon = [2]bool{true, true}, true, false, true
		m.boot(w.now)
		clear(m.sick)
		clear(m.torn)
		clear(m.stuck)
		clear(m.dirty)
	}
	w.run(70 * time.Second) // maintenance ends by itself
	for _, name := range w.names {
		if w.state.Nodes[name].Standby {
			must(w.ask([]string{"undrain", string(name)}))
		}
		if n := w.nodes[name]; !n.power {
			n.boot(w.now)
		}
	}
	for _, name := range w.state.ServiceNames() {
		if w.state.Services[name].Stopped {
			must(w.ask([]string{"start", string(name)}))
		}
	}
}

// hanging says what is not settled yet.
func (w *world) hanging() string {
	for _, name := range w.state.ServiceNames() {
		if g := w.state.Services[name].Grant; g == nil || g.Phase != PhaseRunning || !w.serves[name] {
			return string(name) + " does not answer"
		}
	}
	for _, r := range w.state.Requests {
		if r.State == RequestOpen {
			return fmt.Sprintf("request %d %s never closes", r.ID, r.Kind)
		}
	}
	for _, f := range w.state.Fences {
		if f.Open() {
			return fmt.Sprintf("fence %d never closes", f.ID)
		}
	}
	if w.commands > 3000 {
		return fmt.Sprintf("there was a storm of %d commands", w.commands)
	}
	return ""
}
