package lab

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Case is one test with real parts. Exactly one of Run and Outside is set.
type Case struct {
	Name       string // room/what-it-shows
	Nodes      int    // of the lab that Run gets; 0 means 3
	NoCeph     bool
	CephSpread bool
	LogWriters bool
	Machines   bool          // its nodes are virtual machines: run with test -machines
	Limit      time.Duration // 0 means a minute
	// Needs names the programs in BinDir without which the case is skipped, with that as the reason.
	Needs []string
	// Run gets a fresh lab in a room of its own.
	Run func(ctx context.Context, t *T) error
	// Outside runs on the machine itself and makes rooms as it needs them.
	Outside func(ctx context.Context, host *Host) error
}

var cases = map[string]Case{}

// Register adds a case; call it from an init function of a package that the lab program imports.
func Register(c Case) {
	if _, twice := cases[c.Name]; twice || (c.Run == nil) == (c.Outside == nil) {
		panic("lab case " + c.Name + ": registered twice or without exactly one of Run and Outside")
	}
	if c.Nodes == 0 {
		c.Nodes = 3
	}
	if c.Limit == 0 {
		c.Limit = time.Minute
	}
	cases[c.Name] = c
}

// matching lists the cases on machines of the kind, whose names a glob matches, in order. A * does not match a slash; an empty glob
// matches all.
func matching(glob string, machines bool) ([]Case, error) {
	var list []Case
	for name, c := range cases {
		ok, err := filepath.Match(glob, name)
		if err != nil {
			return nil, fmt.Errorf("%w: case glob %q: %w", ErrUsage, glob, err)
		}
		if (ok || glob == "") && c.Machines == machines {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b Case) int { return strings.Compare(a.Name, b.Name) })
	if len(list) == 0 {
		return nil, fmt.Errorf("%w: no case matches %q", ErrUsage, glob)
	}
	return list, nil
}

// T is what a case works with.
type T struct {
	*Lab
}

// Expect is an error that says what was expected, or nil.
func (t *T) Expect(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf("expected "+format, args...)
}

// Await polls until ready says true; what says for what.
func (t *T) Await(ctx context.Context, bound time.Duration, what string, ready func() bool) error {
	return poll(ctx, bound, what, ready)
}
