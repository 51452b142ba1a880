package app

import (
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/op"
)

// lookOfTwo is a cluster of two: a leads and holds front, b is down and being fenced.
func lookOfTwo() op.Look {
	link := func(last byte) []netip.Addr { return []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, last})} }
	return op.Look{
		State: core.State{
			Spec: core.Spec{
				Cluster: "test", Timing: core.Timing{Suspect: time.Second},
				Nodes:    []core.NodeSpec{{Name: "a", Links: link(1), BMC: &core.BMCSpec{}}, {Name: "b", Links: link(2), BMC: &core.BMCSpec{}}},
				Services: []core.ServiceSpec{{Name: "front"}},
			},
			Nodes:    map[core.NodeName]core.Node{"a": {Name: "a", Life: core.LifeOnline}, "b": {Name: "b", Life: core.LifeDown}},
			Services: map[core.ServiceName]core.Service{"front": {Name: "front", Epoch: 7, Grant: &core.Grant{Node: "a", Epoch: 7, Phase: core.PhaseRunning}}},
			Fences:   []core.Fence{{ID: 1, Node: "b", State: core.FenceRequested}},
			History:  []core.Event{{ID: 3, Kind: core.EventFailover, Service: "front"}, {ID: 4, Kind: core.EventNode, Node: "b"}},
		},
		Facts: op.Facts{
			Self: "a", Leader: "a", Quorum: true,
			View: core.View{Self: "a", Nodes: map[core.NodeName]core.NodeView{
				"a": {Live: core.LiveOnline, Report: &core.Report{Ready: map[core.ServiceName]core.Ready{"front": {OK: true}}}},
				"b": {Live: core.LiveDown},
			}},
			BMC:   map[core.NodeName]string{"b": "wrong password"},
			Links: map[core.NodeName]map[int]time.Duration{"a": {0: 120 * time.Millisecond}},
		},
	}
}

func scrape(t *testing.T, look func() op.Look) (page func() string) {
	t.Helper()
	handler, err := metricsHandler(look)
	if err != nil {
		t.Fatal(err)
	}
	return func() string {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		if w.Code != 200 {
			t.Fatalf("scrape: %d %s", w.Code, w.Body)
		}
		return w.Body.String()
	}
}

func TestMetrics(t *testing.T) {
	page := scrape(t, lookOfTwo)()
	for _, want := range []string{
		`keepone_quorum 1`,
		`keepone_leader{node="a"} 1`, `keepone_leader{node="b"} 0`,
		`keepone_maintenance 0`,
		`keepone_node_state{node="a",state="online"} 1`, `keepone_node_state{node="b",state="down"} 1`, `keepone_node_state{node="b",state="online"} 0`,
		`keepone_service_state{holder="a",service="front",state="running"} 1`,
		`keepone_service_epoch{service="front"} 7`,
		`keepone_failovers_total{service="front"} 1`,
		`keepone_heartbeat_silent_seconds{link="1",node="a"} 0.12`,
		`keepone_fence_open 1`,
		`keepone_bmc_ready{node="a"} 1`, `keepone_bmc_ready{node="b"} 0`,
		`keepone_storage_ready{node="a",service="front"} 1`,
	} {
		if !strings.Contains(page, want+"\n") {
			t.Errorf("no %q", want)
		}
	}
	if strings.Contains(page, `keepone_heartbeat_silent_seconds{link="1",node="b"}`) {
		t.Error("a link that was never heard has an age")
	}
	if t.Failed() {
		t.Log(page)
	}
}

func TestMetricsOfNothing(t *testing.T) {
	page := scrape(t, func() op.Look { return op.Look{} })()
	if !strings.Contains(page, "keepone_quorum 0\n") {
		t.Errorf("a node without a cluster:\n%s", page)
	}
}

func TestFailoversNeverGoBack(t *testing.T) {
	look := lookOfTwo()
	page := scrape(t, func() op.Look { return look })
	page()
	page()                                                                                 // the same event is not counted twice
	look.State.History = []core.Event{{ID: 9, Kind: core.EventFailover, Service: "front"}} // the first one fell out
	if got := page(); !strings.Contains(got, `keepone_failovers_total{service="front"} 2`+"\n") {
		t.Errorf("two failovers happened:\n%s", got)
	}
}
