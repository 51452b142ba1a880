package guard

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/release"
)

// service is one that has a record here and was not vacated.
type service struct {
	record  release.Record
	marks   [2]stamp // of record and marks, as last read
	state   HeldState
	busy    bool          // a containment is under way
	retry   boottime.Time // not before
	reasons []string      // of the last containment
}

func (s *service) right() Right { return Right{s.record.Service, s.record.Epoch} }

// verdict is how one containment ended.
type verdict struct {
	record release.Record
	report release.Contained
}

// scan takes up the records that changed. It runs with each heartbeat: a few stat calls cost less than a watch that
// may overflow.
func (g *Guard) scan(now boottime.Time) {
	entries, err := os.ReadDir(filepath.Join(g.o.RunDir, "services"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		g.warn("services", err)
		return // what was known stays known
	}
	here := map[core.ServiceName]bool{}
	for _, entry := range entries {
		name := core.ServiceName(entry.Name())
		here[name] = true
		g.look(name, now)
	}
	for name, s := range g.services {
		if !here[name] && !s.busy {
			delete(g.services, name)
		}
	}
}

func (g *Guard) look(name core.ServiceName, now boottime.Time) {
	dir := release.Dir(g.o.RunDir, name)
	record, err := stampOf(filepath.Join(dir, "record.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return // nothing has been done yet
	}
	marks, _ := stampOf(filepath.Join(dir, "marks"))
	s := g.services[name]
	if s != nil && s.marks == [2]stamp{record, marks} {
		return
	}
	r, err := release.Load(g.o.RunDir, name)
	if err != nil {
		g.warn("record of "+string(name), err)
		if s != nil {
			return // its last readable record still stands
		}
		// Whatever it is, it can't be contained: it is given a lease's time and then shown as stuck.
		r = release.Record{Service: name}
	} else {
		g.well("record of " + string(name))
	}
	g.take(s, r, [2]stamp{record, marks}, now)
}

// take replaces what is known of a service by r.
func (g *Guard) take(s *service, r release.Record, marks [2]stamp, now boottime.Time) {
	if r.Marks.Vacated {
		delete(g.services, r.Service)
		return
	}
	if s == nil || s.record.Epoch != r.Epoch || s.record.Attempt != r.Attempt {
		busy := s != nil && s.busy
		s = &service{busy: busy}
		g.services[r.Service] = s
	}
	s.record, s.marks = r, marks
	if r.Marks.Contained {
		s.state, s.reasons = HeldContained, nil
	}
	if g.leases.See(s.right(), now) {
		g.save()
	}
}

func (g *Guard) save() {
	if err := g.leases.saveMemory(g.o.RunDir); err != nil {
		g.warn(memoryName, err) // a restarted guard will contain too soon, never too late
		return
	}
	g.well(memoryName)
}

// expire starts the containment of whatever has no lease any more (I5), each in a goroutine of its own: one that
// hangs keeps neither the others nor the heartbeats.
func (g *Guard) expire(ctx context.Context, now boottime.Time) {
	for _, s := range g.services {
		if s.state == HeldContained || s.busy || now < s.retry || now < g.leases.Deadline(s.right()) {
			continue
		}
		s.busy = true
		g.o.Log.Warn("lease has ended, containing", "service", s.record.Service, "epoch", s.record.Epoch,
			"attempt", s.record.Attempt, "late", now.Sub(g.leases.Deadline(s.right())))
		record := s.record
		g.work.Go(func() {
			report := g.o.Contain(ctx, record, release.LeaseEnded)
			g.report(ctx, verdict{record, report})
		})
	}
}

func (g *Guard) report(ctx context.Context, v verdict) {
	select {
	case g.io.ended <- v:
		g.wake()
	case <-ctx.Done():
	}
}

func (g *Guard) collect(now boottime.Time) {
	for {
		select {
		case v := <-g.io.ended:
			g.ended(v, now)
		default:
			return
		}
	}
}

func (g *Guard) ended(v verdict, now boottime.Time) {
	s := g.services[v.record.Service]
	if s == nil {
		return
	}
	s.busy = false
	if s.record.Epoch != v.record.Epoch || s.record.Attempt != v.record.Attempt {
		return // a newer attempt is here, with a deadline of its own
	}
	s.reasons = v.report.Reasons
	log := g.o.Log.With("service", v.record.Service, "epoch", v.record.Epoch, "attempt", v.record.Attempt,
		"took", v.report.Took, "reasons", strings.Join(v.report.Reasons, "; "))
	if v.report.Done {
		s.state = HeldContained
		log.Info("contained")
		return
	}
	if s.state != HeldStuck {
		log.Error("can't be contained, trying on")
	}
	s.state, s.retry = HeldStuck, now.Add(retryContain)
}

// nextDeadline is when expire has something to do next.
func (g *Guard) nextDeadline(now boottime.Time) boottime.Time {
	next := now.Add(g.conf.Heartbeat)
	for _, s := range g.services {
		if s.state != HeldContained && !s.busy {
			next = min(next, max(g.leases.Deadline(s.right()), s.retry))
		}
	}
	return next
}

// overdue names what should be contained for so long that something is wrong.
func (g *Guard) overdue(now boottime.Time) []core.ServiceName {
	var names []core.ServiceName
	for name, s := range g.services {
		if s.state != HeldContained && now.Sub(g.leases.Deadline(s.right())) > overdueAfter {
			names = append(names, name)
		}
	}
	return names
}

// held lists the services for a heartbeat, in equal order each time.
func (g *Guard) held() []Held {
	held := make([]Held, 0, len(g.services))
	for _, s := range g.services {
		held = append(held, Held{s.right(), s.state})
	}
	slices.SortFunc(held, func(a, b Held) int { return compareRights(a.Right, b.Right) })
	return held
}

func (g *Guard) holds(right Right) bool {
	s := g.services[right.Service]
	return s != nil && s.right() == right
}
