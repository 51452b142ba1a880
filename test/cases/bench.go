package cases

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"

	"github.com/keepone-ha/keepone/pkg/version"
	"github.com/keepone-ha/keepone/test/lab"
)

func init() {
	lab.Handle(lab.Command{Name: "bench", Help: "bench [-json file] [-case name] [-runs 10] [-baseline 3]: measure", Outside: bench})
	lab.Handle(lab.Command{Name: "bench-room", Help: "bench-room NAME RUNS FILE: one case in its room (used by bench)", Inside: benchRoom})
}

// mark is what a measurement should stay below; zero: no mark.
type mark struct {
	Median float64 `json:"median"`
	Max    float64 `json:"max"`
}

// measured is one case in build/bench.json.
type measured struct {
	Name           string             `json:"name"`
	Unit           string             `json:"unit"`
	Runs           int                `json:"runs"`
	Min            float64            `json:"min"`
	Median         float64            `json:"median"`
	Max            float64            `json:"max"`
	Phases         map[string]float64 `json:"phases,omitempty"`   // medians
	Baseline       string             `json:"baseline,omitempty"` // in words: what it is, and whether it never ended
	BaselineRuns   int                `json:"baseline_runs"`
	BaselineMedian *float64           `json:"baseline_median"`
	Ratio          *float64           `json:"ratio"`
	Mark           mark               `json:"mark"`
	RatioMark      float64            `json:"ratio_mark"`
	Met            bool               `json:"met"`
	Note           string             `json:"note,omitempty"`
}

// benchFile is build/bench.json.
type benchFile struct {
	Schema int        `json:"schema"`
	Commit string     `json:"commit"`
	Cores  int        `json:"cores"`
	Ceph   string     `json:"ceph"`
	Cases  []measured `json:"cases"`
}

// sample is one run: a figure, and what it is made of.
type sample struct {
	Value  float64
	Phases map[string]float64
}

// benchCase measures something again and again on one cluster.
type benchCase struct {
	name       string
	unit       string
	nodes      int
	opts       lab.Options
	mark       mark
	ratioMark  float64 // the baseline is to be this many times as much at least; 0: no mark
	runs       int     // 0: as asked
	run        func(ctx context.Context, c *cluster) (sample, error)
	managed    *managedKind                                          // set: measured on a cluster under Pacemaker, by runManaged
	runManaged func(ctx context.Context, m *managed) (sample, error) // instead of run
	stock      func(ctx context.Context, s *stock) (sample, error)   // the same of the stock stack; nil: it has no such thing
	stockTotem string                                                // of the stock stack's corosync; "": Debian's
	views      []view
}

// view is one more line of the same runs.
type view struct {
	name      string
	unit      string  // "": the case's
	phase     string  // "": the whole
	stockOf   string  // set: against the baseline of this case, which stands before it in the file
	ratioMark float64 // as benchCase has it
}

// lines are the case's own and its views.
func (b benchCase) lines() []view {
	return append([]view{{name: b.name, ratioMark: b.ratioMark}}, b.views...)
}

var benches = append([]benchCase{
	{name: "powercut-3", unit: "s", nodes: 3, mark: mark{2.5, 5}, run: lose(powerCut), stock: stockLose(powerCut)},
	{name: "powercut-5", unit: "s", nodes: 5, mark: mark{2.5, 5}, run: lose(powerCut), stock: stockLose(powerCut)},
	{name: "powercut-leader-is-holder", unit: "s", nodes: 3, mark: mark{3.5, 7}, run: loseLeadingHolder},
	{name: "hang", unit: "s", nodes: 3, mark: mark{5, 10}, run: lose(hang), stock: stockLose(hang)},
	{name: "bmc-dead", unit: "s", nodes: 3, mark: mark{6, 12}, run: lose(cutWithBMC), stock: stockLose(cutWithBMC)},
	{name: "switchover", unit: "s", nodes: 3, mark: mark{1.5, 3}, run: measureSwitchover, stock: stockSwitchover},
	{name: "daemon-kill", unit: "s", nodes: 3, run: measureDaemonKill},
	{name: "ceph-daemon-lost", unit: "s", nodes: 3, opts: lab.Options{CephSpread: true}, run: lose(powerCut)},
	{name: "default-paxos", unit: "s", nodes: 3, opts: lab.Options{DefaultPaxos: true}, run: lose(powerCut)},
	{name: "idle-cpu-daemon", unit: "% of a core", nodes: 3, mark: mark{1, 1}, runs: 1, run: idle("keeponed", cpuShare)},
	{name: "idle-cpu-guard", unit: "% of a core", nodes: 3, mark: mark{1, 1}, runs: 1, run: idle("keepone-guard", cpuShare)},
	{name: "idle-rss-daemon", unit: "MB", nodes: 3, mark: mark{80, 80}, runs: 1, run: idle("keeponed", residentMB)},
	{name: "idle-rss-guard", unit: "MB", nodes: 3, mark: mark{8, 8}, runs: 1, run: idle("keepone-guard", residentMB)},
}, managedBenches...)

func bench(ctx context.Context, host *lab.Host, args []string) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(host.Stdio.Err)
	to := flags.String("json", "", "write the figures to this file")
	name := flags.String("case", "", "measure this case alone")
	runs := flags.Int("runs", 10, "runs of each case")
	stockRuns := flags.Int("baseline", 3, "runs of the stock stack in each case that it can do; 0: none")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%w: %w", lab.ErrUsage, err)
	}
	file := benchFile{Schema: 1, Commit: version.Commit, Cores: runtime.NumCPU()}
	if *name != "" {
		file = readBench(*to, file) // one case measured again keeps the others
	}
	var errs []error
	for _, b := range benches {
		if *name != "" && *name != b.name {
			continue
		}
		ours, err := measureCase(ctx, host, b, *runs)
		if err != nil {
			fmt.Fprintf(host.Stdio.Out, "%-26s FAILED: %v\n", b.name, err)
			errs = append(errs, fmt.Errorf("%s: %w", b.name, err))
			continue
		}
		stock, err := measureStock(ctx, host, b, *stockRuns)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: baseline: %w", b.name, err)) // keepone's own figure stands
		}
		for _, line := range b.lines() {
			m := b.sum(line, ours.Samples)
			file.against(&m, line, stock)
			fmt.Fprintln(host.Stdio.Out, m)
			file.put(m)
		}
		file.Ceph = ours.Ceph
	}
	if len(file.Cases) == 0 && len(errs) == 0 {
		return fmt.Errorf("%w: no bench case is named %q", lab.ErrUsage, *name)
	}
	if *to != "" {
		errs = append(errs, file.write(*to))
	}
	return errors.Join(errs...)
}

func readBench(path string, fresh benchFile) benchFile {
	old := fresh
	if text, err := os.ReadFile(path); err == nil && json.Unmarshal(text, &old) == nil {
		old.Commit, old.Cores = fresh.Commit, fresh.Cores
		return old
	}
	return fresh
}

func (f *benchFile) put(m measured) {
	for i := range f.Cases {
		if f.Cases[i].Name == m.Name {
			f.Cases[i] = m
			return
		}
	}
	f.Cases = append(f.Cases, m)
}

func (f *benchFile) write(path string) error {
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fmt.Errorf("encode figures: %w", err)
	}
	if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write figures: %w", err)
	}
	return nil
}

// String is one line for a person.
func (m measured) String() string {
	line := fmt.Sprintf("%-26s median %7.2f %s  min %.2f  max %.2f  runs %d", m.Name, m.Median, m.Unit, m.Min, m.Max, m.Runs)
	switch {
	case m.Mark == mark{}:
	case m.Met:
		line += fmt.Sprintf("  mark %.1f met", m.Mark.Median)
	default:
		line += fmt.Sprintf("  MARK %.1f MISSED", m.Mark.Median)
	}
	for _, phase := range []string{"detect", "fence", "decide", "stop", "storage", "start", "probe"} {
		if v, ok := m.Phases[phase]; ok {
			line += fmt.Sprintf("  %s %.2f", phase, v)
		}
	}
	return line + m.against()
}

// figures are what a room of bench measured.
type figures struct {
	Samples []sample
	Ceph    string // mon settings in words
}

// measureCase runs one case in a room of its own.
func measureCase(ctx context.Context, host *lab.Host, b benchCase, runs int) (figures, error) {
	if b.runs > 0 {
		runs = b.runs
	}
	var f figures
	text, err := inOwnRoom(ctx, host, "bench-room", b.name, runs)
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(text, &f); err != nil {
		return f, fmt.Errorf("read figures: %w", err)
	}
	return f, nil
}

func benchRoom(ctx context.Context, room *lab.Room, args []string) error {
	b, runs, l, err := benchLab(ctx, room, args)
	if err != nil {
		return err
	}
	defer func() { _ = l.Down(context.WithoutCancel(ctx)) }()
	run, recover, err := b.begin(ctx, l)
	if err != nil {
		return err
	}
	f := figures{Ceph: l.CephWords()}
	for i := range runs {
		s, err := run(ctx)
		if err != nil {
			return fmt.Errorf("run %d: %w", i+1, err)
		}
		l.Logf("run %d: %.2f %s %v", i+1, s.Value, b.unit, s.Phases)
		f.Samples = append(f.Samples, s)
		if i+1 == runs {
			break
		}
		if err := recover(ctx); err != nil {
			return fmt.Errorf("after run %d: %w", i+1, err)
		}
	}
	text, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("encode figures: %w", err)
	}
	return os.WriteFile(args[2], text, 0o644)
}

// begin forms the case's cluster, and gives what measures it once and what makes it whole again.
func (b benchCase) begin(ctx context.Context, l *lab.Lab) (run func(context.Context) (sample, error), recover func(context.Context) error, err error) {
	if b.managed != nil {
		m, err := formManaged(ctx, l, *b.managed)
		return func(ctx context.Context) (sample, error) { return b.runManaged(ctx, m) },
			func(ctx context.Context) error { return m.recover(ctx) }, err
	}
	c, err := form(ctx, l)
	return func(ctx context.Context) (sample, error) { return b.run(ctx, c) },
		func(ctx context.Context) error { return c.recover(ctx) }, err
}

// sum makes one line of the samples.
func (b benchCase) sum(line view, samples []sample) measured {
	m := measured{Name: line.name, Unit: cmp.Or(line.unit, b.unit), Runs: len(samples), RatioMark: line.ratioMark}
	values := of(samples, line.phase)
	m.Min, m.Median, m.Max = slices.Min(values), median(values), slices.Max(values)
	if line.name == b.name {
		m.Mark = b.mark
		m.Phases = map[string]float64{}
		for name := range samples[0].Phases {
			m.Phases[name] = median(of(samples, name))
		}
	}
	m.judge()
	return m
}

// of are the figures of the samples, or of one phase of theirs.
func of(samples []sample, phase string) []float64 {
	var values []float64
	for _, s := range samples {
		if v, ok := s.Phases[phase]; phase != "" && ok {
			values = append(values, v)
		} else if phase == "" {
			values = append(values, s.Value)
		}
	}
	return values
}

// judge holds the line against its marks. That of the ratio needs a baseline that was measured.
func (m *measured) judge() {
	m.Met = m.Mark == mark{} || (m.Median <= m.Mark.Median && m.Max <= m.Mark.Max)
	if m.RatioMark > 0 && m.Ratio != nil && *m.Ratio < m.RatioMark {
		m.Met = false
	}
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}

// recover brings every node and BMC back, for the next run.
func (c *cluster) recover(ctx context.Context) error {
	for _, n := range c.Nodes() {
		if err := errors.Join(n.BMC().Heal(ctx), n.Heal(ctx)); err != nil {
			return err
		}
		if !n.IsUp() {
			if err := n.PowerOn(ctx); err != nil {
				return err
			}
		}
	}
	if err := c.awaitOnline(ctx, formLimit); err != nil {
		return err
	}
	if err := errors.Join(c.awaitRunning(ctx, formLimit), c.awaitCandidates(ctx, formLimit)); err != nil {
		return err
	}
	return c.awaitSettled(ctx)
}

// awaitSettled waits until leadership has left the holder, and the others can take over.
func (c *cluster) awaitSettled(ctx context.Context) error {
	return await(ctx, formLimit, "leader apart from holder", func() error {
		s, err := c.status(ctx, c.anyUp())
		if err != nil {
			return err
		}
		for _, svc := range s.Services {
			if svc.Holder == s.Leader {
				return fmt.Errorf("%s leads and holds", s.Leader)
			}
		}
		return nil
	})
}
