package cases

import (
	"strings"
	"testing"
)

func TestCompare(t *testing.T) {
	m := measured{Unit: "s", Median: 2}
	m.compare(baseline{Values: []float64{12, 10, 11}})
	if *m.BaselineMedian != 11 || *m.Ratio != 5.5 || m.BaselineRuns != 3 {
		t.Errorf("got %v, %v, %d runs", *m.BaselineMedian, *m.Ratio, m.BaselineRuns)
	}
	if line := m.against(); line != "  stock 11.00 s, ratio 5.5" {
		t.Errorf("got %q", line)
	}
}

func TestCompareNever(t *testing.T) {
	m := measured{Unit: "s", Median: 2}
	m.compare(baseline{Values: []float64{12}, Never: true})
	if m.BaselineMedian != nil || m.Ratio != nil || m.BaselineRuns != 2 || !strings.HasPrefix(m.Baseline, "never within 2m0s") {
		t.Errorf("got %+v", m)
	}
	if line := m.against(); line != "  stock never within 2m0s" {
		t.Errorf("got %q", line)
	}
}

func TestCompareWithNothing(t *testing.T) {
	m := measured{Unit: "s"} // a gap of 0 has no ratio
	m.compare(baseline{Values: []float64{3}})
	if m.Ratio != nil || *m.BaselineMedian != 3 {
		t.Errorf("got %+v", m)
	}
	if line := (measured{}).against(); line != "" {
		t.Errorf("no baseline: got %q", line)
	}
}
