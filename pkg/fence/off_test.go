package fence_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/drive/ipmi"
	"github.com/keepone-ha/keepone/pkg/fence"
)

func TestReadOff(t *testing.T) {
	rows := map[string]struct {
		machine machine
		any     bool // no GUID is configured
		want    error
	}{
		"off":                 {machine: off()},
		"off, any identity":   {machine: with(off(), func(m *machine) { m.noGUID = ipmi.ErrGUID }), any: true},
		"on":                  {machine: on(), want: fence.ErrOn},
		"off, then on":        {machine: with(off(), func(m *machine) { m.flaps = gap }), want: fence.ErrUnsure},
		"off, then unknown":   {machine: with(off(), func(m *machine) { m.vague = true }), want: fence.ErrUnsure},
		"one reading twice":   {machine: with(off(), func(m *machine) { m.frozen = true }), want: fence.ErrUnsure},
		"another machine":     {machine: with(off(), func(m *machine) { m.guid = otherGUID }), want: fence.ErrIdentity},
		"no identity":         {machine: with(off(), func(m *machine) { m.noGUID = ipmi.ErrGUID }), want: ipmi.ErrGUID},
		"empty identity":      {machine: with(off(), func(m *machine) { m.guid = "" }), want: fence.ErrIdentity},
		"dead":                {machine: machine{guid: ourGUID, dead: true}, want: ipmi.ErrUnreachable},
		"dead, any identity":  {machine: machine{guid: ourGUID, dead: true}, any: true, want: ipmi.ErrUnreachable},
		"wrong password, any": {machine: with(off(), func(m *machine) { m.fails = ipmi.ErrPassword }), any: true, want: ipmi.ErrPassword},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				guid := ourGUID
				if row.any {
					guid = ""
				}
				proof, err := fence.ReadOff(t.Context(), &row.machine, guid, gap)
				if !errors.Is(err, row.want) || (row.want == nil) != (proof.Kind == core.ProofBMCOff) {
					t.Errorf("ReadOff = %+v, %v; want %v", proof, err, row.want)
				}
				if len(row.machine.orders) > 0 {
					t.Error("ordered power-off")
				}
				if row.want == nil && row.machine.reads != 2 {
					t.Errorf("%d readings", row.machine.reads)
				}
			})
		})
	}
}

func TestReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		machines := map[core.NodeName]*machine{}
		opened := 0
		reader := fence.NewReader(func(name core.NodeName, _ core.BMCSpec) (fence.Handle, error) {
			opened++
			if name == "broken" {
				return nil, ipmi.ErrConfig
			}
			return machines[name], nil
		})
		spec := func(name core.NodeName, address string, m machine) core.NodeSpec {
			machines[name] = &m
			return core.NodeSpec{Name: name, BMC: &core.BMCSpec{Address: address, GUID: ourGUID}}
		}
		nodes := []core.NodeSpec{
			spec("fine", "1", on()), spec("off", "2", off()), spec("swapped", "3", with(on(), func(m *machine) { m.guid = otherGUID })),
			spec("locked", "4", with(on(), func(m *machine) { m.fails = ipmi.ErrPassword })),
			{Name: "broken", BMC: &core.BMCSpec{}},
			{Name: "bare"},
		}
		reader.Update(nodes)
		for name, want := range map[core.NodeName]error{
			"fine": nil, "off": fence.ErrIdentity, "swapped": fence.ErrIdentity, "locked": ipmi.ErrPassword,
			"broken": ipmi.ErrConfig, "bare": fence.ErrNoBMC, "nobody": fence.ErrNoBMC,
		} {
			if err := reader.Ready(t.Context(), name, true); !errors.Is(err, want) {
				t.Errorf("Ready(%s) = %v, want %v", name, err, want)
			}
		}
		if err := reader.Ready(t.Context(), "off", false); err != nil {
			t.Errorf("off and silent: %v", err)
		}
		if _, err := reader.ReadOff(t.Context(), "off", gap); err != nil {
			t.Error(err)
		}
		before := opened
		nodes[0].BMC = &core.BMCSpec{Address: "9", GUID: ourGUID}
		reader.Update(nodes)
		if opened != before+2 { // the changed one, and the broken one again
			t.Errorf("opened %d more", opened-before)
		}
		reader.Close()
		if _, _, err := reader.BMC("fine"); !errors.Is(err, fence.ErrNoBMC) {
			t.Errorf("after Close: %v", err)
		}
	})
}

func TestWatchReportsEachNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fine := on()
		reader := fence.NewReader(func(core.NodeName, core.BMCSpec) (fence.Handle, error) { return &fine, nil })
		bmc := &core.BMCSpec{GUID: ourGUID}
		reader.Update([]core.NodeSpec{{Name: "a", BMC: bmc}, {Name: "self", BMC: bmc}})
		reports := 0
		done := make(chan struct{})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		go func() {
			defer close(done)
			reader.Watch(ctx, "self", time.Minute, func(core.NodeName) bool { return true }, func(node core.NodeName, err error) {
				reports++
				if err != nil || node == "self" {
					t.Errorf("%s: %v", node, err)
				}
			})
		}()
		<-done
		if reports < 5 || reports > 20 {
			t.Errorf("%d reports in ten minutes", reports)
		}
	})
}
