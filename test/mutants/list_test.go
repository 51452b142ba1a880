package main

import (
	"strings"
	"testing"
)

// TestListFits: each entry still takes out what stands in the code, so that a check can't be moved without its mutant.
func TestListFits(t *testing.T) {
	all, err := parse(list)
	if err != nil {
		t.Fatal(err)
	}
	held := map[string]int{}
	for _, m := range all {
		held[m.guarantee]++
		changed, err := m.mutate("../..")
		if err != nil {
			t.Error(err)
		}
		if len(changed) == 0 {
			t.Errorf("mutant %s changes nothing", m.id)
		}
	}
	for _, g := range guarantees {
		if held[g] == 0 {
			t.Errorf("no mutant breaks %s", g)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	const good = "== a I1 two grants\nin x.go\n-\tif held {\n+\tif false {\nby pkg/core TestX\n"
	if all, err := parse(good); err != nil || len(all) != 1 || all[0].hunks[0] != (hunk{"x.go", "\tif held {\n", "\tif false {\n"}) {
		t.Errorf("%+v, %v", all, err)
	}
	for name, text := range map[string]string{
		"no guarantee":     strings.Replace(good, "I1", "I9", 1),
		"the id twice":     good + good,
		"nothing taken":    strings.Replace(good, "-\tif held {\n", "", 1),
		"no test":          strings.Replace(good, "by pkg/core TestX\n", "", 1),
		"before the first": "in x.go\n",
		"no file":          "== a I1 two grants\n-\tx\nby pkg/core TestX\n",
		"neither":          good + "what\n",
	} {
		if _, err := parse(text); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestFailed(t *testing.T) {
	for out, want := range map[string]string{
		"--- FAIL: TestA (0.1s)\n    --- FAIL: TestA/b (0.1s)\n        x.go:1: no\nFAIL\n": "TestA/b",
		"--- FAIL: TestA (0.1s)\n--- FAIL: TestB (0.1s)\n":                                 "TestA",
		"panic: test timed out after 1m0s\n":                                               "deadline",
		"panic: close of closed channel\n":                                                 "crash",
	} {
		if got := failed(out); got != want {
			t.Errorf("%q: %s, want %s", out, got, want)
		}
	}
}
