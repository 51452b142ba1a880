package cases

import (
	"strings"
	"testing"
	"time"

	"github.com/keepone-ha/keepone/test/lab"
)

// Equal seeds plan equal faults; a plan has every kind once before one comes again, and none of the other manager's.
func TestPlan(t *testing.T) {
	for _, manager := range []string{"keepone", "pacemaker"} {
		a, b, c := newPlanner(7, manager), newPlanner(7, manager), newPlanner(8, manager)
		differs, kinds := false, map[string]bool{}
		for range 3 * len(faultKinds) {
			f := a.next()
			if got := b.next().String(); got != f.String() {
				t.Fatalf("%s and %s by one seed", f, got)
			}
			differs = differs || c.next().String() != f.String()
			kinds[f.kind.name] = true
			if f.hold < f.kind.shortest || f.hold > f.kind.longest+100*time.Millisecond {
				t.Errorf("%s lasts for too short or too long", f)
			}
		}
		if want := manager == "pacemaker"; !differs || kinds["no-corosync"] != want || len(kinds) < len(faultKinds)-1 {
			t.Errorf("%s: seeds differ %v, kinds %v", manager, differs, kinds)
		}
	}
}

func TestUnexplained(t *testing.T) {
	whole := map[string]float64{"total": 4}
	for name, row := range map[string]struct {
		past []event
		want string
	}{
		"failover":              {[]event{{Kind: "grant", Epoch: 2, To: "n2", Proof: "storage"}, {Kind: "failover", Epoch: 2, From: "n1", To: "n2", Proof: "storage", Phases: whole}}, ""},
		"never answered":        {[]event{{Kind: "grant", Epoch: 2, Proof: "storage"}, {Kind: "vacated", Epoch: 2}, {Kind: "grant", Epoch: 3}}, ""},
		"stopped and started":   {[]event{{Kind: "vacated", Epoch: 1}, {Kind: "grant", Epoch: 2}, {Kind: "started", Epoch: 2}}, ""},
		"granted for no reason": {[]event{{Kind: "grant", Epoch: 2, To: "n2"}}, "does not say how epoch 1 ended"},
		"an epoch is missing":   {[]event{{Kind: "vacated", Epoch: 1}, {Kind: "vacated", Epoch: 2}, {Kind: "grant", Epoch: 3}}, "no grant of epoch 2"},
		"not told as a whole":   {[]event{{Kind: "grant", Epoch: 2, Proof: "storage"}, {Kind: "started", Epoch: 2, From: "n1", To: "n2"}}, "as a whole"},
	} {
		got := strings.Join(unexplained(row.past, 1), "; ")
		if (got == "") != (row.want == "") || !strings.Contains(got, row.want) {
			t.Errorf("%s: %q, expected %q", name, got, row.want)
		}
	}
}

func TestUngranted(t *testing.T) {
	now := time.Now()
	past := []event{{Kind: "grant", To: "n1", At: now}, {Kind: "grant", To: "n2", At: now.Add(10 * time.Second)}}
	node := func(client string) string { return client }
	well := []lab.Turn{{Client: "n1", From: now.Add(time.Second)}, {Client: "n2", From: now.Add(11 * time.Second)}}
	if got := ungranted(past, well, now, node); len(got) > 0 {
		t.Errorf("%q", got)
	}
	if got := ungranted(past, []lab.Turn{{Client: "n1", From: now.Add(12 * time.Second)}}, now, node); len(got) != 1 {
		t.Errorf("a writer without a grant: %q", got)
	}
}
