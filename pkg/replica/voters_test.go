package replica

import (
	"testing"

	"github.com/keepone-ha/keepone/pkg/core"
)

// Each row is what members look like, voters in upper case, dead ones behind a minus, and the steps that follow.
func TestPlanVoters(t *testing.T) {
	for _, row := range []struct {
		members string
		want    string
	}{
		{"A", ""},
		{"Ab", ""}, // two votes survive no more than one
		{"Abc", "+b +c"},
		{"ABC", ""},
		{"ABCd", ""},
		{"ABCde", "+d +e"},
		{"ABCDEfg", ""},
		{"AB-Cd", "-c +d"},
		{"AB-C", ""},
		{"AB-CD", "-c"},
		{"ABCDEFG", "-g -f"},
		{"ABCD-EfG", "-e"},
	} {
		members, dead := parseMembers(row.members)
		got := ""
		for step := 0; step < 5; step++ {
			ch := PlanVoters(members, func(n core.NodeName) bool { return !dead[n] }, func(core.NodeName) bool { return false })
			if ch == nil {
				break
			}
			sign := "-"
			if ch.Promote {
				sign = "+"
			}
			if got != "" {
				got += " "
			}
			got += sign + string(ch.Name)
			for i := range members {
				if members[i].Name == ch.Name {
					members[i].Voter = ch.Promote
				}
			}
		}
		if got != row.want {
			t.Errorf("%s: %q, want %q", row.members, got, row.want)
		}
	}
}

func parseMembers(text string) ([]Member, map[core.NodeName]bool) {
	var members []Member
	dead := map[core.NodeName]bool{}
	minus := false
	for _, c := range text {
		if c == '-' {
			minus = true
			continue
		}
		voter := c < 'a'
		if voter {
			c += 'a' - 'A'
		}
		name := core.NodeName(c)
		members = append(members, Member{Name: name, Voter: voter})
		dead[name] = minus
		minus = false
	}
	return members, dead
}
