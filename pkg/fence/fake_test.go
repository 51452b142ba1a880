package fence_test

import (
	"context"
	"sync"
	"time"

	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/drive/ipmi"
	"github.com/keepone-ha/keepone/pkg/worker"
)

const (
	ourGUID   = "a123456789abcdefa123456789abcd01"
	otherGUID = "a123456789abcdefa123456789abcd02"
)

// fakes guards all fakes: they are copied about as values.
var fakes sync.Mutex

// machine is a fake BMC with the machine behind it.
type machine struct {
	guid   string
	off    bool
	slow   time.Duration // each call takes this long
	lag    time.Duration // from an order to its effect
	lies   bool          // takes orders, does nothing
	flaps  time.Duration // power changes by itself this often
	frozen bool          // hands out one old reading again and again
	dead   bool
	fails  error // every call
	noOff  error // the order alone
	noGUID error
	vague  bool // from the second reading on it says neither on nor off
	hides  int  // so many times its identity can't be read

	orders  []time.Time // of power-off
	started int         // orders of power on
	reads   int
	begun   time.Time
}

// call takes as long as the BMC does.
func (m *machine) call(ctx context.Context) error {
	fakes.Lock()
	if m.begun.IsZero() {
		m.begun = time.Now()
	}
	dead, slow, fails := m.dead, m.slow, m.fails
	fakes.Unlock()
	if dead {
		slow = 3 * time.Second
		fails = ipmi.ErrUnreachable
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(slow):
		return fails
	}
}

func (m *machine) Power(ctx context.Context) (ipmi.Reading, error) {
	at := time.Now()
	if err := m.call(ctx); err != nil {
		return ipmi.Reading{}, err
	}
	fakes.Lock()
	defer fakes.Unlock()
	m.reads++
	off := m.off
	if len(m.orders) > 0 && !m.lies && time.Since(m.orders[0]) >= m.lag {
		off = true
	}
	if m.flaps > 0 && (time.Since(m.begun)/m.flaps)%2 == 1 {
		off = !off
	}
	if m.frozen {
		at = m.begun
	}
	reading := ipmi.Reading{State: ipmi.On, At: boottime.Time(at.UnixNano())}
	if off {
		reading.State = ipmi.Off
	}
	if m.vague && m.reads > 1 {
		reading.State = ipmi.Unknown
	}
	return reading, nil
}

func (m *machine) Off(ctx context.Context) error {
	if err := m.call(ctx); err != nil {
		return err
	}
	fakes.Lock()
	defer fakes.Unlock()
	if m.noOff != nil {
		return m.noOff
	}
	m.orders = append(m.orders, time.Now())
	return nil
}

func (m *machine) On(ctx context.Context) error {
	if err := m.call(ctx); err != nil {
		return err
	}
	fakes.Lock()
	defer fakes.Unlock()
	m.started++
	m.off, m.orders = m.lies, nil
	return nil
}

func (m *machine) Identity(ctx context.Context) (string, error) {
	if err := m.call(ctx); err != nil {
		return "", err
	}
	fakes.Lock()
	defer fakes.Unlock()
	if m.hides > 0 {
		m.hides--
		return "", ipmi.ErrUnreachable
	}
	return m.guid, m.noGUID
}

func (m *machine) Check(ctx context.Context) (ipmi.Report, error) {
	guid, err := m.Identity(ctx)
	if err != nil {
		return ipmi.Report{}, err
	}
	power, err := m.Power(ctx)
	return ipmi.Report{GUID: guid, Power: power}, err
}

func (m *machine) Close() error { return nil }

// storage is a fake that answers after took with what say gives, by the number of the call.
type storage struct {
	took time.Duration
	say  func(call int) (worker.CutOffDid, error)

	calls int
	began []time.Time
}

func (s *storage) CutOff(ctx context.Context, _ worker.CutOff) (worker.CutOffDid, error) {
	fakes.Lock()
	s.calls++
	call := s.calls
	s.began = append(s.began, time.Now())
	fakes.Unlock()
	select {
	case <-ctx.Done():
		return worker.CutOffDid{}, ctx.Err()
	case <-time.After(s.took):
		return s.say(call)
	}
}

func cuts(int) (worker.CutOffDid, error) {
	return worker.CutOffDid{Blocklisted: []string{"10.0.0.1:0/7"}, OSDMapEpoch: 12}, nil
}

func fails(code worker.Code) func(int) (worker.CutOffDid, error) {
	return func(int) (worker.CutOffDid, error) {
		return worker.CutOffDid{}, &worker.Failure{Code: code, Message: string(code)}
	}
}

func leavesWatchers(int) (worker.CutOffDid, error) {
	return worker.CutOffDid{Watchers: []string{"10.0.0.1:0/8"}}, nil
}
