package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

// Plan is what happens to a cluster: episodes, each after a calm, each healed at its end.
type Plan struct {
	Shape    Shape
	Episodes []Episode
}

// Episode is some faults, alone or mixed, after a calm.
type Episode struct {
	Calm time.Duration
	Acts []Act
}

// Act is one fault. Where says the node: its name, "holder" or "leader", as they are then.
type Act struct {
	At    time.Duration // since the episode began
	Kind  string
	Where string
	For   time.Duration // until it is mended, where it can be
	Much  int           // 1 to 100, how bad it is
}

const (
	episodes = 10
	strikes  = 12 * time.Second // faults begin within this
)

// Draw makes the plan of a seed.
func Draw(seed uint64) Plan {
	rng := rand.New(rand.NewPCG(seed, 1))
	sizes := []int{3, 3, 3, 3, 3, 4, 5, 5, 7, 9, 15}
	names := []string{"default", "default", "default", "bmc", "storage", "both"}
	shape := Shape{
		Seed: seed, Nodes: sizes[rng.IntN(len(sizes))], Services: 1 + rng.IntN(5)/3,
		Policy: names[rng.IntN(len(names))], Converged: rng.IntN(3) == 0,
	}
	shape.Witness, shape.Watchdog = rng.IntN(6) == 0, seed%4 == 1
	if shape.Manager = core.ManagerKeepone; seed%3 == 2 {
		shape.Manager, shape.One, shape.OwnRing = core.ManagerPacemaker, rng.IntN(4) == 0, rng.IntN(2) == 0
	}
	p := Plan{Shape: shape}
	for range episodes {
		p.Episodes = append(p.Episodes, drawEpisode(rng, shape))
	}
	return p
}

// themes are faults that hurt together, and that chance alone would seldom bring together. They begin before a holder
// is lost, and outlast it.
var themes = [][]string{
	{"osdmaps-late", "ceph-slow"},
	{"osdmaps-late", "ceph-slow", "bmc-lies"},
	{"osdmaps-late", "bmc-lies", "cut-off"},
	{"bmc-dead", "ceph-slow"},
	{"bmc-answer-lost", "bmc-lags"},
	{"watcher-lingers", "mons-stall"},
	{"ask-maintenance", "cut-off"},
}

func drawTheme(rng *rand.Rand, shape Shape) (acts []Act) {
	for _, name := range themes[rng.IntN(len(themes))] {
		a := drawAct(rng, shape, kindOf(name))
		a.At, a.For, a.Where, a.Much = a.At/20, 30*time.Second, "holder", 50+a.Much/2
		acts = append(acts, a)
	}
	return acts
}

func drawEpisode(rng *rand.Rand, shape Shape) Episode {
	e := Episode{Calm: time.Duration(300+rng.IntN(1800)) * time.Second}
	count := []int{0, 0, 0, 1, 1, 2, 3, 5}[rng.IntN(8)]
	for range count {
		e.Acts = append(e.Acts, drawAct(rng, shape, unmanaged[rng.IntN(len(unmanaged))]))
	}
	if count == 0 && rng.IntN(3) == 0 {
		e.Acts = append(e.Acts, drawAct(rng, shape, unmanaged[rng.IntN(len(unmanaged))])) // each kind alone, too
	} else {
		lost := drawAct(rng, shape, kindOf(losing[rng.IntN(len(losing))]))
		lost.Where = "holder"
		e.Acts = append(e.Acts, lost)
		if rng.IntN(4) == 0 {
			e.Acts = append(e.Acts, drawTheme(rng, shape)...)
		}
	}
	if shape.Manager == core.ManagerPacemaker && rng.IntN(3) > 0 {
		for range 1 + rng.IntN(2) {
			a := drawAct(rng, shape, managedKinds[rng.IntN(len(managedKinds))])
			if rng.IntN(3) == 0 {
				a = drawAct(rng, shape, kindOf(managedLosing[rng.IntN(len(managedLosing))]))
				a.Where = []string{"holder", "dc"}[rng.IntN(2)]
			}
			e.Acts = append(e.Acts, a)
		}
	}
	if shape.Watchdog && rng.IntN(2) == 0 {
		a := drawAct(rng, shape, kindOf("guard-hangs"))
		a.For *= 2
		e.Acts = append(e.Acts, a)
	}
	slices.SortFunc(e.Acts, func(a, b Act) int { return int(a.At - b.At) })
	return e
}

func drawAct(rng *rand.Rand, shape Shape, k kind) Act {
	a := Act{
		At: time.Duration(rng.Int64N(int64(strikes))).Truncate(time.Millisecond), Kind: k.name, Much: 1 + rng.IntN(100),
		For: time.Duration(200+rng.IntN(20000)) * time.Millisecond,
	}
	switch rng.IntN(4) {
	case 0, 1:
		a.Where = "holder"
	case 2:
		a.Where = "leader"
	default:
		a.Where = fmt.Sprintf("n%d", 1+rng.IntN(shape.Nodes))
	}
	return a
}

// String writes the plan as a story's script.
func (p Plan) String() string {
	var b strings.Builder
	s := p.Shape
	fmt.Fprintf(&b, "seed %d\nnodes %d\nservices %d\npolicy %s\n", s.Seed, s.Nodes, s.Services, s.Policy)
	if s.Witness {
		b.WriteString("witness\n")
	}
	if s.Converged {
		b.WriteString("converged\n")
	}
	if s.Manager == core.ManagerPacemaker {
		b.WriteString("pacemaker\n")
	}
	if s.One {
		b.WriteString("one\n")
	}
	if s.OwnRing {
		b.WriteString("own-ring\n")
	}
	if s.Watchdog {
		b.WriteString("watchdog\n")
	}
	for _, e := range p.Episodes {
		fmt.Fprintf(&b, "calm %s\n", e.Calm)
		for _, a := range e.Acts {
			fmt.Fprintf(&b, "at %s %s %s for %s much %d\n", a.At, a.Kind, a.Where, a.For, a.Much)
		}
	}
	return b.String()
}

// Parse reads what String wrote.
func Parse(script string) (Plan, error) {
	p := Plan{Shape: Shape{Manager: core.ManagerKeepone}}
	for i, line := range strings.Split(script, "\n") {
		if err := p.parseLine(strings.Fields(line)); err != nil {
			return p, fmt.Errorf("line %d %q: %w", i+1, line, err)
		}
	}
	return p, nil
}

func (p *Plan) parseLine(words []string) (err error) {
	if len(words) == 0 {
		return nil
	}
	number := func(n *int) { *n, err = strconv.Atoi(words[1]) }
	switch s := &p.Shape; {
	case words[0] == "witness":
		s.Witness = true
	case words[0] == "converged":
		s.Converged = true
	case words[0] == "pacemaker":
		s.Manager = core.ManagerPacemaker
	case words[0] == "one":
		s.One = true
	case words[0] == "own-ring":
		s.OwnRing = true
	case words[0] == "watchdog":
		s.Watchdog = true
	case len(words) < 2:
		return fmt.Errorf("what?")
	case words[0] == "seed":
		s.Seed, err = strconv.ParseUint(words[1], 10, 64)
	case words[0] == "nodes":
		number(&s.Nodes)
	case words[0] == "services":
		number(&s.Services)
	case words[0] == "policy":
		s.Policy = words[1]
	case words[0] == "calm":
		var e Episode
		e.Calm, err = time.ParseDuration(words[1])
		p.Episodes = append(p.Episodes, e)
	case words[0] == "at" && len(words) == 8 && len(p.Episodes) > 0:
		var a Act
		a, err = parseAct(words)
		e := &p.Episodes[len(p.Episodes)-1]
		e.Acts = append(e.Acts, a)
	default:
		return fmt.Errorf("what?")
	}
	return err
}

func parseAct(words []string) (Act, error) {
	a := Act{Kind: words[2], Where: words[3]}
	var err error
	if a.At, err = time.ParseDuration(words[1]); err != nil {
		return a, err
	}
	if a.For, err = time.ParseDuration(words[5]); err != nil {
		return a, err
	}
	if a.Much, err = strconv.Atoi(words[7]); err == nil && kindOf(a.Kind).begin == nil {
		err = fmt.Errorf("no fault of kind %q", a.Kind)
	}
	return a, err
}
