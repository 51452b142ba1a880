package fence_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepone-ha/keepone/pkg/drive/ipmi"
	"github.com/keepone-ha/keepone/pkg/fence"
)

func TestPowerOn(t *testing.T) {
	for name, row := range map[string]struct {
		machine machine
		want    error
		orders  int
	}{
		"off":             {machine: off(), orders: 1},
		"on":              {machine: on()},
		"another machine": {machine: with(off(), func(m *machine) { m.guid = otherGUID }), want: fence.ErrIdentity},
		"takes no effect": {machine: with(off(), func(m *machine) { m.lies = true }), want: context.DeadlineExceeded, orders: 3},
		"wrong password":  {machine: with(off(), func(m *machine) { m.fails = ipmi.ErrPassword }), want: ipmi.ErrPassword},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				if err := fence.PowerOn(ctx, &row.machine, ourGUID); !errors.Is(err, row.want) {
					t.Errorf("%v, want %v", err, row.want)
				}
				if row.machine.started != row.orders {
					t.Errorf("ordered on %d times, want %d", row.machine.started, row.orders)
				}
			})
		})
	}
}

func TestReadPower(t *testing.T) {
	for name, row := range map[string]struct {
		machine machine
		want    ipmi.State
	}{
		"off":             {machine: off(), want: ipmi.Off},
		"on":              {machine: on(), want: ipmi.On},
		"another machine": {machine: with(off(), func(m *machine) { m.guid = otherGUID })},
		"vague":           {machine: with(off(), func(m *machine) { m.vague, m.reads = true, 1 })},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				state, err := fence.ReadPower(t.Context(), &row.machine, ourGUID)
				if state != row.want || (err == nil) != (row.want != ipmi.Unknown) {
					t.Errorf("%s, %v", state, err)
				}
			})
		})
	}
}
