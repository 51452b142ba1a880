package cases

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/test/lab"
)

func init() {
	lab.Handle(lab.Command{Name: "demo", Help: "demo [-json file] [-manager keepone] [-n 3]: a cluster loses its holder, and the front-end answers again", Outside: demo})
	lab.Handle(lab.Command{Name: "demo-room", Help: "demo-room MANAGER NODES: the demo in its room (used by demo)", Inside: demoRoom})
}

// demoResult is build/demo.json.
type demoResult struct {
	Schema           int                `json:"schema"`
	Manager          string             `json:"manager"`
	Acknowledged     int                `json:"acknowledged"`
	Present          int                `json:"present"`
	AfterTakeover    int                `json:"after_takeover_by_old_holder"`
	FailoverSeconds  float64            `json:"failover_seconds"`
	From             string             `json:"from"`
	To               string             `json:"to"`
	Proof            string             `json:"proof"`
	Phases           map[string]float64 `json:"phases"`
	PausedSeconds    float64            `json:"paused_failover_seconds"`
	PausedProof      string             `json:"paused_proof"`
	FormationSeconds float64            `json:"formation_seconds"`
}

const demoFile = "demo.json"

func demo(ctx context.Context, host *lab.Host, args []string) error {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(host.Stdio.Err)
	to := flags.String("json", "", "write the figures to this file")
	manager := flags.String("manager", "keepone", "who orders the service: keepone, or pacemaker with corosync")
	nodes := flags.Int("n", 3, "number of nodes")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%w: %w", lab.ErrUsage, err)
	}
	if _, known := plays[*manager]; !known || *nodes < 3 {
		return fmt.Errorf("%w: -manager is keepone or pacemaker, -n at least 3", lab.ErrUsage)
	}
	work, err := os.MkdirTemp("", "keepone-lab-demo-")
	if err != nil {
		return fmt.Errorf("make work folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(work) }()
	if err := host.Enter(ctx, lab.Entry{Command: "demo-room", Args: []string{*manager, strconv.Itoa(*nodes)}, Work: work, Keep: true}); err != nil {
		return keepLogs(host, "demo", work, err)
	}
	if *to == "" {
		return nil
	}
	return copyFile(filepath.Join(work, demoFile), *to)
}

// keepLogs saves the work folder of a play that failed.
func keepLogs(host *lab.Host, name, work string, err error) error {
	kept := filepath.Join(host.BinDir, "lab-logs", name)
	_ = os.RemoveAll(kept)
	if os.MkdirAll(filepath.Dir(kept), 0o755) == nil && os.Rename(work, kept) == nil {
		return fmt.Errorf("%w; logs: %s", err, kept)
	}
	return err
}

func copyFile(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("read figures: %w", err)
	}
	if err := os.WriteFile(to, text, 0o644); err != nil {
		return fmt.Errorf("write figures: %w", err)
	}
	return nil
}

// teller prints plain sentences with the time since the demo began.
type teller struct {
	out   io.Writer
	began time.Time
}

func (t teller) say(format string, args ...any) {
	fmt.Fprintf(t.out, "%5.1fs  %s\n", time.Since(t.began).Seconds(), fmt.Sprintf(format, args...))
}

func demoRoom(ctx context.Context, room *lab.Room, args []string) error {
	const limit = 4 * time.Minute
	if len(args) != 2 {
		return fmt.Errorf("%w: MANAGER NODES", lab.ErrUsage)
	}
	nodes, err := strconv.Atoi(args[1])
	if err != nil {
		return fmt.Errorf("%w: NODES: %w", lab.ErrUsage, err)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	t := teller{out: room.Stdio.Out, began: time.Now()}
	t.say("making %d nodes with two links and an IPMI BMC each, and a Ceph cluster", nodes)
	log, err := os.Create(filepath.Join(room.Work, "lab.log"))
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer func() { _ = log.Close() }()
	l, err := lab.New(ctx, room, lab.Options{Nodes: nodes, Log: log})
	if err != nil {
		return err
	}
	defer func() { _ = l.Down(context.WithoutCancel(ctx)) }()
	result, err := tell(ctx, t, l, plays[args[0]])
	if err != nil {
		return err
	}
	result.Manager = args[0]
	text, err := json.MarshalIndent(result, "", "  ")
	if err != nil {
		return fmt.Errorf("encode figures: %w", err)
	}
	return os.WriteFile(filepath.Join(room.Work, demoFile), append(text, '\n'), 0o644)
}

// play is how the demo's cluster is made and brought back, by who orders the service.
type play struct {
	forming string
	form    func(ctx context.Context, l *lab.Lab) (troupe, error)
}

// troupe is a formed cluster of a play.
type troupe interface {
	keepones() *cluster
	// rejoin makes a node that lost its power a candidate again.
	rejoin(ctx context.Context, n *lab.Node) error
	// wake lets a node that was stopped, and is no longer the holder, go on if it can, and says what became of it.
	wake(ctx context.Context, n *lab.Node) (string, error)
	// steps says what others than keepone did in a failover.
	steps(t takeover) []string
}

var plays = map[string]play{
	"keepone": {
		"forming the cluster: keepone init, keepone node add, keepone join, keepone volume create",
		func(ctx context.Context, l *lab.Lab) (troupe, error) { return form(ctx, l) },
	},
	"pacemaker": {
		"forming the cluster: keepone init, keepone node add, keepone join, keepone volume create; then corosync and Pacemaker " +
			"with what keepone pacemaker setup prints",
		func(ctx context.Context, l *lab.Lab) (troupe, error) {
			m, err := formManaged(ctx, l, managedKind{style: stylePromotable})
			if err != nil {
				return nil, err
			}
			return m, m.awaitReady(ctx)
		},
	},
}

func (c *cluster) keepones() *cluster { return c }

func (c *cluster) rejoin(ctx context.Context, n *lab.Node) error {
	if err := n.PowerOn(ctx); err != nil {
		return err
	}
	return c.awaitOnline(ctx, formLimit)
}

func (c *cluster) wake(ctx context.Context, n *lab.Node) (string, error) {
	if err := n.Continue(ctx); err != nil {
		return "", err
	}
	return n.Name + " went on, found itself cut off, and contained what was left of the service", c.awaitContained(ctx, n)
}

func (c *cluster) steps(takeover) []string { return nil }

// tell is the story: form, lose the holder's power, lose another holder to a hang that wakes too late.
func tell(ctx context.Context, t teller, l *lab.Lab, p play) (demoResult, error) {
	r := demoResult{Schema: 1}
	t.say("Ceph: %s", l.CephWords())
	t.say("%s", p.forming)
	all, err := p.form(ctx, l)
	if err != nil {
		return r, err
	}
	c := all.keepones()
	r.FormationSeconds = time.Since(t.began).Seconds()
	holder, epoch, err := c.holder(ctx, c.anyUp())
	if err != nil {
		return r, err
	}
	t.say("the front-end answers at %s, from a container on %s (epoch %d)", c.address, holder.Name, epoch)
	t.say("a client outside writes numbered records; cutting the power of %s now", holder.Name)
	cut, err := c.failOver(ctx, takeoverBound, powerCut)
	if err != nil {
		return r, err
	}
	r.From, r.To, r.Proof, r.Phases = cut.From.Name, cut.To.Name, cut.Event.Proof, cut.Event.Phases
	r.FailoverSeconds = cut.took().Seconds()
	t.say("the front-end answers again, on %s", cut.To.Name)
	c.timeline(ctx, t, cut, all.steps(cut))
	if err := nothingLost(cut.Verdict); err != nil {
		return r, err
	}
	t.say("bringing %s back; then every process of %s is stopped, to be woken after the takeover", cut.From.Name, cut.To.Name)
	if err := all.rejoin(ctx, cut.From); err != nil {
		return r, err
	}
	if err := c.lateWriter(ctx, t, &r, all.wake); err != nil {
		return r, err
	}
	again, err := cut.Client.Verify(ctx)
	if err != nil {
		return r, err
	}
	r.Acknowledged += again.Acknowledged
	r.Present += again.Acknowledged - len(again.Missing)
	if r.Present != r.Acknowledged {
		return r, fmt.Errorf("%d acknowledged records are missing", r.Acknowledged-r.Present)
	}
	fmt.Fprintf(t.out, "records: acknowledged=%d present=%d after-takeover-by-old-holder=%d\n", r.Acknowledged, r.Present, r.AfterTakeover)
	fmt.Fprintf(t.out, "failover: power cut to answering %.2f s\n", r.FailoverSeconds)
	return r, nil
}

// timeline shows where the time of a failover went, as the history has it, and what others did meanwhile.
func (c *cluster) timeline(ctx context.Context, t teller, cut takeover, steps []string) {
	fmt.Fprintf(t.out, "\n        %s lost → %s answers, proof %s\n", cut.From.Name, cut.To.Name, cut.Event.Proof)
	at := 0.0
	for _, phase := range []string{"detect", "fence", "decide", "storage", "start", "probe"} {
		seconds := cut.Event.Phases[phase]
		fmt.Fprintf(t.out, "        %-8s %6.2f s  %s%s\n", phase, seconds, strings.Repeat(" ", int(at*12)), strings.Repeat("█", max(1, int(seconds*12+0.5))))
		at += seconds
	}
	for _, step := range steps {
		fmt.Fprintf(t.out, "        %s\n", step)
	}
	events, err := c.history(ctx, cut.To)
	if err == nil {
		sort.Slice(events, func(i, j int) bool { return events[i].ID < events[j].ID })
		for _, e := range events[max(0, len(events)-9):] {
			fmt.Fprintf(t.out, "        %-10s %s\n", e.Kind, e.Reason)
		}
	}
	fmt.Fprintln(t.out)
}

// lateWriter pauses the holder, takes over, wakes it, and counts what it could still write: nothing.
func (c *cluster) lateWriter(ctx context.Context, t teller, r *demoResult, wake func(context.Context, *lab.Node) (string, error)) error {
	paused, err := c.failOver(ctx, takeoverBound, func(ctx context.Context, n *lab.Node) error { return n.Pause(ctx) })
	if err != nil {
		return err
	}
	r.PausedSeconds, r.PausedProof = paused.took().Seconds(), paused.Event.Proof
	t.say("%s was stopped; %s answers after %.2f s, by the proof of %s", paused.From.Name, paused.To.Name, r.PausedSeconds, r.PausedProof)
	before, err := lab.ReadRecords(ctx, c.address)
	if err != nil {
		return err
	}
	became, err := wake(ctx, paused.From)
	if err != nil {
		return err
	}
	after, err := lab.ReadRecords(ctx, c.address)
	if err != nil {
		return err
	}
	r.AfterTakeover = len(after) - len(before)
	t.say("%s", became)
	if err := c.sameRecords(ctx, before, paused.To); err != nil {
		return err
	}
	again, err := paused.Client.Verify(ctx)
	r.Acknowledged = again.Acknowledged
	r.Present = again.Acknowledged - len(again.Missing)
	return errors.Join(err, nothingLost(again))
}
