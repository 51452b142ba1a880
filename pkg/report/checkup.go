package report

import (
	"fmt"
	"io"

	"github.com/keepone-ha/keepone/pkg/op"
)

// Checkup is the answer of `keepone doctor -o json`.
type Checkup struct {
	Schema int     `json:"schema"`
	Bad    int     `json:"bad"` // checks that are not well
	Checks []Check `json:"checks"`
}

// Check is one of them.
type Check struct {
	Node  string `json:"node"` // empty: of the cluster
	What  string `json:"what"`
	OK    bool   `json:"ok"`
	Words string `json:"words"` // what was found; if not ok, what to do
}

// NewCheckup makes a Checkup of what the daemon found.
func NewCheckup(d op.Doctor) Checkup {
	c := Checkup{Schema: Schema, Checks: []Check{}}
	for _, check := range d.Checks {
		c.Checks = append(c.Checks, Check{string(check.Node), check.What, check.OK, check.Words})
		if !check.OK {
			c.Bad++
		}
	}
	return c
}

// CheckupText writes a Checkup for a person.
func CheckupText(w io.Writer, c Checkup, style Style) error {
	p := printer{style: style}
	for _, check := range c.Checks {
		sign, color := "ok ", green
		if !check.OK {
			sign, color = "BAD", red
		}
		who := check.Node
		if who == "" {
			who = "cluster"
		}
		head := fmt.Sprintf("%-10s %-22s ", who, check.What)
		p.wrap(style.paint(color, sign)+"  "+head, fmt.Sprintf("%*s", 5+len(head), ""), check.Words, 5+len(head))
	}
	if c.Bad == 0 {
		p.line("\n%s", style.paint(green, "Everything that a failover needs was found."))
	} else {
		p.line("\n%s", style.paint(red, fmt.Sprintf("%d of %d checks are not well.", c.Bad, len(c.Checks))))
	}
	_, err := io.WriteString(w, p.b.String())
	return err
}
