// Command mutants takes the safety checks of list.txt out of the code, one at a time, and sees whether a test fails.
// One that no test misses has survived: then the test is missing.
package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"
)

//go:embed list.txt
var list string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		stop()
		os.Exit(1)
	}
}

var errSurvived = errors.New("a check can be taken out and no test fails")

// run is the command: it is called in the module's root.
func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("mutants", flag.ContinueOnError)
	only := flags.String("only", "", "parts of the ids to run, with commas between")
	parallel := flags.Int("parallel", 2, "how many at a time")
	limit := flags.Duration("limit", time.Minute, "for one run of one package's tests")
	file := flags.String("json", "", "where the outcome is written")
	if err := flags.Parse(args); err != nil {
		return err
	}
	all, err := parse(list)
	if err != nil {
		return fmt.Errorf("list.txt: %w", err)
	}
	var chosen []mutant
	for _, m := range all {
		if slices.ContainsFunc(strings.Split(*only, ","), func(part string) bool { return strings.Contains(m.id, part) }) {
			chosen = append(chosen, m)
		}
	}
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	b := &bench{root: ".", dir: dir, limit: *limit, out: out, slots: make(chan struct{}, *parallel)}
	outcomes, err := b.all(ctx, chosen)
	if err != nil {
		return err
	}
	return report(outcomes, *file, out)
}

// report prints the last line, and writes what killed each.
func report(outcomes []outcome, file string, out io.Writer) error {
	killed := 0
	for _, o := range outcomes {
		if o.KilledBy != "" {
			killed++
		}
	}
	if file != "" {
		text, err := json.MarshalIndent(outcomes, "", " ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(file, append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	_, _ = fmt.Fprintf(out, "mutants: total=%d killed=%d survived=%d\n", len(outcomes), killed, len(outcomes)-killed)
	if killed < len(outcomes) {
		return errSurvived
	}
	return nil
}
