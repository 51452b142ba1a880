package cases

import (
	"strings"
	"testing"
)

func TestCompare(t *testing.T) {
	m := measured{Unit: "s", Median: 2}
	m.compare("", baseline{Samples: []sample{{Value: 12}, {Value: 10}, {Value: 11}}})
	if *m.BaselineMedian != 11 || *m.Ratio != 5.5 || m.BaselineRuns != 3 {
		t.Errorf("got %v, %v, %d runs", *m.BaselineMedian, *m.Ratio, m.BaselineRuns)
	}
	if line := m.against(); line != "  stock 11.00 s, ratio 5.5" {
		t.Errorf("got %q", line)
	}
}

func TestCompareNever(t *testing.T) {
	m := measured{Unit: "s", Median: 2}
	m.compare("", baseline{Samples: []sample{{Value: 12}}, Never: true})
	if m.BaselineMedian != nil || m.Ratio != nil || m.BaselineRuns != 2 || !strings.HasPrefix(m.Baseline, "never within 2m0s") {
		t.Errorf("got %+v", m)
	}
	if line := m.against(); line != "  stock never within 2m0s" {
		t.Errorf("got %q", line)
	}
}

func TestCompareWithNothing(t *testing.T) {
	m := measured{Unit: "s"} // a gap of 0 has no ratio
	m.compare("", baseline{Samples: []sample{{Value: 3}}})
	if m.Ratio != nil || *m.BaselineMedian != 3 {
		t.Errorf("got %+v", m)
	}
	if line := (measured{}).against(); line != "" {
		t.Errorf("no baseline: got %q", line)
	}
}

func TestBirths(t *testing.T) {
	const trace = `301   execve("/usr/lib/ocf/resource.d/keepone/rbd", ["rbd", "monitor"], 0x7ffd0 /* 12 vars */) = 0
301   clone(child_stack=0xc000, flags=CLONE_VM|CLONE_FS|CLONE_FILES|CLONE_SIGHAND|CLONE_THREAD|CLONE_SYSVSEM) = 302
301   clone(child_stack=NULL, flags=CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|SIGCHLD <unfinished ...>
303   execve("/usr/local/bin/grep", ["grep"], 0x55 /* 12 vars */) = -1 ENOENT (No such file or directory)
303   execve("/usr/bin/grep", ["grep"], 0x55 /* 12 vars */ <unfinished ...>
301   <... clone resumed>, child_tidptr=0x7f) = 303
303   <... execve resumed>)             = 0
301   vfork()                           = 304
301   +++ exited with 0 +++
`
	if forks, execs := births(trace); forks != 2 || execs != 2 {
		t.Errorf("got %d forks, %d execs", forks, execs)
	}
}

func TestRatioMark(t *testing.T) {
	b := benchCase{name: "x", unit: "s", mark: mark{4, 8}, ratioMark: 3, views: []view{{name: "part", phase: "after", ratioMark: 2}}}
	stock := baseline{Samples: []sample{{Value: 5, Phases: map[string]float64{"after": 4}}}}
	ours := []sample{{Value: 2, Phases: map[string]float64{"after": 1}}}
	var f benchFile
	for i, want := range []bool{false, true} { // 2.5 is below 3; 4 is not below 2
		m := b.sum(b.lines()[i], ours)
		f.against(&m, b.lines()[i], stock)
		if m.Met != want {
			t.Errorf("%s: met %v, ratio %v", m.Name, m.Met, *m.Ratio)
		}
	}
	if m := b.sum(b.lines()[0], ours); !m.Met {
		t.Error("a ratio mark is judged without a baseline")
	}
}
