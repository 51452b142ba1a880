package release

import (
	"context"
	"time"
)

// Options of a stop. The zero value is a hard stop with default bounds.
type Options struct {
	Reason   string        // for tombstone and marks
	Graceful time.Duration // how long the container may take to shut down by itself; 0: it is killed at once
	Contain  time.Duration // to empty the cgroup, default 3 s
	Sync     time.Duration // to write back what is dirty, default 10 s
	Unmount  time.Duration // default 5 s
	Unmap    time.Duration // to detach the device, default 5 s
	Mapper   time.Duration // to flush, unlock and end, default 10 s
}

// Bound is the longest that Stop takes with these options.
func (o Options) Bound() time.Duration {
	o = o.withDefaults()
	return o.Graceful + 2*o.Contain + otherStop + o.Sync + o.Unmount + o.Unmap + o.Mapper + lastResort + 3*slack
}

// Result says what a stop came to. Its zero value is the safe one.
type Result struct {
	Contained bool     // no process of the service can run and its link is down
	Vacated   bool     // and unmounted, flushed, unmapped, unlocked, all without an error or a timeout
	Reasons   []string // why not
	Steps     []Step
}

// Step is one station of a stop and how long it took.
type Step struct {
	Name string        `json:"name"`
	Took time.Duration `json:"took"`
}

// Contained says what a containment came to. Its zero value is the safe one.
type Contained struct {
	Done    bool
	Reasons []string // why not, or what went wrong on the way; a process that can't be killed is named
	Took    time.Duration
}

// Contain makes sure that no process of the record's attempt can run and that its link is down (I5). It touches
// neither mount nor device. It returns when that is so, or when ctx or its own bound ends.
func Contain(ctx context.Context, runDir string, r Record, reason string) Contained {
	return system().contain(ctx, runDir, r, reason, defaultContain)
}

// Stop takes down everything of the record: it asks the container to shut down, contains it, writes back,
// unmounts, unmaps, ends the mapper. It ends within Options.Bound whatever hangs, and needs nothing but the
// kernel (I7). An ended ctx makes it hurry, not skip: what was not waited for is not vacated.
func Stop(ctx context.Context, runDir string, r Record, o Options) Result {
	return system().stop(ctx, runDir, r, o.withDefaults())
}

// StopContainer ends the run but keeps volume and mapper, for a restart in place. Vacated stays false.
func StopContainer(ctx context.Context, runDir string, r Record, o Options) Result {
	return system().stopContainer(ctx, runDir, r, o.withDefaults())
}
