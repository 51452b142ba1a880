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
	Values []float64
	Never  bool // a run did not end within stockBound; no other was tried
}

// addBaseline measures the stock stack in a room of its own and sets it against keepone's figure.
func (m *measured) addBaseline(ctx context.Context, host *lab.Host, b benchCase, runs int) error {
	if b.stock == nil || runs <= 0 {
		return nil
	}
	text, err := inOwnRoom(ctx, host, "baseline-room", b.name, runs)
	if err != nil {
		return fmt.Errorf("baseline: %w", err)
	}
	var stock baseline
	if err := json.Unmarshal(text, &stock); err != nil {
		return fmt.Errorf("read baseline: %w", err)
	}
	m.compare(stock)
	return nil
}

// compare fills in the fields of a baseline.
func (m *measured) compare(stock baseline) {
	m.Baseline, m.BaselineRuns = stockWords, len(stock.Values)
	if stock.Never {
		m.Baseline, m.BaselineRuns = errNever.Error()+"; "+stockWords, len(stock.Values)+1
		return
	}
	value := median(stock.Values)
	m.BaselineMedian = &value
	if m.Median > 0 {
		ratio := value / m.Median
		m.Ratio = &ratio
	}
}

// against is the baseline's part of the line for a person.
func (m measured) against() string {
	switch {
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
		return nil, keepLogs(host, work, err)
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
	s, err := formStock(ctx, l)
	if err != nil {
		return err
	}
	var result baseline
	for run := range runs {
		value, err := b.stock(ctx, s)
		if errors.Is(err, errNever) {
			result.Never = true
			break
		}
		if err != nil {
			return fmt.Errorf("run %d: %w", run+1, err)
		}
		l.Logf("run %d: %.2f %s", run+1, value, b.unit)
		result.Values = append(result.Values, value)
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
