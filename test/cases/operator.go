package cases

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/test/lab"
)

func init() {
	add("operator/ctrl-c", kind{}, leaveSwitchover)
	add("operator/watch", kind{}, watchFailover)
}

// What the CLI ends with (docs/outputs.md).
const (
	exitDone     = 0
	exitUnknown  = 4
	exitNoQuorum = 5
)

// atOnce is how long a person waits after ctrl-C without wondering.
const atOnce = 2 * time.Second

// start starts the operator's CLI on a node and leaves it running.
func (c *cluster) start(ctx context.Context, n *lab.Node, args ...string) (*lab.Running, error) {
	c.Logf("%s: keepone %s …", n.Name, strings.Join(args, " "))
	return n.Launch(ctx, append([]string{filepath.Join(c.BinDir, "keepone")}, args...)...)
}

// ctrlC interrupts a command and expects its end at once, with the code named.
func (c *cluster) ctrlC(r *lab.Running, want int) error {
	if err := r.Interrupt(); err != nil {
		return err
	}
	code, err := r.Wait(atOnce)
	c.Logf("after ctrl-C exit code %d: %s", code, r.Said())
	if err == nil && code != want {
		err = fmt.Errorf("ended with %d, expected %d: %s", code, want, r.Said())
	}
	return err
}

var requestID = regexp.MustCompile(`request (\d+) is not taken back`)

// leaveSwitchover leaves a switchover by ctrl-C once it has begun: it says that it goes on, and it does.
func leaveSwitchover(ctx context.Context, c *cluster) error {
	holder, _, err := c.holder(ctx, c.anyUp())
	if err != nil {
		return err
	}
	to := c.anyUp(holder)
	r, err := c.start(ctx, to, "switchover", service, "--to", to.Name)
	if err != nil {
		return err
	}
	if err := await(ctx, takeoverBound, "first line of progress", func() error { return contains("it", r.Said(), []string{"\n"}) }); err != nil {
		return errors.Join(err, c.ctrlC(r, exitUnknown))
	}
	if err := c.ctrlC(r, exitUnknown); err != nil {
		return err
	}
	id := requestID.FindStringSubmatch(r.Said())
	if id == nil {
		return fmt.Errorf("it does not name its request: %s", r.Said())
	}
	if err := contains("what ctrl-C leaves", r.Said(), []string{"keepone status --watch", "keepone history"}); err != nil {
		return err
	}
	if strings.Contains(r.Said(), "Done") {
		return fmt.Errorf("it was left after its end: %s", r.Said())
	}
	if now, err := c.awaitHolder(ctx, takeoverBound, holder); err != nil || now != to {
		return errors.Join(fmt.Errorf("the switchover to %s did not go on", to.Name), err)
	}
	return c.explains(ctx, to, "switchover", holder.Name, to.Name)
}

// explains is an error unless `keepone explain` of the newest event of a kind tells all the words.
func (c *cluster) explains(ctx context.Context, ask *lab.Node, kind string, words ...string) error {
	e, err := c.lastEvent(ctx, ask, kind)
	if err != nil {
		return err
	}
	out, err := c.keepone(ctx, ask, "explain", fmt.Sprint(e.ID))
	return errors.Join(err, contains("keepone explain", out, words))
}

// watchFailover looks on with `keepone status --watch` while the holder's power is cut: it goes on by itself, shows
// the node lost and the service elsewhere, and ends by ctrl-C as if all was well.
func watchFailover(ctx context.Context, c *cluster) error {
	holder, _, err := c.holder(ctx, c.anyUp())
	if err != nil {
		return err
	}
	seat := c.anyUp(holder)
	r, err := c.start(ctx, seat, "status", "--watch")
	if err != nil {
		return err
	}
	shows := func(bound time.Duration, what string, words ...string) error {
		return await(ctx, bound, "the watch shows "+what, func() error { return pageShows(r.Said(), words) })
	}
	err = shows(5*time.Second, "two pages", "")
	if err == nil {
		err = c.expectTakeover(ctx, "bmc-off", powerCut)
	}
	now, _, err2 := c.holder(ctx, seat)
	err = errors.Join(err, err2)
	if err == nil {
		err = errors.Join(
			shows(5*time.Second, "the old holder fenced", holder.Name+" +fenced"),
			shows(5*time.Second, "the service elsewhere", service+" +running +"+now.Name),
		)
	}
	return errors.Join(err, c.ctrlC(r, exitDone))
}

// pageShows looks for lines that match all patterns on one page, the second at the earliest: the first is no proof
// that there will be more.
func pageShows(said string, patterns []string) error {
	pages := strings.Split(said, "led by")
	for i, page := range pages {
		if i >= 2 && matches(page, patterns) {
			return nil
		}
	}
	return fmt.Errorf("%d pages, the last: %s", len(pages)-1, pages[len(pages)-1])
}

func matches(text string, patterns []string) bool {
	for _, p := range patterns {
		if ok, err := regexp.MatchString(p, text); err != nil || !ok {
			return false
		}
	}
	return true
}
