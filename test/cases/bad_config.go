package cases

import (
	"context"
	"fmt"
	"strings"

	"github.com/keepone-ha/keepone/test/lab"
)

func init() {
	addDocument("unknown-config-key", change{"start_limit =", "start_limt =", 0, []string{"unknown key service.start_limt", "did you mean start_limit?"}})
	addDocument("duplicate-key", change{`start_limit = "30s"`, "start_limit = \"30s\"\nstart_limit = \"40s\"", 1, []string{"start_limit"}})
	addDocument("impossible-timing", change{"[[service]]", "[timing]\nsuspect = \"900ms\"\nlease = \"800ms\"\n[[service]]", 2, []string{"lease must be more than suspect"}})
	addDocument("two-node-without-witness", change{"[[service]]", "[[node]]\nname = \"n2\"\nlinks = [\"10.77.0.2\", \"10.78.0.2\"]\n[[service]]", 1, []string{"two nodes", "witness = true"}})
}

// change spoils the document in one place; words are what must be said of it, and of the line so many below the
// place's first.
type change struct {
	old, new string
	line     int
	words    []string
}

const badFile = "/etc/keepone/bad.toml"

// addDocument registers a case in which a spoiled document is checked, shown as a difference, applied, and a new
// cluster's beginning: each is refused by file and line, and the cluster keeps the document that it had.
func addDocument(name string, ch change) {
	addBad(name, true, 1, func(ctx context.Context, l *lab.Lab) error {
		c, err := foundAlone(ctx, l)
		if err != nil {
			return err
		}
		n := l.Node(1)
		before, err := c.keepone(ctx, n, "config", "show", "--document")
		if err != nil {
			return err
		}
		head, tail, ok := strings.Cut(c.document, ch.old)
		if !ok {
			return fmt.Errorf("the document has no %q to be spoiled", ch.old)
		}
		bad := head + ch.new + tail
		line := 1 + strings.Count(head, "\n") + ch.line
		if err := write(n, badFile, bad); err != nil {
			return err
		}
		words := append([]string{fmt.Sprintf("%s:%d:", badFile, line)}, ch.words...)
		for _, args := range [][]string{{"config", "check", badFile}, {"config", "diff", badFile}, {"config", "apply", badFile, "--yes"}} {
			if err := c.refused(ctx, n, words, args...); err != nil {
				return err
			}
		}
		return c.sameDocument(ctx, n, before)
	})
}

// sameDocument is an error if the cluster has another document than before.
func (c *cluster) sameDocument(ctx context.Context, n *lab.Node, before string) error {
	after, err := c.keepone(ctx, n, "config", "show", "--document")
	if err == nil && after != before {
		err = fmt.Errorf("the document changed from:\n%s\nto:\n%s", before, after)
	}
	return err
}
