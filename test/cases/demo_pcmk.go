package cases

import (
	"context"
	"fmt"
	"regexp"
	"slices"

	"github.com/keepone-ha/keepone/test/lab"
)

func (m *managed) rejoin(ctx context.Context, _ *lab.Node) error { return m.recover(ctx) }

// wake of a node that Pacemaker had fenced: it can't go on, its power was taken.
func (m *managed) wake(ctx context.Context, n *lab.Node) (string, error) {
	if err := n.Continue(ctx); err != nil {
		return "", err
	}
	if n.PID(ctx, lab.Corosync) != 0 {
		return "", fmt.Errorf("%s goes on, and Pacemaker had been told that it is fenced", n.Name)
	}
	return n.Name + " could not go on: its power was taken and is back, it booted anew and is a candidate again", m.recover(ctx)
}

// ordered are the steps of a failover that corosync and Pacemaker log, in their words and in ours.
var ordered = []struct {
	logged *regexp.Regexp
	say    string
}{
	{regexp.MustCompile(`A new membership .*Members left: `), "corosync forms a membership without it"},
	{regexp.MustCompile(`Requesting fencing \(\w+\) of node (\S+)`), "Pacemaker calls fence_keepone for $1"},
	{regexp.MustCompile(`Peer (\S+) was terminated .* by (\S+) on behalf of .*: OK`), "Pacemaker hears from $2 that $1 is fenced"},
	{regexp.MustCompile(`Initiating promote operation (\S+)_promote_0 (?:locally )?on (\S+)`), "Pacemaker promotes $1 on $2"},
	{regexp.MustCompile(`Initiating start operation (\S+)_start_0 (?:locally )?on (\S+)`), "Pacemaker starts $1 on $2"},
}

// steps are those that the survivors logged between the loss and the answer, each told once.
func (m *managed) steps(t takeover) []string {
	var lines []lab.StackLine
	for _, n := range m.Nodes() {
		if n == t.From {
			continue
		}
		of, err := n.StackLog(t.Began)
		if err != nil {
			m.Logf("%v", err) // the story goes on without
		}
		lines = append(lines, of...)
	}
	slices.SortStableFunc(lines, func(a, b lab.StackLine) int { return a.At.Compare(b.At) })
	var all []string
	told := map[string]bool{"": true}
	for _, line := range lines {
		words := inOurWords(line.Text)
		if told[words] || line.At.After(t.Answered) {
			continue
		}
		told[words] = true
		all = append(all, fmt.Sprintf("+%.2f s  %s", line.At.Sub(t.Began).Seconds(), words))
	}
	return all
}

// inOurWords is empty for a line that the story leaves out.
func inOurWords(text string) string {
	for _, o := range ordered {
		if found := o.logged.FindStringSubmatchIndex(text); found != nil {
			return string(o.logged.ExpandString(nil, o.say, text, found))
		}
	}
	return ""
}
