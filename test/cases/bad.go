package cases

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/test/lab"
)

// exitRefused is what the CLI ends with when it certainly did nothing (docs/outputs.md).
const exitRefused = 3

// addBad registers a case of bad input that begins with the lab alone: what it forms is its own affair.
func addBad(name string, noCeph bool, nodes int, run func(ctx context.Context, l *lab.Lab) error) {
	lab.Register(lab.Case{
		Name: "bad/" + name, Nodes: nodes, NoCeph: noCeph, Limit: caseLimit, Needs: needs,
		Run: func(ctx context.Context, t *lab.T) error { return run(ctx, t.Lab) },
	})
}

// foundAlone makes a cluster of the first node alone and waits until it answers for itself.
func foundAlone(ctx context.Context, l *lab.Lab) (*cluster, error) {
	c, err := found(ctx, l)
	if err != nil {
		return nil, err
	}
	return c, await(ctx, formLimit, "quorum of one", func() error {
		s, err := c.status(ctx, l.Node(1))
		if err == nil && !s.Quorum {
			err = errors.New("no quorum")
		}
		return err
	})
}

// refused runs a command that must be refused in so many words, and quickly.
func (c *cluster) refused(ctx context.Context, n *lab.Node, words []string, args ...string) error {
	const bound = 10 * time.Second
	began := time.Now()
	out, err := c.keepone(ctx, n, args...)
	if err == nil {
		return fmt.Errorf("keepone %s was not refused", strings.Join(args, " "))
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitRefused {
		return fmt.Errorf("keepone %s did not end with %d: %w", strings.Join(args, " "), exitRefused, err)
	}
	if took := time.Since(began); took > bound {
		return fmt.Errorf("keepone %s was refused after %s", strings.Join(args, " "), took)
	}
	return contains("keepone "+strings.Join(args, " "), out, words)
}

// contains is an error unless all words are in what somebody said.
func contains(who, said string, words []string) error {
	for _, w := range words {
		if !strings.Contains(said, w) {
			return fmt.Errorf("%s does not say %q: %s", who, w, strings.TrimSpace(said))
		}
	}
	return nil
}

// awaitSaid polls a looking command until it says all the words, whatever it ends with.
func (c *cluster) awaitSaid(ctx context.Context, bound time.Duration, n *lab.Node, args []string, words ...string) error {
	return await(ctx, bound, "words in keepone "+strings.Join(args, " "), func() error {
		out, _ := c.keepone(ctx, n, args...)
		return contains("it", out, words)
	})
}

// look, past and doctor are what an operator asks when something is wrong.
var (
	look   = []string{"status", "-o", "json"}
	past   = []string{"history", "-o", "json", "--all"}
	doctor = []string{"doctor", "-o", "json"}
)

// awaitLogged polls a daemon's log for words on one line.
func awaitLogged(ctx context.Context, bound time.Duration, n *lab.Node, p lab.Program, words ...string) error {
	return await(ctx, bound, fmt.Sprintf("words in %s's log of %s", p, n.Name), func() error {
		text, err := os.ReadFile(n.LogPath(p))
		if err != nil {
			return fmt.Errorf("read log: %w", err)
		}
		for line := range strings.Lines(string(text)) {
			if contains("it", line, words) == nil {
				return nil
			}
		}
		return fmt.Errorf("no line has %q", words)
	})
}

// writing has a client append while something bad goes on; end checks that all it was told is still there.
func (c *cluster) writing(ctx context.Context) (client *lab.Client, end func() error, err error) {
	client = c.Client(ctx, c.address)
	if _, err := client.AwaitAck(ctx, time.Now(), 5*time.Second); err != nil {
		client.Stop()
		return nil, nil, err
	}
	return client, func() error {
		_, err := client.AwaitAck(ctx, time.Now(), 15*time.Second)
		client.Stop()
		if err != nil {
			return fmt.Errorf("the front-end takes no more records: %w", err)
		}
		v, err := client.Verify(ctx)
		return errors.Join(err, nothingLost(v))
	}, nil
}

// staysAt is an error if the service moved, or was granted anew.
func (c *cluster) staysAt(ctx context.Context, holder *lab.Node, epoch uint64) error {
	now, after, err := c.holder(ctx, c.anyUp())
	if err == nil && (now != holder || after != epoch) {
		err = fmt.Errorf("the service went from %s epoch %d to %s epoch %d", holder.Name, epoch, now.Name, after)
	}
	return err
}
