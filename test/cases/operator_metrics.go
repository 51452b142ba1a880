package cases

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/keepone-ha/keepone/test/lab"
)

func init() {
	add("operator/metrics", kind{}, metrics)
}

const metricsPort = "9480"

// metrics turns the metrics of one node on: that node alone listens, its page is well formed, and what it says is
// what status says, also after a failover.
func metrics(ctx context.Context, c *cluster) error {
	if err := c.awaitSettled(ctx); err != nil {
		return err
	}
	holder, _, err := c.holder(ctx, c.anyUp())
	if err != nil {
		return err
	}
	n := c.anyUp(holder)
	if err := noMetrics(c.Nodes()...); err != nil {
		return err
	}
	at := net.JoinHostPort(n.Address(0), metricsPort)
	if err := write(n, nodeFile, c.node(n)+fmt.Sprintf("[metrics]\nlisten = %q\n", at)); err != nil {
		return err
	}
	if err := errors.Join(n.Stop(ctx, lab.Daemon), boot(ctx, n)); err != nil {
		return err
	}
	if err := c.awaitMetrics(ctx, n, at, 0); err != nil {
		return err
	}
	if err := c.expectTakeover(ctx, "bmc-off", powerCut); err != nil {
		return err
	}
	if err := c.awaitMetrics(ctx, n, at, 1); err != nil {
		return err
	}
	return noMetrics(c.anyUp(n))
}

// noMetrics is an error if something listens where metrics would be.
func noMetrics(nodes ...*lab.Node) error {
	for _, n := range nodes {
		for link := range 2 {
			conn, err := net.DialTimeout("tcp", net.JoinHostPort(n.Address(link), metricsPort), time.Second)
			if err == nil {
				return errors.Join(fmt.Errorf("%s serves metrics without being told to", n.Name), conn.Close())
			}
		}
	}
	return nil
}

// awaitMetrics waits until the page agrees with status: both move on for a moment after a change.
func (c *cluster) awaitMetrics(ctx context.Context, n *lab.Node, at string, failovers float64) error {
	return await(ctx, formLimit, "metrics that agree with status", func() error {
		s, err := c.status(ctx, n)
		if err != nil {
			return err
		}
		if len(s.Services) != 1 {
			return errors.New("the daemon has just started")
		}
		page, err := scrape(ctx, "http://"+at+"/metrics")
		if err != nil {
			return err
		}
		return agree(page, s, failovers)
	})
}

// agree compares a page with a status and the failovers that the history must tell of.
func agree(page map[string]*dto.MetricFamily, s status, failovers float64) error {
	svc := s.Services[0]
	want := []series{
		{"keepone_quorum", 1, nil},
		{"keepone_maintenance", 0, nil},
		{"keepone_fence_open", 0, nil},
		{"keepone_service_state", 1, map[string]string{"service": service, "state": svc.State, "holder": svc.Holder}},
		{"keepone_service_epoch", float64(svc.Epoch), map[string]string{"service": service}},
		{"keepone_failovers_total", failovers, map[string]string{"service": service}},
	}
	for _, n := range s.Nodes {
		leads := 0.0
		if n.Name == s.Leader {
			leads = 1
		}
		want = append(want,
			series{"keepone_leader", leads, map[string]string{"node": n.Name}},
			series{"keepone_node_state", 1, map[string]string{"node": n.Name, "state": n.State}})
		if n.State == "online" {
			want = append(want, series{"keepone_bmc_ready", 1, map[string]string{"node": n.Name}},
				series{"keepone_storage_ready", 1, map[string]string{"node": n.Name, "service": service}})
		}
	}
	var errs []error
	for _, w := range want {
		if got, ok := w.in(page); !ok || got != w.value {
			errs = append(errs, fmt.Errorf("%s%v is %v (there: %v), expected %v", w.name, w.labels, got, ok, w.value))
		}
	}
	return errors.Join(errs...)
}

// scrape reads a page by Prometheus' own parser.
func scrape(ctx context.Context, url string) (map[string]*dto.MetricFamily, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second) // Prometheus' own
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("scrape: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("scrape: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if kind := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || !strings.HasPrefix(kind, "text/plain") {
		return nil, fmt.Errorf("scrape: %s, %s", resp.Status, kind)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	page, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("parse metrics: %w", err)
	}
	return page, nil
}

// series is one line of a page.
type series struct {
	name   string
	value  float64
	labels map[string]string
}

// in finds the line; ok is false if it is missing or there twice.
func (s series) in(page map[string]*dto.MetricFamily) (value float64, ok bool) {
	found := 0
	for _, m := range page[s.name].GetMetric() {
		labels := map[string]string{}
		for _, pair := range m.GetLabel() {
			labels[pair.GetName()] = pair.GetValue()
		}
		fits := len(labels) == len(s.labels)
		for name, v := range s.labels {
			fits = fits && labels[name] == v
		}
		if fits {
			found++
			value = m.GetGauge().GetValue() + m.GetCounter().GetValue() // it is the one or the other
		}
	}
	return value, found == 1
}
