package sim

import (
	"fmt"
	"strings"
	"time"
)

// trace is what happened: always as a sum that tells two runs apart, and in words where somebody reads them.
type trace struct {
	verbose bool
	sum     uint64
	lines   []string
}

func newTrace(verbose bool) *trace { return &trace{verbose: verbose, sum: 14695981039346656037} }

// mix is FNV-1a, a word at a time.
func (t *trace) mix(words ...uint64) {
	for _, word := range words {
		t.sum = (t.sum ^ word) * 1099511628211
	}
}

func (t *trace) say(at time.Duration, text string) {
	t.lines = append(t.lines, strings.TrimRight(fmt.Sprintf("%9.3fs %s", at.Seconds(), text), " "))
}
