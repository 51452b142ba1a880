package guard

import (
	"time"

	"github.com/keepone-ha/keepone/pkg/boottime"
)

// Ledger is the leader's side of the leases: when the holder of a right has surely seen the end of its lease. An
// epoch is given once, so a right names one instance. It is pure and made anew with each leadership.
type Ledger struct {
	barrier boottime.Time
	wait    time.Duration
	acked   map[Right]boottime.Time // arrival of the newest heartbeat whose ack renewed it
}

// clockRate is by how much a holder's clock may run slower than the leader's: 1/500, four times the 500 ppm that
// NTP may slew.
const clockRate = 500

// NewLedger starts at the leader's barrier. An earlier leader may have acked a heartbeat that arrived just before
// it lost its quorum, hence before this barrier: so no lease has ended before one full lease from here.
func NewLedger(barrier boottime.Time, lease, margin time.Duration) *Ledger {
	return &Ledger{barrier: barrier, wait: lease + lease/clockRate + margin, acked: map[Right]boottime.Time{}}
}

// Acked notes that the heartbeat which arrived then is about to be acked with the right named. It is called before
// the ack is sent: an ack that was sent and not noted would outlive what this ledger knows.
func (l *Ledger) Acked(right Right, arrived boottime.Time) {
	if arrived > l.acked[right] {
		l.acked[right] = arrived
	}
}

// EndsAt is when every lease of the right has ended: counted from the arrival, which is never before the sending
// that the holder counts from.
func (l *Ledger) EndsAt(right Right) boottime.Time {
	return max(l.barrier, l.acked[right]).Add(l.wait)
}

// LeaseEnded reports whether the holder of the right must have contained itself by now (I5). It says nothing about
// writes that are in flight, and it is no proof by itself (I3).
func (l *Ledger) LeaseEnded(right Right, now boottime.Time) bool {
	return now >= l.EndsAt(right)
}
