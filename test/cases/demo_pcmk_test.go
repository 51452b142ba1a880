package cases

import "testing"

// The lines are Pacemaker's and corosync's own.
func TestInOurWords(t *testing.T) {
	for line, want := range map[string]string{
		"[240] n1 corosync notice  [TOTEM ] A new membership (1.16) was formed. Members left: 3":                                                                             "corosync forms a membership without it",
		"n2 pacemaker-controld  [44] (controld_execute_fence_action) \tnotice: Requesting fencing (reboot) of node n3 | action=1 timeout=90000":                              "Pacemaker calls fence_keepone for n3",
		"n2 pacemaker-controld  [44] (handle_fence_notification) \tnotice: Peer n3 was terminated (reboot) by n1 on behalf of pacemaker-controld.44@n2: OK | event=719478a7": "Pacemaker hears from n1 that n3 is fenced",
		"n2 pacemaker-controld  [44] (execute_rsc_action) \tnotice: Initiating promote operation rbd-one_promote_0 locally on n2 | action 32":                                "Pacemaker promotes rbd-one on n2",
		"n2 pacemaker-controld  [44] (execute_rsc_action) \tnotice: Initiating start operation fs-one_start_0 on n3 | action 7":                                              "Pacemaker starts fs-one on n3",
		"n2 pacemaker-controld  [44] (execute_rsc_action) \tnotice: Initiating monitor operation fs-one_monitor_20000 locally on n2 | action 8":                              "",
		"[240] n1 corosync notice  [TOTEM ] A new membership (1.12) was formed. Members joined: 2":                                                                           "",
	} {
		if got := inOurWords(line); got != want {
			t.Errorf("%q: got %q", line, got)
		}
	}
}
