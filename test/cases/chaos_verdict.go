package cases

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/test/lab"
	"github.com/keepone-ha/keepone/test/linear"
)

// verdict is build/chaos.json.
type verdict struct {
	Schema        int      `json:"schema"`
	Manager       string   `json:"manager"`
	Seed          uint64   `json:"seed"`
	Seconds       int      `json:"seconds"`
	Faults        int      `json:"faults"`
	Kinds         int      `json:"kinds"`
	Failovers     int      `json:"failovers"`
	RTOMedian     float64  `json:"rto_median"`
	RTOMax        float64  `json:"rto_max"`
	Acked         int      `json:"acked"`
	Lost          int      `json:"lost"`
	DoubleWriters int      `json:"double_writers"`
	Unexplained   int      `json:"unexplained"`
	LeftBehind    int      `json:"left_behind"`
	Violations    []string `json:"violations"`
}

// print is the end of a storm: what was found, and its one line of figures.
func (v verdict) print(out io.Writer) error {
	for _, words := range v.Violations {
		fmt.Fprintf(out, "violation (seed %d, manager %s): %s\n", v.Seed, v.Manager, words)
	}
	fmt.Fprintf(out, "chaos: seed=%d seconds=%d faults=%d kinds=%d failovers=%d rto_median=%.1f rto_max=%.1f acked=%d lost=%d double_writers=%d unexplained=%d left_behind=%d\n",
		v.Seed, v.Seconds, v.Faults, v.Kinds, v.Failovers, v.RTOMedian, v.RTOMax, v.Acked, v.Lost, v.DoubleWriters, v.Unexplained, v.LeftBehind)
	if len(v.Violations) > 0 {
		return fmt.Errorf("%w: seed %d: %s", errViolation, v.Seed, v.Violations[0])
	}
	return nil
}

func (v verdict) write(path string) error {
	if v.Violations == nil {
		v.Violations = []string{}
	}
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode figures: %w", err)
	}
	if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write figures: %w", err)
	}
	return nil
}

// judge looks at everything once no fault is left.
func (s *storm) judge(ctx context.Context) (verdict, error) {
	s.tell.say("no more faults; judging")
	seconds := int(time.Since(s.began).Seconds())
	s.users.Stop()
	v := verdict{
		Schema: 1, Manager: s.orders.Manager, Seed: s.orders.Seed, Seconds: seconds, Faults: s.faults, Kinds: len(s.kinds),
		Violations: s.wrong,
	}
	if len(s.gaps) > 0 {
		slices.Sort(s.gaps)
		v.RTOMedian, v.RTOMax = s.gaps[len(s.gaps)/2].Seconds(), s.gaps[len(s.gaps)-1].Seconds()
	}
	if err := s.judgeRecords(ctx, &v); err != nil {
		return v, err
	}
	if err := s.remember(ctx); err != nil {
		return v, err
	}
	past := s.past()
	for _, e := range past {
		if e.Kind == "failover" && e.Epoch > s.epoch {
			v.Failovers++
		}
	}
	turns, again := s.Turns()
	strange := ungranted(past, turns, s.began, s.nodeOf)
	for _, t := range again {
		v.Violations = append(v.Violations, fmt.Sprintf("two writers: client %s wrote again at %s, after another one had", t.Client, t.From.Format(time.TimeOnly)))
	}
	v.DoubleWriters = len(again)
	unexplained := slices.Concat(s.unexplained, unexplained(past, s.epoch), strange)
	v.Unexplained = len(unexplained)
	left, err := s.leftBehind(ctx)
	v.LeftBehind = len(left)
	v.Violations = slices.Concat(v.Violations, unexplained, left)
	s.tell.say("%d clients of Ceph wrote, one after the other; %d events tell of %d failovers", len(turns), len(past), v.Failovers)
	return v, err
}

// judgeRecords reads back what is there and has every call judged; the calls are kept with the logs.
func (s *storm) judgeRecords(ctx context.Context, v *verdict) error {
	ops := s.users.Ops()
	there, err := lab.ReadRecords(ctx, s.address)
	if err != nil {
		v.Violations = append(v.Violations, fmt.Sprintf("the records can't be read, and are not judged: %v", err))
		return nil
	}
	text, err := json.Marshal(map[string]any{"ops": ops, "there": there})
	if err == nil {
		err = os.WriteFile(filepath.Join(s.work, "records.json"), text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("keep records: %w", err)
	}
	began := time.Now()
	found := linear.Check(ops, there, time.Minute)
	v.Acked, v.Lost = found.Acked, len(found.Lost)
	s.tell.say("%d calls judged in %.1f s: %d records acknowledged, %d there", len(ops), time.Since(began).Seconds(), found.Acked, len(there))
	if len(found.Lost) > 0 {
		v.Violations = append(v.Violations, fmt.Sprintf("acknowledged and lost: %v", found.Lost[:min(len(found.Lost), 10)]))
	}
	if len(found.Strange) > 0 {
		v.Violations = append(v.Violations, fmt.Sprintf("there twice, or never sent: %v", found.Strange[:min(len(found.Strange), 10)]))
	}
	if found.Wrong != "" {
		v.Violations = append(v.Violations, "the records are not linearizable: "+found.Wrong)
	}
	return nil
}

// unexplained are epochs after one that the history does not account for: how the one before ended, and, where a holder was
// lost, the one event that tells the whole.
func unexplained(past []event, after uint64) []string {
	grants, ended, arrived := map[uint64]event{}, map[uint64]bool{}, map[uint64]event{}
	last := after
	for _, e := range past {
		switch e.Kind {
		case "grant":
			grants[e.Epoch] = e
			last = max(last, e.Epoch)
		case "vacated":
			ended[e.Epoch] = true
		case "failover", "switchover", "started":
			if _, twice := arrived[e.Epoch]; !twice {
				arrived[e.Epoch] = e
			}
		}
	}
	var missing []string
	for epoch := after + 1; epoch <= last; epoch++ {
		g, known := grants[epoch]
		a, came := arrived[epoch]
		switch {
		case !known:
			missing = append(missing, fmt.Sprintf("the history has no grant of epoch %d", epoch))
		case g.Proof == "" && !ended[epoch-1]:
			missing = append(missing, fmt.Sprintf("the history does not say how epoch %d ended before epoch %d was granted to %s", epoch-1, epoch, g.To))
		case came && g.Proof != "" && (a.Kind != "failover" || a.From == "" || a.To == "" || a.Proof == "" || a.Phases["total"] <= 0):
			missing = append(missing, fmt.Sprintf("the history does not tell the failover to epoch %d as a whole: %+v", epoch, a))
		}
	}
	return missing
}

// ungranted are turns of writing by a node that the newest grant then was not for.
func ungranted(past []event, turns []lab.Turn, began time.Time, nodeOf func(client string) string) []string {
	var strange []string
	for _, t := range turns {
		if t.From.Before(began) {
			continue
		}
		holder := ""
		for _, e := range past {
			if e.Kind == "grant" && !e.At.After(t.From) {
				holder = e.To
			}
		}
		if node := nodeOf(t.Client); node != holder {
			strange = append(strange, fmt.Sprintf("client %s of %q began to write at %s, when the grant was with %q", t.Client, node, t.From.Format(time.TimeOnly), holder))
		}
	}
	return strange
}

// nodeOf names the node that a Ceph client is on, by its address.
func (s *storm) nodeOf(client string) string {
	for _, n := range s.Nodes() {
		if strings.HasPrefix(client, n.Address(0)+":") {
			return n.Name
		}
	}
	return ""
}

// restBound is how long a healed cluster may take to clean up: a contained holder's next stop may come after a minute.
const restBound = 90 * time.Second

// leftBehind waits for the rest of the clean-up, and says what is there still.
func (s *storm) leftBehind(ctx context.Context) (left []string, err error) {
	began := time.Now()
	_ = await(ctx, restBound, "a cluster at rest", func() error {
		if left, err = s.remaining(ctx); err == nil && len(left) > 0 {
			return errors.New(strings.Join(left, "; "))
		}
		return err
	})
	s.Logf("at rest after %s", time.Since(began))
	return left, err
}

// remaining is what a cluster at rest must not have: anything of the service on another node than its holder, a second
// client at the image, a request or a complaint.
func (s *storm) remaining(ctx context.Context) ([]string, error) {
	holder, _, err := s.holder(ctx, s.anyUp())
	if err != nil {
		return []string{fmt.Sprintf("no holder at the end: %v", err)}, nil
	}
	var left []string
	for _, n := range s.Nodes() {
		found, err := remains(ctx, n, n == holder)
		if err != nil {
			return nil, err
		}
		left = append(left, found...)
	}
	client, err := s.locker(ctx)
	if err != nil {
		return nil, err
	}
	if s.nodeOf(client) != holder.Name {
		left = append(left, fmt.Sprintf("the image's lock is with %q, the service on %s", client, holder.Name))
	}
	now, err := s.status(ctx, s.anyUp())
	if err != nil {
		return nil, err
	}
	for _, p := range now.Problems {
		left = append(left, fmt.Sprintf("keepone status still complains: %s: %s", p.About, p.Text))
	}
	if s.managed != nil {
		if err := s.managed.noConstraintStays(ctx); err != nil {
			left = append(left, err.Error())
		}
	}
	return left, nil
}

// remains counts what a service has on a node: processes, mounts, the mapper. A holder has one of each kind, others nothing.
func remains(ctx context.Context, n *lab.Node, holds bool) ([]string, error) {
	out, err := n.Exec(ctx, "sh", "-c", `
		echo mounts $(grep -c " /var/lib/keepone/volumes/`+service+` " /proc/mounts)
		echo mappers $(cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' ' ' | grep -o "[k]eeponed helper map" | wc -l)
		true`)
	if err != nil {
		return nil, err
	}
	want := "0"
	if holds {
		want = "1"
	}
	var left []string
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) == 2 && fields[1] != want {
			left = append(left, fmt.Sprintf("%s has %s %s, expected %s", n.Name, fields[1], fields[0], want))
		}
	}
	if populated(n) != holds {
		left = append(left, fmt.Sprintf("%s has processes of the service: %v, expected %v", n.Name, !holds, holds))
	}
	return left, nil
}
