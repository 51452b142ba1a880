package lab

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Result is one case's line in build/test.json.
type Result struct {
	Name    string  `json:"name"`
	OK      bool    `json:"ok"`
	Seconds float64 `json:"seconds"`
	Skipped string  `json:"skipped"`
}

// Report is build/test.json: other parts of the test keep their share in it.
type Report struct {
	Schema int                `json:"schema"`
	Parts  map[string]float64 `json:"parts"`
	Cases  []Result           `json:"cases"`
}

// errFailed ends a run whose cases have said what failed.
var errFailed = exitCode(1)

// runTests runs the cases, each in a fresh room: those on the machine itself alone, then the others, -jobs at a time.
// A case mostly waits, so two fit a machine of two cores.
func runTests(ctx context.Context, host *Host, args []string) error {
	flags := flag.NewFlagSet("test", flag.ContinueOnError)
	flags.SetOutput(host.Stdio.Err)
	glob := flags.String("case", "", "run the cases whose name matches this glob")
	jobs := flags.Int("jobs", 1, "how many cases run at a time")
	report := flags.String("json", "", "merge the results into this file")
	virtual := flags.Bool("machines", false, "the cases whose nodes are virtual machines")
	logs := flags.String("logs", filepath.Join(host.BinDir, "lab-logs"), "where the work folders of failed cases are kept")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%w: %w", ErrUsage, err)
	}
	list, err := matching(*glob, *virtual)
	if err != nil {
		return err
	}
	if *virtual {
		if err := host.prepareMachines(ctx, len(list)); err != nil {
			return err
		}
	}
	began := time.Now()
	alone, others := split(list)
	results := host.runCases(ctx, alone, 1, *logs)
	results = append(results, host.runCases(ctx, others, *jobs, *logs)...)
	if *report != "" {
		if err := merge(*report, results, time.Since(began)); err != nil {
			return err
		}
	}
	if *virtual {
		return errors.Join(ctx.Err(), closingMachines(host.Stdio.Out, results))
	}
	return errors.Join(ctx.Err(), closing(host.Stdio.Out, results))
}

// split parts the cases that run on the machine itself from those in rooms of their own.
func split(list []Case) (outside, inside []Case) {
	for _, c := range list {
		if c.Outside != nil {
			outside = append(outside, c)
		} else {
			inside = append(inside, c)
		}
	}
	return outside, inside
}

// runCases runs jobs cases at a time; those that ctx's end leaves out have no result.
func (h *Host) runCases(ctx context.Context, list []Case, jobs int, logs string) []Result {
	todo := make(chan Case, len(list))
	for _, c := range list {
		todo <- c
	}
	close(todo)
	done := make(chan Result, len(list))
	var work sync.WaitGroup
	for range max(jobs, 1) {
		work.Go(func() {
			for c := range todo {
				if ctx.Err() != nil {
					return
				}
				done <- h.runCase(ctx, c, logs)
			}
		})
	}
	work.Wait()
	close(done)
	results := make([]Result, 0, len(list))
	for r := range done {
		results = append(results, r)
	}
	return results
}

// closing prints the last line and fails if a case failed.
func closing(w io.Writer, results []Result) error {
	passed, failed, skipped := count(results)
	fmt.Fprintf(w, "%d passed, %d failed, %d skipped\n", passed, failed, skipped)
	if failed > 0 {
		return errFailed
	}
	return nil
}

func count(results []Result) (passed, failed, skipped int) {
	for _, r := range results {
		switch {
		case r.Skipped != "":
			skipped++
		case r.OK:
			passed++
		default:
			failed++
		}
	}
	return passed, failed, skipped
}

// runCase runs one case and prints its line. The work folder of one that failed is kept.
func (h *Host) runCase(ctx context.Context, c Case, logs string) Result {
	result := Result{Name: c.Name, Skipped: h.lacking(c)}
	if result.Skipped != "" {
		fmt.Fprintf(h.Stdio.Out, "skip %s  %s\n", c.Name, result.Skipped)
		return result
	}
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, c.Limit, fmt.Errorf("the case took longer than %v", c.Limit))
	defer cancel()
	where := ""
	var err error
	if c.Outside != nil {
		err = c.Outside(ctx, h)
	} else {
		where, err = h.runInside(ctx, c, logs)
	}
	result.Seconds = float64(time.Since(began).Milliseconds()) / 1000
	if err != nil {
		fmt.Fprintf(h.Stdio.Out, "FAIL %s  %.1fs  %v%s\n", c.Name, result.Seconds, err, where)
		return result
	}
	result.OK = true
	fmt.Fprintf(h.Stdio.Out, "ok   %s  %.1fs\n", c.Name, result.Seconds)
	return result
}

func (h *Host) lacking(c Case) string {
	for _, program := range c.Needs {
		if !present(filepath.Join(h.BinDir, program)) {
			return fmt.Sprintf("%s is not in %s", program, h.BinDir)
		}
	}
	return ""
}

// runInside gives the case a room. Its work is done in a temporary folder, for speed and short paths; only a
// failed one's is moved to where a person finds it.
func (h *Host) runInside(ctx context.Context, c Case, logs string) (where string, err error) {
	work, err := os.MkdirTemp("", workPrefix)
	if err != nil {
		return "", fmt.Errorf("make work folder: %w", err)
	}
	reason := filepath.Join(work, "reason")
	err = h.Enter(ctx, Entry{Command: "case", Args: []string{c.Name, reason}, Work: work, Keep: true})
	if err == nil {
		return "", os.RemoveAll(work)
	}
	if text, readErr := os.ReadFile(reason); readErr == nil && len(text) > 0 {
		err = errors.New(string(text))
	}
	if ctx.Err() != nil {
		err = errors.Join(context.Cause(ctx), err)
	}
	kept := filepath.Join(logs, strings.ReplaceAll(c.Name, "/", "-"))
	if moveErr := move(work, kept); moveErr != nil {
		return "", errors.Join(err, moveErr)
	}
	return "  logs: " + kept, err
}

// move renames, or copies where the two are on different file systems.
func move(from, to string) error {
	if err := errors.Join(os.RemoveAll(to), os.MkdirAll(filepath.Dir(to), 0o755)); err != nil {
		return fmt.Errorf("keep logs: %w", err)
	}
	if os.Rename(from, to) == nil {
		return nil
	}
	if err := errors.Join(os.CopyFS(to, os.DirFS(from)), os.RemoveAll(from)); err != nil {
		return fmt.Errorf("keep logs: %w", err)
	}
	return nil
}

// runCaseInside is the case in its room: args are its name and the file for the reason of a failure.
func runCaseInside(ctx context.Context, room *Room, args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("%w: case NAME RESULT", ErrUsage)
	}
	c, known := cases[args[0]]
	if !known || c.Run == nil {
		return fmt.Errorf("%w: no case %q", ErrUsage, args[0])
	}
	log, err := os.Create(filepath.Join(room.Work, "lab.log"))
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer log.Close()
	if err := c.inside(ctx, room, log); err != nil {
		return errors.Join(errFailed, os.WriteFile(args[1], []byte(err.Error()), 0o600))
	}
	return nil
}

func (c Case) inside(ctx context.Context, room *Room, log io.Writer) (err error) {
	l, err := New(ctx, room, Options{Nodes: c.Nodes, NoCeph: c.NoCeph, CephSpread: c.CephSpread, LogWriters: c.LogWriters, Machines: c.Machines, Log: log})
	if err != nil {
		return err
	}
	err = c.Run(ctx, &T{Lab: l})
	if err != nil {
		l.Logf("failed: %v", err)
	}
	if downErr := l.Down(context.WithoutCancel(ctx)); downErr != nil {
		err = errors.Join(err, fmt.Errorf("take the lab down: %w", downErr))
	}
	return err
}

// merge puts the results into the report, in place of older ones of the same names.
func merge(path string, results []Result, took time.Duration) error {
	report := Report{Schema: 1}
	if text, err := os.ReadFile(path); err == nil {
		if err := json.Unmarshal(text, &report); err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
	}
	if report.Parts == nil {
		report.Parts = map[string]float64{}
	}
	report.Parts["lab"] = float64(took.Milliseconds()) / 1000
	report.Cases = mergeCases(report.Cases, results)
	text, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return fmt.Errorf("encode report: %w", err)
	}
	if err := writeFile(path, string(text)+"\n", 0o644); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

func mergeCases(old, fresh []Result) []Result {
	at := map[string]int{}
	merged := make([]Result, 0, len(old)+len(fresh))
	for _, r := range append(append([]Result(nil), old...), fresh...) {
		if i, twice := at[r.Name]; twice {
			merged[i] = r
			continue
		}
		at[r.Name] = len(merged)
		merged = append(merged, r)
	}
	return merged
}
