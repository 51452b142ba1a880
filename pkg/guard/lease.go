package guard

import (
	"errors"
	"time"

	"github.com/keepone-ha/keepone/pkg/boottime"
)

// Leases is the holder's side: which rights this instance has and until when. It is pure: time is an argument,
// and always the node's own CLOCK_BOOTTIME.
type Leases struct {
	until       map[Right]boottime.Time // end of each lease that was acknowledged, forgotten some time after
	seen        map[Right]boottime.Time // when a record was first seen
	sent        [sentKept]sending       // ring of the newest heartbeats
	beats       int                     // how many were noted in it
	term        uint64                  // highest seen
	lease       time.Duration           // newest seen
	order       ackOrder                // of the ack that set maintenance
	maintenance boottime.Time           // leases are not enforced until then
}

type sending struct {
	seq uint64
	at  boottime.Time
}

type ackOrder struct{ term, seq uint64 }

const (
	// sentKept heartbeats cover 50 s at the default interval: an ack of an older one would renew nothing anyway.
	sentKept = 256
	// forgetAfter bounds the memory of rights that nobody has any more.
	forgetAfter = 10 * time.Minute
	// maxRights bounds it too: more can't be named in a heartbeat.
	maxRights = 256
)

// The reasons why an ack does not count.
var (
	ErrNotSent = errors.New("ack of a heartbeat that was not sent")
	ErrOldTerm = errors.New("ack of a leader of an earlier term")
)

// NewLeases starts without any right. lease is the grace of a record that never had one, until an ack says
// otherwise.
func NewLeases(lease time.Duration) *Leases {
	return &Leases{until: map[Right]boottime.Time{}, seen: map[Right]boottime.Time{}, lease: lease}
}

// Sent notes a heartbeat before it leaves. seq rises.
func (l *Leases) Sent(seq uint64, at boottime.Time) {
	l.sent[l.beats%sentKept] = sending{seq, at} // not by seq: that is a clock's reading, and would share places
	l.beats++
}

// wasSent reports whether this very heartbeat is one of the newest that were sent.
func (l *Leases) wasSent(s sending) bool {
	for i := l.beats - 1; i >= 0 && i >= l.beats-sentKept; i-- { // as a rule it is the last one or the one before
		if l.sent[i%sentKept] == s {
			return true
		}
	}
	return false
}

// Ack takes up what the leader acknowledged and reports whether anything changed. The caller has checked MAC,
// cluster and instance. Each lease runs from our own sending, so a slow answer makes it short, never long (I5);
// only what the ack names is renewed (I4); an older ack never shortens what a newer one gave.
func (l *Leases) Ack(a Ack) (changed bool, err error) {
	if !l.wasSent(sending{a.Seq, a.Sent}) {
		return false, ErrNotSent
	}
	if a.Term < l.term {
		return false, ErrOldTerm
	}
	l.term, l.lease = a.Term, a.Lease
	for _, right := range a.Grants {
		until, had := l.until[right]
		fresh := a.Sent.Add(a.Lease)
		if !had && len(l.until) >= maxRights || had && fresh <= until {
			continue
		}
		l.until[right] = fresh
		changed = true
	}
	if order := (ackOrder{a.Term, a.Seq}); order.newer(l.order) {
		l.order = order
		end := boottime.Time(0)
		if a.Maintenance > 0 {
			end = a.Sent.Add(a.Maintenance)
		}
		changed = changed || end != l.maintenance
		l.maintenance = end
	}
	return changed, nil
}

func (o ackOrder) newer(than ackOrder) bool {
	return o.term > than.term || (o.term == than.term && o.seq > than.seq)
}

// See notes that a record of right is here, and reports whether it is new.
func (l *Leases) See(right Right, now boottime.Time) bool {
	if _, known := l.seen[right]; known {
		return false
	}
	l.seen[right] = now
	return true
}

// Deadline is when right must be contained: the end of its lease; one lease after its record was first seen if it
// never had one; not before the end of an accepted maintenance.
func (l *Leases) Deadline(right Right) boottime.Time {
	until, had := l.until[right]
	if !had {
		if seen, known := l.seen[right]; known {
			until = seen.Add(l.lease)
		}
	}
	return max(until, l.maintenance)
}

// Until is the end of the lease of right that the leader acknowledged; ok is false if there is none that still runs.
// An accepted maintenance prolongs a lease that was given, it gives none (I4).
func (l *Leases) Until(right Right, now boottime.Time) (until boottime.Time, ok bool) {
	until, had := l.until[right]
	if !had {
		return 0, false
	}
	until = max(until, l.maintenance)
	return until, now < until
}

// InMaintenance reports whether leases are not enforced now.
func (l *Leases) InMaintenance(now boottime.Time) bool { return now < l.maintenance }

// Term is the highest that an ack carried.
func (l *Leases) Term() uint64 { return l.term }

// Forget drops what ended long ago and is not held any more.
func (l *Leases) Forget(now boottime.Time, held func(Right) bool) {
	for right, until := range l.until {
		if now.Sub(until) > forgetAfter && !held(right) {
			delete(l.until, right)
		}
	}
	for right := range l.seen {
		if _, had := l.until[right]; !had && !held(right) {
			delete(l.seen, right)
		}
	}
}
