package cases

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/keepone-ha/keepone/test/lab"
)

func init() {
	lab.Handle(lab.Command{Name: "baseline-room", Help: "baseline-room NAME RUNS FILE: one case of the stock stack in its room (used by bench)", Inside: baselineRoom})
}

// baseline is what the stock stack showed in one case.
type baseline struct {
	Samples []sample
	Never   bool   // a run did not end within stockBound; no other was tried
	Words   string // what the stack is, and its timing
}

// measureStock measures the stock stack in a room of its own. No samples and not never: it was not asked.
func measureStock(ctx context.Context, host *lab.Host, b benchCase, runs int) (baseline, error) {
	var stock baseline
	if b.stock == nil || runs <= 0 {
		return stock, nil
	}
	text, err := inOwnRoom(ctx, host, "baseline-room", b.name, runs)
	if err != nil {
		return stock, err
	}
	if err := json.Unmarshal(text, &stock); err != nil {
		return stock, fmt.Errorf("read baseline: %w", err)
	}
	return stock, nil
}

// against sets a line against its baseline: the case's own, or another case's, as the file has it.
func (f *benchFile) against(m *measured, line view, stock baseline) {
	if line.stockOf == "" {
		m.compare(line.phase, stock)
		return
	}
	i := slices.IndexFunc(f.Cases, func(other measured) bool { return other.Name == line.stockOf })
	if i >= 0 {
		m.Baseline, m.BaselineRuns = f.Cases[i].Baseline, f.Cases[i].BaselineRuns
		m.beside(f.Cases[i].BaselineMedian)
	}
}

// compare fills in the fields of a baseline; phase is the line's.
func (m *measured) compare(phase string, stock baseline) {
	values := of(stock.Samples, phase)
	switch {
	case stock.Never:
		m.Baseline, m.BaselineRuns = errNever.Error()+"; "+stock.Words, len(stock.Samples)+1
	case len(values) > 0:
		m.Baseline, m.BaselineRuns = stock.Words, len(values)
		value := median(values)
		m.beside(&value)
	}
}

// beside fills in the baseline's figure, and what follows from it.
func (m *measured) beside(value *float64) {
	m.BaselineMedian = value
	if value != nil && m.Median > 0 {
		ratio := *value / m.Median
		m.Ratio = &ratio
	}
	m.judge()
}

// against is the baseline's part of the line for a person.
func (m measured) against() string {
	switch {
	case m.Ratio != nil && m.RatioMark > 0 && *m.Ratio < m.RatioMark:
		return fmt.Sprintf("  stock %.2f %s, ratio %.1f, RATIO MARK %.1f MISSED", *m.BaselineMedian, m.Unit, *m.Ratio, m.RatioMark)
	case m.Ratio != nil && m.RatioMark > 0:
		return fmt.Sprintf("  stock %.2f %s, ratio %.1f, ratio mark %.1f met", *m.BaselineMedian, m.Unit, *m.Ratio, m.RatioMark)
	case m.Ratio != nil:
		return fmt.Sprintf("  stock %.2f %s, ratio %.1f", *m.BaselineMedian, m.Unit, *m.Ratio)
	case m.BaselineMedian != nil:
		return fmt.Sprintf("  stock %.2f %s", *m.BaselineMedian, m.Unit)
	case m.Baseline != "":
		return "  stock " + errNever.Error()
	default:
		return ""
	}
}

// inOwnRoom runs one of bench's commands in a fresh room, and returns what it wrote into its result file.
func inOwnRoom(ctx context.Context, host *lab.Host, command, name string, runs int) ([]byte, error) {
	work, err := os.MkdirTemp("", "keepone-lab-bench-")
	if err != nil {
		return nil, fmt.Errorf("make work folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(work) }()
	result := filepath.Join(work, "result.json")
	args := []string{name, strconv.Itoa(runs), result}
	if err := host.Enter(ctx, lab.Entry{Command: command, Args: args, Work: work, Keep: true}); err != nil {
		return nil, keepLogs(host, "demo", work, err)
	}
	text, err := os.ReadFile(result)
	if err != nil {
		return nil, fmt.Errorf("read figures: %w", err)
	}
	return text, nil
}

// benchLab is what a room of bench begins with: the case that it was told, how often, and that case's lab.
func benchLab(ctx context.Context, room *lab.Room, args []string) (benchCase, int, *lab.Lab, error) {
	if len(args) != 3 {
		return benchCase{}, 0, nil, fmt.Errorf("%w: NAME RUNS FILE", lab.ErrUsage)
	}
	i := slices.IndexFunc(benches, func(b benchCase) bool { return b.name == args[0] })
	runs, err := strconv.Atoi(args[1])
	if i < 0 || err != nil {
		return benchCase{}, 0, nil, fmt.Errorf("%w: no bench case %q, or runs %q is no number", lab.ErrUsage, args[0], args[1])
	}
	log, err := os.Create(filepath.Join(room.Work, "lab.log")) // open for as long as the room lives
	if err != nil {
		return benchCase{}, 0, nil, fmt.Errorf("open log: %w", err)
	}
	opts := benches[i].opts
	opts.Nodes, opts.Log = benches[i].nodes, log
	l, err := lab.New(ctx, room, opts)
	return benches[i], runs, l, err
}

func baselineRoom(ctx context.Context, room *lab.Room, args []string) error {
	b, runs, l, err := benchLab(ctx, room, args)
	if err != nil {
		return err
	}
	defer func() { _ = l.Down(context.WithoutCancel(ctx)) }()
	s, err := formStock(ctx, l, b.stockTotem)
	if err != nil {
		return err
	}
	result := baseline{Words: stockWords(b.stockTotem)}
	for run := range runs {
		one, err := b.stock(ctx, s)
		if errors.Is(err, errNever) {
			result.Never = true
			break
		}
		if err != nil {
			return fmt.Errorf("run %d: %w", run+1, err)
		}
		l.Logf("run %d: %.2f %s %v", run+1, one.Value, b.unit, one.Phases)
		result.Samples = append(result.Samples, one)
		if run+1 == runs {
			break
		}
		if err := s.recover(ctx); err != nil {
			return fmt.Errorf("after run %d: %w", run+1, err)
		}
	}
	text, err := json.Marshal(result)
	if err != nil {
		return fmt.Errorf("encode figures: %w", err)
	}
	return os.WriteFile(args[2], text, 0o644)
}
