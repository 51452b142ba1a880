package whatif

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/keepone-ha/keepone/pkg/core"
)

// TestStories asks each story's question and compares the answer with the one that was read and kept; GOLDEN=write
// writes it anew. Asking must change neither State nor View.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			script, want := archive.Files[0], &archive.Files[1]
			s, v, q := cluster(t, string(script.Data))
			before := freeze(t, s, v)
			a, err := Ask(s, v, s.Now, q)
			got := dump(a)
			if err != nil {
				got = err.Error() + "\n"
			}
			if freeze(t, s, v) != before {
				t.Error("asking has changed what it was asked about")
			}
			if os.Getenv("GOLDEN") == "write" {
				want.Data = []byte(got)
				if err := os.WriteFile(file, txtar.Format(archive), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got != string(want.Data) {
				t.Errorf("got:\n%s", got)
			}
		})
	}
}

func freeze(t *testing.T, s core.State, v core.View) string {
	t.Helper()
	text, err := json.Marshal([]any{s, v})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func dump(a Answer) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	if a.BMC != "" {
		line("bmc: %s", a.BMC)
	}
	line("led by %s after %s", a.Leader, a.Election)
	if a.Halted != "" {
		line("halted: %s", a.Halted)
	}
	for _, s := range a.Steps {
		line("%8.2fs %-9s %s %s%s@%d [%s] %s", s.After.Seconds(), s.Event.Kind, s.Event.Service, s.Event.Node, s.Event.To, s.Event.Epoch, s.Event.Proof, s.Event.Reason)
	}
	line("the lost node is %s after %s", a.Life, a.Ran)
	for _, o := range a.Services {
		line("%s: held %t, on %q running %t by [%s] in %s (starts %d) %+v", o.Service, o.Held, o.Holder, o.Running, o.Proof, o.Phases.Total(), o.Starts, o.Phases)
		if o.Missing != "" {
			line("  missing: %s", o.Missing)
		}
		line("  next %v", o.Next)
		for _, name := range slices.Sorted(maps.Keys(o.Vetoes)) {
			line("  not %s: %s", name, o.Vetoes[name])
		}
	}
	return b.String()
}

// maker builds a cluster by a script's lines.
type maker struct {
	t *testing.T
	s core.State
	v core.View
	q Question
}

func (m *maker) do(c core.Command) {
	m.t.Helper()
	s, err := core.Apply(m.s, core.Entry{At: m.s.Now, By: "a", Command: c})
	if err != nil {
		m.t.Fatal(err)
	}
	m.s = s
}

// cluster reads: "nodes a b w+w", "policy any bmc-off storage", "leads a", "holds front a", "starts front 400ms 200ms 1s"
// (some times), "bmc a WORDS", "cap a WORDS", "standby a", "silent a", "maintenance", "manager pacemaker", "fenceable_only",
// "lose a", "bmc-dead", "only front".
func cluster(t *testing.T, script string) (core.State, core.View, Question) {
	m := &maker{t: t}
	var later [][]string
	spec := core.Spec{
		Cluster: "test", Manager: core.ManagerKeepone,
		Timing: core.Timing{
			Heartbeat: 200 * time.Millisecond, Suspect: time.Second, Lease: 3 * time.Second, LeaseMargin: 300 * time.Millisecond,
			Down: 3 * time.Second, RaftElection: 400 * time.Millisecond, OffReadings: 100 * time.Millisecond,
		},
		Fencing: core.Policy{Require: core.RequireAny, Proofs: []core.ProofKind{core.ProofBMCOff, core.ProofStorage}},
	}
	services := map[string]bool{}
	for _, text := range strings.Split(script, "\n") {
		words := strings.Fields(text)
		if len(words) == 0 {
			continue
		}
		switch words[0] {
		case "nodes":
			for _, name := range words[1:] {
				n := core.NodeSpec{Name: core.NodeName(strings.TrimSuffix(name, "+w")), BMC: &core.BMCSpec{}, Witness: strings.HasSuffix(name, "+w")}
				spec.Nodes = append(spec.Nodes, n)
			}
		case "policy":
			spec.Fencing = core.Policy{Require: core.Require(words[1])}
			for _, kind := range words[2:] {
				spec.Fencing.Proofs = append(spec.Fencing.Proofs, core.ProofKind(kind))
			}
		case "manager":
			spec.Manager = core.Manager(words[1])
		case "fenceable_only":
			spec.Fencing.FenceableOnly = true
		case "holds":
			services[words[1]] = true
			later = append(later, words)
		default:
			later = append(later, words)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(services)) {
		spec.Services = append(spec.Services, core.ServiceSpec{
			Name: core.ServiceName(name), StartLimit: 20 * time.Second, StopLimit: 10 * time.Second,
			Restart: core.RestartSpec{Failures: 3, Window: time.Minute, Backoff: time.Second, MaxBackoff: time.Second},
		})
	}
	m.found(spec)
	for _, words := range later {
		m.line(words)
	}
	return m.s, m.v, m.q
}

// found makes every node a member that is well.
func (m *maker) found(spec core.Spec) {
	m.s.Now = core.Time(time.Minute)
	m.do(core.Init{Cluster: "test", Spec: spec})
	m.v = core.View{Self: spec.Nodes[0].Name, Nodes: map[core.NodeName]core.NodeView{}, Settled: true}
	for _, n := range spec.Nodes {
		id, instance := string(n.Name), core.Instance(n.Name+"1")
		m.do(core.IssueToken{ID: id, Hash: id, Node: n.Name, For: time.Hour})
		m.do(core.Join{Node: n.Name, Incarnation: "1", TokenID: id, TokenHash: id})
		m.do(core.Boot{Node: n.Name, Instance: instance})
		r := &core.Report{Instance: instance, Ready: map[core.ServiceName]core.Ready{}, BMCs: map[core.NodeName]string{}}
		for _, svc := range spec.Services {
			r.Ready[svc.Name] = core.Ready{OK: true, Cuts: true}
		}
		for _, other := range spec.Nodes {
			if other.Name != n.Name {
				r.BMCs[other.Name] = ""
			}
		}
		m.v.Nodes[n.Name] = core.NodeView{Live: core.LiveOnline, Instance: instance, Daemon: true, Report: r}
		m.v.Voters = append(m.v.Voters, n.Name)
	}
}

func (m *maker) line(words []string) {
	m.t.Helper()
	rest := strings.Join(words[min(2, len(words)):], " ")
	switch words[0] {
	case "leads":
		m.v.Self = core.NodeName(words[1])
	case "holds":
		m.hold(core.ServiceName(words[1]), core.NodeName(words[2]))
	case "starts":
		for _, text := range words[2:] {
			d, err := time.ParseDuration(text)
			if err != nil {
				m.t.Fatal(err)
			}
			e := core.Event{Kind: core.EventStarted, Service: core.ServiceName(words[1]), Phases: &core.Phases{Storage: d, Start: d / 2, Probe: d / 4}}
			m.s.History = append(m.s.History, e)
		}
	case "bmc":
		for name, n := range m.v.Nodes {
			if name != core.NodeName(words[1]) {
				n.Report.BMCs[core.NodeName(words[1])] = rest
			}
		}
	case "cap":
		for _, svc := range m.s.Spec.Services {
			m.v.Nodes[core.NodeName(words[1])].Report.Ready[svc.Name] = core.Ready{Reason: rest}
		}
	case "silent":
		n := m.v.Nodes[core.NodeName(words[1])]
		n.Live, n.Daemon, n.Report = core.LiveDown, false, nil
		m.v.Nodes[core.NodeName(words[1])] = n
	case "standby":
		m.do(core.Ask{What: core.RequestDrain, Node: core.NodeName(words[1]), By: "op", Token: "1"})
	case "maintenance":
		m.do(core.Ask{What: core.RequestMaintenance, For: time.Hour, By: "op", Token: "2"})
	case "lose":
		m.q.Lose = core.NodeName(words[1])
	case "bmc-dead":
		m.q.BMCDead = true
	case "only":
		m.q.Service = core.ServiceName(words[1])
	default:
		m.t.Fatalf("unknown line %q", words)
	}
}

func (m *maker) hold(name core.ServiceName, node core.NodeName) {
	instance := core.Instance(node + "1")
	m.do(core.Give{Service: name, Node: node, Instance: instance, Cause: core.CauseStart})
	m.do(core.CommitClient{Service: name, Epoch: 1, Instance: instance, Address: "10.0.0.1:0/1"})
	m.do(core.Started{Service: name, Epoch: 1, Instance: instance, Run: 1})
}

// TestRefusals: a question about what is not there, or is lost already, has no answer.
func TestRefusals(t *testing.T) {
	s, v, _ := cluster(t, "nodes a b c\nholds front a\nsilent c")
	for name, row := range map[string]struct {
		q    Question
		want error
	}{
		"node":    {Question{Lose: "x"}, ErrUnknown},
		"service": {Question{Lose: "a", Service: "x"}, ErrUnknown},
		"silent":  {Question{Lose: "c"}, ErrLost},
	} {
		if _, err := Ask(s, v, s.Now, row.q); !errors.Is(err, row.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	v.Settled = false
	if _, err := Ask(s, v, s.Now, Question{Lose: "a"}); !errors.Is(err, ErrEarly) {
		t.Errorf("a leader of a moment ago: %v", err)
	}
}

func TestMedian(t *testing.T) {
	for _, row := range []struct {
		all  []time.Duration
		want time.Duration
	}{{nil, 0}, {[]time.Duration{5}, 5}, {[]time.Duration{9, 1, 4}, 4}, {[]time.Duration{8, 1, 2, 4}, 3}} {
		if got := median(row.all); got != row.want {
			t.Errorf("median %v = %d, want %d", row.all, got, row.want)
		}
	}
}
