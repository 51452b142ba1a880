package lab

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keepone-ha/keepone/test/linear"
)

const (
	// userPace is what a user waits between two calls, in the middle: a few dozen records a second are enough to meet
	// every moment of a failover, and leave the machine to the cluster.
	userPace = 60 * time.Millisecond
	// Of so many calls one is a count, and one of many more a list, which carries every record there is.
	countEvery, listEvery = 6, 120
)

// Users are clients outside of all nodes that append numbered records and read them. Every call is kept with what came of
// it, so that it can be judged afterwards.
type Users struct {
	addr    string
	numbers *atomic.Uint64 // the lab's
	began   time.Time
	stop    context.CancelFunc
	wait    sync.WaitGroup

	mu    sync.Mutex
	ops   []linear.Op
	acked []time.Time
}

// Users starts n of them on the front-end at an address, until Stop.
func (l *Lab) Users(ctx context.Context, address string, n int) *Users {
	ctx, stop := context.WithCancel(ctx)
	u := &Users{addr: address, numbers: &l.records, began: time.Now(), stop: stop}
	for i := range n {
		u.wait.Go(func() { u.run(ctx, i) })
	}
	return u
}

// Stop ends the calls and waits for the last of them.
func (u *Users) Stop() {
	u.stop()
	u.wait.Wait()
}

// Ops are all calls that were sent so far.
func (u *Users) Ops() []linear.Op {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.ops)
}

func (u *Users) run(ctx context.Context, client int) {
	var conn *recordConn
	defer func() { conn.close() }()
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(userPace/2 + rand.N(userPace)):
		}
		if conn == nil {
			conn = dialRecords(ctx, u.addr)
		}
		if conn == nil {
			continue // nothing was sent
		}
		op := linear.Op{Client: client, Kind: linear.Append}
		switch {
		case rand.N(listEvery) == 0:
			op.Kind = linear.List
		case rand.N(countEvery) == 0:
			op.Kind = linear.Count
		}
		u.call(conn, &op)
		if !op.Known {
			conn.close()
			conn = nil
		}
	}
}

// call sends one and keeps it.
func (u *Users) call(conn *recordConn, op *linear.Op) {
	if op.Kind == linear.Append {
		op.Number = u.numbers.Add(1) // one that got no answer is not used again
	}
	op.Call = time.Since(u.began)
	var err error
	switch op.Kind {
	case linear.Append:
		err = conn.append(op.Number)
	case linear.Count:
		op.Seen, err = conn.count()
	case linear.List:
		op.Records, err = conn.list()
		op.Seen = len(op.Records)
	}
	now := time.Now()
	op.Return, op.Known = now.Sub(u.began), err == nil
	u.mu.Lock()
	defer u.mu.Unlock()
	u.ops = append(u.ops, *op)
	if op.Known && op.Kind == linear.Append {
		u.acked = append(u.acked, now)
	}
}

// AckedAfter is true once a record was acknowledged after a moment.
func (u *Users) AckedAfter(moment time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.acked) > 0 && u.acked[len(u.acked)-1].After(moment)
}

// LongestGap is the longest time without an acknowledgement to any of them that ended after a moment.
func (u *Users) LongestGap(after time.Time) Gap {
	u.mu.Lock()
	defer u.mu.Unlock()
	var longest Gap
	for i := len(u.acked) - 1; i > 0 && u.acked[i].After(after); i-- {
		if g := (Gap{Last: u.acked[i-1], First: u.acked[i]}); g.Length() > longest.Length() {
			longest = g
		}
	}
	return longest
}
