package lab

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
)

func init() {
	Handle(Command{Name: "shares", Help: "shares -json file 'NAME SECONDS s'...: note how long each part of the tests took", Outside: noteShares})
}

// noteShares puts the parts' seconds into build/test.json, beside the cases.
func noteShares(_ context.Context, host *Host, args []string) error {
	flags := flag.NewFlagSet("shares", flag.ContinueOnError)
	flags.SetOutput(host.Stdio.Err)
	path := flags.String("json", "", "the report")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%w: %w", ErrUsage, err)
	}
	report := Report{Schema: 1, Parts: map[string]float64{}}
	if text, err := os.ReadFile(*path); err == nil {
		if err := json.Unmarshal(text, &report); err != nil {
			return fmt.Errorf("read %s: %w", *path, err)
		}
	}
	for _, share := range flags.Args() {
		fields := strings.Fields(share)
		if len(fields) != 3 {
			return fmt.Errorf("%w: share %q", ErrUsage, share)
		}
		seconds, err := strconv.ParseFloat(fields[1], 64)
		if err != nil {
			return fmt.Errorf("%w: share %q", ErrUsage, share)
		}
		report.Parts[fields[0]] = seconds
	}
	text, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return fmt.Errorf("encode report: %w", err)
	}
	return writeFile(*path, string(text)+"\n", 0o644)
}
