package sim

import (
	"context"
	"fmt"
	"time"

	"github.com/keepone-ha/keepone/pkg/drive/ipmi"
)

// bmc is a node's own BMC. It has power of its own.
type bmc struct {
	n       *node
	guid    string
	dead    bool
	slow    time.Duration
	lies    bool  // says off, and does nothing
	flaps   bool  // says what it likes
	swapped *node // its address answers for that node
	refuses error // every login
	silent  bool  // does what it is told, and its answer is lost
	lag     time.Duration
	lied    bool // a reading of off was handed out while power was on
}

func newBMC(n *node) *bmc {
	return &bmc{n: n, guid: guidOf(n.id), lag: 200 * time.Millisecond}
}

func guidOf(id int) string { return fmt.Sprintf("a123456789abcdefa123456789ab%04x", id+1) }

// line is a BMC as one process reaches it.
type line struct {
	p *process
	s *span
	b *bmc
}

func (l line) call() (*bmc, error) {
	w, b := l.p.w, l.b
	took := w.between(5*time.Millisecond, 20*time.Millisecond) + b.slow
	if b.dead {
		took = 3 * time.Second
	}
	if err := (hand{l.p, l.s}).Pause(l.s, took); err != nil {
		return nil, err
	}
	if b.dead {
		return nil, ipmi.ErrUnreachable
	}
	if b.refuses != nil {
		return nil, b.refuses
	}
	if b.swapped != nil {
		return b.swapped.bmc, nil
	}
	return b, nil
}

func (l line) Power(context.Context) (ipmi.Reading, error) {
	at := l.p.n.read()
	b, err := l.call()
	if err != nil {
		return ipmi.Reading{}, err
	}
	off := !b.n.power
	switch {
	case l.b.lies:
		off = true
	case l.b.flaps:
		off = l.p.w.chance(0.4)
	}
	if off && b.n.power {
		l.b.lied = true
	}
	if off {
		return ipmi.Reading{State: ipmi.Off, At: at}, nil
	}
	return ipmi.Reading{State: ipmi.On, At: at}, nil
}

func (l line) Off(context.Context) error {
	b, err := l.call()
	if err != nil {
		return err
	}
	if !l.b.lies {
		l.p.w.say("power-off of %s is ordered by %s", b.n.name, l.p.n.name)
		l.p.w.at(b.lag, b.n.cut)
	}
	if l.b.silent {
		return ipmi.ErrUnreachable
	}
	return nil
}

func (l line) Identity(context.Context) (string, error) {
	b, err := l.call()
	if err != nil {
		return "", err
	}
	return b.guid, nil
}
