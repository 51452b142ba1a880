package app

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/op"
	"github.com/keepone-ha/keepone/pkg/report"
	"github.com/keepone-ha/keepone/pkg/version"
)

const (
	scrapeLimit   = 5 * time.Second // more than factsLimit, less than Prometheus' own 10 s
	metricsLinger = 2 * time.Second // for scrapes that go on when the daemon stops
)

// The metrics, a kept interface: docs/outputs.md says what each means.
var (
	descBuild     = describe("build_info", "Which keepone this is.", "version", "commit")
	descQuorum    = describe("quorum", "1 if the leader made sure of its quorum for this scrape.")
	descLeader    = describe("leader", "1 for the node that leads.", "node")
	descMaint     = describe("maintenance", "1 while maintenance lasts.")
	descNode      = describe("node_state", "1 for the state that a node is in.", "node", "state")
	descService   = describe("service_state", "1 for the state that a service is in; holder is empty if it has none.", "service", "state", "holder")
	descEpoch     = describe("service_epoch", "Epoch of the newest grant of a service.", "service")
	descFailovers = describe("failovers_total", "Failovers of a service that this daemon knows of.", "service")
	descSilent    = describe("heartbeat_silent_seconds", "Since the last heartbeat of a node on one link; missing if never heard.", "node", "link")
	descFences    = describe("fence_open", "Fences that are not confirmed yet.")
	descBMC       = describe("bmc_ready", "1 if the node's BMC can be used to fence it.", "node")
	descStorage   = describe("storage_ready", "1 if the node could take the service now.", "node", "service")
)

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("keepone_"+name, help, labels, nil)
}

var (
	nodeStates = []core.Life{core.LifeNew, core.LifeOnline, core.LifeSuspect, core.LifeDown, core.LifeFenced}

	serviceStates = []string{
		report.StateRunning, report.StateStarting, report.StateFailed, report.StateStopping, report.StateContained,
		report.StateFencing, report.StateStopped, report.StateBlocked, report.StateWaiting,
	}
)

// openMetrics serves Prometheus where the node file says so, and nowhere else.
func (a *App) openMetrics() error {
	if a.file.Metrics == "" {
		return nil
	}
	listener, err := net.Listen("tcp", a.file.Metrics)
	if err != nil {
		return fmt.Errorf("start keeponed: serve metrics: %w", err)
	}
	handler, err := metricsHandler(func() op.Look {
		ctx, cancel := context.WithTimeout(context.Background(), factsLimit)
		defer cancel()
		return op.Look{State: a.replica.State(), Facts: a.bestFacts(ctx)}
	})
	if err != nil {
		_ = listener.Close()
		return fmt.Errorf("start keeponed: serve metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", handler)
	server := &http.Server{
		Handler: mux, ReadTimeout: scrapeLimit, WriteTimeout: 2 * scrapeLimit, IdleTimeout: 2 * time.Minute, // two scrapes
	}
	a.wait.Go(func() { _ = server.Serve(listener) })
	a.onStop(func() {
		ctx, cancel := context.WithTimeout(context.Background(), metricsLinger)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			_ = server.Close()
		}
	})
	return nil
}

// metricsHandler serves a registry of its own with what look returns at each scrape.
func metricsHandler(look func() op.Look) (http.Handler, error) {
	registry := prometheus.NewRegistry()
	if err := registry.Register(&collector{look: look, failovers: map[core.ServiceName]float64{}}); err != nil {
		return nil, err
	}
	const scrapers = 4
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: scrapers, Timeout: scrapeLimit}), nil
}

// collector turns what a status shows into metrics.
type collector struct {
	look func() op.Look

	mu        sync.Mutex
	seen      uint64 // newest event that is counted
	failovers map[core.ServiceName]float64
}

// Describe is prometheus.Collector's.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descBuild, descQuorum, descLeader, descMaint, descNode, descService, descEpoch, descFailovers, descSilent,
		descFences, descBMC, descStorage,
	} {
		out <- d
	}
}

// Collect is prometheus.Collector's.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	look := c.look()
	status := report.Build(look)
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	gauge(descBuild, 1, version.Version, version.Commit)
	gauge(descQuorum, one(status.Quorum))
	gauge(descMaint, one(status.Maintenance != nil))
	gauge(descFences, float64(openFences(look.State)))
	for _, n := range status.Nodes {
		gauge(descLeader, one(n.Name == status.Leader), n.Name)
		nodeMetrics(n, gauge)
	}
	for _, s := range status.Services {
		for _, state := range serviceStates {
			gauge(descService, one(s.State == state), s.Name, state, s.Holder)
		}
		gauge(descEpoch, float64(s.Epoch), s.Name)
	}
	for name, count := range c.count(look.State) {
		out <- prometheus.MustNewConstMetric(descFailovers, prometheus.CounterValue, count, string(name))
	}
}

func nodeMetrics(n report.Node, gauge func(*prometheus.Desc, float64, ...string)) {
	for _, state := range nodeStates {
		gauge(descNode, one(n.State == string(state)), n.Name, string(state))
	}
	for i, link := range n.Links {
		if link.Silent >= 0 {
			gauge(descSilent, link.Silent, n.Name, strconv.Itoa(i+1))
		}
	}
	if n.BMC != "none" {
		gauge(descBMC, one(n.BMC == "ready"), n.Name)
	}
	for _, s := range n.Storage {
		gauge(descStorage, one(s.Ready), n.Name, s.Service)
	}
}

// count adds the failovers that happened since the last scrape. The history is bounded, so that counting it anew
// each time would go back.
func (c *collector) count(state core.State) map[core.ServiceName]float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range state.History {
		if e.ID > c.seen && e.Kind == core.EventFailover {
			c.failovers[e.Service]++
		}
	}
	if n := len(state.History); n > 0 {
		c.seen = max(c.seen, state.History[n-1].ID)
	}
	all := map[core.ServiceName]float64{}
	for _, name := range state.ServiceNames() {
		all[name] = c.failovers[name]
	}
	return all
}

func openFences(state core.State) int {
	open := 0
	for _, f := range state.Fences {
		if f.Open() {
			open++
		}
	}
	return open
}

func one(fact bool) float64 {
	if fact {
		return 1
	}
	return 0
}
