package report

import (
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
)

// clock turns cluster time into wall time for people, by the events that carry both.
type clock struct{ marks []mark }

type mark struct {
	at   core.Time
	wall time.Time
}

func newClock(history []core.Event) clock {
	var c clock
	for _, e := range history {
		if !e.Wall.IsZero() {
			c.marks = append(c.marks, mark{e.At, e.Wall})
		}
	}
	return c
}

// wall returns the wall time of t by the newest event that is not after it; false if there is no event at all.
func (c clock) wall(t core.Time) (time.Time, bool) {
	if len(c.marks) == 0 {
		return time.Time{}, false
	}
	best := c.marks[0]
	for _, m := range c.marks {
		if m.at <= t {
			best = m
		}
	}
	return best.wall.Add(t.Sub(best.at)), true
}

func (c clock) text(t core.Time) string {
	wall, ok := c.wall(t)
	if !ok || t == 0 {
		return ""
	}
	return wall.UTC().Format(time.RFC3339)
}
