package report

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/op"
	"github.com/keepone-ha/keepone/pkg/whatif"
)

var began = time.Date(2026, 3, 14, 2, 50, 0, 0, time.UTC)

func TestMain(m *testing.M) {
	time.Local = time.UTC
	os.Exit(m.Run())
}

func at(s float64) core.Time { return core.Time(s * float64(time.Second)) }

func event(id uint64, s float64, e core.Event) core.Event {
	e.ID, e.At, e.Wall = id, at(s), began.Add(time.Duration(s*float64(time.Second)))
	return e
}

// well is a cluster of two nodes and a witness, with front on a.
func well() op.Look {
	node := func(name core.NodeName) core.Node {
		return core.Node{Name: name, Life: core.LifeOnline, Since: at(10), Instance: core.Instance("boot/" + name)}
	}
	tried := map[core.NodeName]string{"a": "", "b": ""}
	ready := &core.Report{Ready: map[core.ServiceName]core.Ready{"front": {OK: true, Cuts: true}}, BMCs: tried, Digest: "d1"}
	seen := func(report *core.Report) core.NodeView {
		return core.NodeView{Live: core.LiveOnline, Silent: 120 * time.Millisecond, Daemon: true, Report: report}
	}
	links := map[int]time.Duration{0: 120 * time.Millisecond, 1: 90 * time.Millisecond}
	address := func(last byte) []netip.Addr {
		return []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, last}), netip.AddrFrom4([4]byte{10, 0, 1, last})}
	}
	return op.Look{
		State: core.State{
			Cluster: "demo-1", Document: core.Document{Digest: "d1", Version: 3},
			Spec: core.Spec{
				Cluster: "demo", Manager: core.ManagerKeepone, Timing: core.Timing{Suspect: time.Second},
				Fencing: core.Policy{Require: core.RequireAny, Proofs: []core.ProofKind{core.ProofBMCOff, core.ProofStorage}},
				Nodes: []core.NodeSpec{
					{Name: "a", Links: address(1), BMC: &core.BMCSpec{}},
					{Name: "b", Links: address(2), BMC: &core.BMCSpec{}},
					{Name: "w", Links: address(3), Witness: true},
				},
				Services: []core.ServiceSpec{{Name: "front", Network: core.NetworkSpec{Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.2.10/24")}}}},
			},
			Nodes: map[core.NodeName]core.Node{"a": node("a"), "b": node("b"), "w": node("w")},
			Services: map[core.ServiceName]core.Service{"front": {
				Name: "front", Epoch: 7, Grant: &core.Grant{Node: "a", Instance: "boot/a", Epoch: 7, Phase: core.PhaseRunning, Since: at(60)},
			}},
			History: []core.Event{event(1, 5, core.Event{Kind: core.EventConfig, Reason: "cluster founded"})},
		},
		Facts: op.Facts{
			Self: "a", Leader: "b", Quorum: true, At: began.Add(15 * time.Minute),
			View: core.View{Self: "b", Nodes: map[core.NodeName]core.NodeView{
				"a": seen(ready), "b": seen(ready), "w": seen(&core.Report{BMCs: tried, Digest: "d1"}),
			}},
			BMC:   map[core.NodeName]string{},
			Links: map[core.NodeName]map[int]time.Duration{"a": links, "b": links, "w": links},
		},
	}
}

// lost is the same cluster at three in the morning: a is gone, its BMC too, and b's storage is not ready.
func lost() op.Look {
	look := well()
	s := &look.State
	a := s.Nodes["a"]
	a.Life, a.Since, a.Reason = core.LifeDown, at(893), "silent for 3.1s on every link"
	s.Nodes["a"] = a
	s.Fences = []core.Fence{{
		ID: 40, Node: "a", Instance: "boot/a", Attempt: 2, State: core.FenceFailed, Reason: "silent for 3.1s",
		Note: "bmc-off: 10.0.9.1 does not answer; storage: front: Ceph does not answer within 5s",
	}}
	s.Requests = []core.Request{{ID: 41, Kind: core.RequestDrain, Node: "a", By: "root on b", State: core.RequestOpen, Answer: "front is still on a"}}
	look.Facts.View.Nodes["a"] = core.NodeView{Live: core.LiveDown, Silent: 8200 * time.Millisecond}
	look.Facts.Links["a"] = map[int]time.Duration{0: 8200 * time.Millisecond, 1: 8300 * time.Millisecond}
	look.Facts.BMC["a"] = "no answer from 10.0.9.1 within 2s"
	b := look.Facts.View.Nodes["b"]
	b.Watchdog = 30 * time.Second
	tried := map[core.NodeName]string{"a": "no answer from 10.0.9.1 within 2s", "b": ""}
	look.Facts.View.Nodes["w"].Report.BMCs = tried
	b.Report = &core.Report{Digest: "d1", BMCs: tried, Ready: map[core.ServiceName]core.Ready{"front": {Reason: "Ceph does not answer within 5s"}}}
	look.Facts.View.Nodes["b"] = b
	return look
}

// A lost holder that may still have power is told apart: its kernel may go on answering for the service's addresses.
func TestCutOffAlone(t *testing.T) {
	for kind, want := range map[core.ProofKind]bool{core.ProofStorage: true, core.ProofBMCOff: false, "": false} {
		look := lost()
		f := &look.State.Fences[0]
		f.State = core.FenceConfirmed
		if kind != "" {
			f.Proofs = []core.Proof{{Kind: core.ProofStorage, Instance: f.Instance}, {Kind: kind, Instance: f.Instance}}
		}
		told := slices.ContainsFunc(Build(look).Problems, func(p Problem) bool { return strings.Contains(p.Next, "keepone fence a") })
		if told != want {
			t.Errorf("proof %q: told %t, want %t", kind, told, want)
		}
	}
}

// fenced has one fence of each kind: confirmed by storage alone, confirmed without an order, moot, of a whole node that
// is on, and open for want of a proof.
func fenced() op.Look {
	look := well()
	s := &look.State
	s.Spec.Services = append(s.Spec.Services, core.ServiceSpec{
		Name: "both", Policy: &core.Policy{Require: core.RequireAll, Proofs: []core.ProofKind{core.ProofBMCOff, core.ProofStorage}},
	})
	s.Services["both"] = core.Service{Name: "both", Epoch: 3, Grant: &core.Grant{Node: "a", Instance: "boot/a", Epoch: 3, Phase: core.PhaseRunning}}
	s.Requests = []core.Request{{ID: 50, Kind: core.RequestFence, Node: "b", By: "root on a"}}
	storage := func(instance core.Instance, service core.ServiceName, epoch core.Epoch, t float64) core.Proof {
		return core.Proof{Kind: core.ProofStorage, Instance: instance, Service: service, Epoch: epoch, By: "w", At: at(t), Reading: "2 clients blocklisted at osdmap 71, no watcher left"}
	}
	s.Fences = []core.Fence{
		{
			ID: 40, Node: "b", Instance: "boot/b0", Attempt: 2, Executor: "w", State: core.FenceConfirmed, Reason: "holder silent for 3.1 s",
			Heard: at(100), Ordered: at(103.1), Tried: at(105), Closed: at(106), Targets: []core.Target{{Service: "front", Epoch: 6, LeaseOver: true}},
			Proofs: []core.Proof{storage("boot/b0", "front", 6, 106)}, Note: "bmc-off: 10.0.9.2 does not answer",
		},
		{
			ID: 44, Node: "b", Instance: "boot/b1", State: core.FenceConfirmed, Reason: "evidence", Heard: at(200), Ordered: at(201), Closed: at(201.2),
			Proofs: []core.Proof{{Kind: core.ProofBMCOff, Instance: "boot/b1", By: "a", At: at(201.2), Reading: "off, and off again 100ms later"}},
		},
		{
			ID: 46, Node: "b", Instance: "boot/b2", Attempt: 1, Executor: "a", State: core.FenceMoot, Reason: "holder silent for 3.0 s",
			Heard: at(300), Ordered: at(303), Tried: at(303), Closed: at(310), Note: "the node is heard again",
			Targets: []core.Target{{Service: "front", Epoch: 5}},
		},
		{
			ID: 51, Node: "b", Instance: "boot/b", Attempt: 1, Executor: "a", State: core.FenceRequested, Reason: "asked by root on a", Request: 50,
			Heard: at(400), Ordered: at(400), Tried: at(400), Whole: true, Shoot: true,
		},
		{
			ID: 60, Node: "a", Instance: "boot/a", Attempt: 3, Executor: "b", State: core.FenceFailed, Reason: "holder silent for 3.0 s",
			Heard: at(886), Ordered: at(889), Tried: at(893), Shoot: true, Note: "bmc-off: 10.0.9.1 does not answer; storage: front: Ceph does not answer within 5s",
			Targets: []core.Target{{Service: "both", Epoch: 3, LeaseOver: true}, {Service: "front", Epoch: 7}},
			Proofs:  []core.Proof{storage("boot/a", "both", 3, 892)},
		},
	}
	s.History = append(s.History, event(61, 889, core.Event{Kind: core.EventFence, Node: "a", Fence: 60, Reason: "fence requested: holder silent for 3.0 s"}))
	return look
}

// unfenceable is the well one, where nothing could be proven of b: its BMC's password is wrong and a's key may not cut
// off. w can't reach a's BMC, b can.
func unfenceable() op.Look {
	look := well()
	look.State.Spec.Fencing.FenceableOnly = true
	const expired = "log in as admin: wrong password: mend it in the cluster document"
	a, w := look.Facts.View.Nodes["a"].Report, look.Facts.View.Nodes["w"].Report
	again := *a
	again.Ready = map[core.ServiceName]core.Ready{"front": {Reason: "the key may not blocklist: ceph auth caps client.keepone mon 'profile rbd'"}}
	again.BMCs = map[core.NodeName]string{"b": expired}
	w.BMCs = map[core.NodeName]string{"a": "no answer from 10.0.9.1 within 2s", "b": expired}
	view := look.Facts.View.Nodes["a"]
	view.Report = &again
	look.Facts.View.Nodes["a"] = view
	look.Facts.BMC["b"] = "a says: " + expired
	return look
}

// checked is the answer of a check in which w did not answer.
func checked() op.FenceCheck {
	look := unfenceable()
	w := look.Facts.View.Nodes["w"]
	w.Report = nil
	look.Facts.View.Nodes["w"] = w
	return op.FenceCheck{Look: look, Silent: map[core.NodeName]string{"w": "call w: no answer within 9s"}}
}

// full is the same cluster with a volume that has no room left, and a daemon of b that sends no report.
func full() op.Look {
	look := well()
	a, b := look.Facts.View.Nodes["a"], look.Facts.View.Nodes["b"]
	a.Report = &core.Report{Digest: "d1", Ready: map[core.ServiceName]core.Ready{"front": {Reason: "the volume of front is full: make room in its container"}}}
	b.Report = nil
	look.Facts.View.Nodes["a"], look.Facts.View.Nodes["b"] = a, b
	return look
}

// alone is what a sees when nobody else answers.
func alone() op.Look {
	look := well()
	look.Facts.Quorum, look.Facts.Leader, look.Facts.Instead = false, "", true
	look.Facts.View.Self = "a"
	for _, name := range []core.NodeName{"b", "w"} {
		look.Facts.View.Nodes[name] = core.NodeView{Silent: time.Minute}
	}
	return look
}

// pacemaker is the well one as Pacemaker manages it.
func pacemaker() op.Look {
	look := well()
	look.State.Spec.Manager = core.ManagerPacemaker
	look.Facts.Manager = &op.Pacemaker{
		Age: 800 * time.Millisecond, DC: "b", Stonith: true,
		Corosync: &op.Corosync{Quorate: true, Members: []string{"a", "b", "w"}},
		Nodes:    []op.PacemakerNode{{Name: "a", Online: true}, {Name: "b", Online: true}, {Name: "w", Online: true, Standby: true}},
		Resources: []op.PacemakerResource{
			{ID: "fence-keepone", Agent: "stonith:fence_keepone", Role: "Started", Nodes: []string{"b"}, Managed: true},
			{ID: "keepone-controller", Agent: "ocf:keepone:controller", Role: "Started", Nodes: []string{"a"}, Managed: true},
			{ID: "rbd-front", Agent: "ocf:keepone:rbd", Role: "Promoted", Nodes: []string{"a"}, Managed: true},
			{ID: "rbd-front", Agent: "ocf:keepone:rbd", Role: "Unpromoted", Nodes: []string{"b"}, Managed: true},
			{ID: "fs-front", Agent: "ocf:heartbeat:Filesystem", Role: "Started", Nodes: []string{"a"}, Managed: true},
			{ID: "container-front", Agent: "ocf:keepone:container", Role: "Started", Nodes: []string{"a"}, Managed: true},
		},
	}
	return look
}

// trouble is Pacemaker without quorum and with what an operator forgot.
func trouble() op.Look {
	look := pacemaker()
	m := look.Facts.Manager
	m.Age, m.Problem, m.DC, m.Stonith, m.Corosync.Quorate = 8*time.Second, "crm_mon did not answer", "", false, false
	m.Nodes[0].Unclean, m.Nodes[0].Online, m.Fencing = true, false, []string{"a"}
	m.Resources = m.Resources[1:]
	m.Resources[1].Failed, m.Resources[3].Blocked, m.Resources[4].Managed = true, true, false
	m.Resources[0].Disabled, m.Resources[3].Disabled, m.Resources[4].Disabled = "keepone-controller-clone", "group-front", "group-front"
	m.Bans = []op.PacemakerBan{{Resource: "rbd-front-clone", Node: "b"}}
	return look
}

// silent is a node where neither answers.
func silent() op.Look {
	look := pacemaker()
	look.Facts.Manager = &op.Pacemaker{Age: -1, Problem: "no Pacemaker answers on this node"}
	return look
}

// events is one failover.
func events() []core.Event {
	return []core.Event{
		event(1, 5, core.Event{Kind: core.EventConfig, Reason: "cluster founded"}),
		event(31, 60, core.Event{Kind: core.EventStarted, Service: "front", To: "a", Epoch: 7, Reason: "answers on a", Phases: &core.Phases{Storage: time.Second}}),
		event(32, 891, core.Event{Kind: core.EventNode, Node: "a", Reason: "online → suspect: silent for 1s on every link"}),
		event(33, 891.1, core.Event{Kind: core.EventFence, Node: "a", Fence: 40, Reason: "fence requested: power reads off"}),
		event(34, 891.2, core.Event{Kind: core.EventFence, Node: "a", Fence: 40, Proof: core.ProofBMCOff, Reason: "bmc-off: off twice, 100ms apart"}),
		event(35, 891.3, core.Event{Kind: core.EventGrant, Service: "front", From: "a", To: "b", Epoch: 8, Proof: core.ProofBMCOff, Reason: "failover"}),
		event(36, 891.35, core.Event{Kind: core.EventConfig, Reason: "nothing to do with it"}),
		event(37, 892.2, core.Event{
			Kind: core.EventFailover, Service: "front", From: "a", To: "b", Epoch: 8, Proof: core.ProofBMCOff,
			Reason: "a was fenced; answers on b",
			Phases: &core.Phases{
				Detect: 1100 * time.Millisecond, Fence: 100 * time.Millisecond, Decide: 100 * time.Millisecond,
				Storage: 400 * time.Millisecond, Start: 60 * time.Millisecond, Probe: 340 * time.Millisecond,
			},
		}),
	}
}

// asked is a cluster with timing and a history, for questions about it.
func asked() op.Look {
	look := well()
	look.State.Spec.Timing = core.Timing{
		Suspect: time.Second, Lease: 3 * time.Second, LeaseMargin: 300 * time.Millisecond, Down: 3 * time.Second,
		RaftElection: 400 * time.Millisecond, OffReadings: 100 * time.Millisecond,
	}
	look.State.Now, look.State.NextID, look.State.History = at(900), 100, events()
	look.Facts.View.Settled, look.Facts.View.Voters = true, []core.NodeName{"a", "b", "w"}
	for name, v := range look.Facts.View.Nodes {
		r := *v.Report
		v.Instance, r.Instance, v.Report = "boot/"+core.Instance(name), "boot/"+core.Instance(name), &r
		look.Facts.View.Nodes[name] = v
	}
	return look
}

// standby is the same, with nobody who could take over.
func standby() op.Look {
	look := asked()
	b := look.State.Nodes["b"]
	b.Standby = true
	look.State.Nodes["b"] = b
	return look
}

func TestGolden(t *testing.T) {
	style := Style{Now: began.Add(15 * time.Minute), Width: 96}
	asJSON := func(v any) func(*bytes.Buffer) error {
		return func(b *bytes.Buffer) error {
			text, err := json.MarshalIndent(v, "", " ")
			b.Write(append(text, '\n'))
			return err
		}
	}
	whatIf := func(look op.Look, q whatif.Question) WhatIf {
		a, err := NewWhatIf(look, q)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	ifText := func(a WhatIf) func(*bytes.Buffer) error {
		return func(b *bytes.Buffer) error { return WhatIfText(b, a, style) }
	}
	text := func(look op.Look) func(*bytes.Buffer) error {
		return func(b *bytes.Buffer) error { return Text(b, Build(look), style) }
	}
	for name, render := range map[string]func(*bytes.Buffer) error{
		"status-well.txt": text(well()), "status-lost.txt": text(lost()), "status-alone.txt": text(alone()),
		"status-empty.txt":     text(op.Look{}),
		"status-pacemaker.txt": text(pacemaker()), "status-pacemaker-trouble.txt": text(trouble()), "status-pacemaker-silent.txt": text(silent()),
		"status-pacemaker.json":  asJSON(Build(trouble()).Pacemaker),
		"status.json":            asJSON(Build(lost())),
		"history.json":           asJSON(NewHistory(events(), "front", 1)),
		"status-full.txt":        text(full()),
		"status-unfenceable.txt": text(unfenceable()),
		"fence-check.txt":        func(b *bytes.Buffer) error { return FenceCheckText(b, NewFenceCheck(checked()), style) },
		"fence-check-well.txt": func(b *bytes.Buffer) error {
			return FenceCheckText(b, NewFenceCheck(op.FenceCheck{Look: well()}), style)
		},
		"what-if.txt":          ifText(whatIf(asked(), whatif.Question{Lose: "a"})),
		"what-if-bmc-dead.txt": ifText(whatIf(asked(), whatif.Question{Lose: "a", BMCDead: true})),
		"what-if-leader.txt":   ifText(whatIf(asked(), whatif.Question{Lose: "b"})),
		"what-if-nowhere.txt":  ifText(whatIf(standby(), whatif.Question{Lose: "a", BMCDead: true})),
		"what-if.json":         asJSON(whatIf(asked(), whatif.Question{Lose: "a", BMCDead: true, Service: "front"})),
		"fences.txt":           func(b *bytes.Buffer) error { return FencesText(b, NewFences(fenced()), style) },
		"fences-none.txt":      func(b *bytes.Buffer) error { return FencesText(b, NewFences(well()), style) },
		"fences.json":          asJSON(NewFences(fenced())),
		"fence.txt": func(b *bytes.Buffer) error {
			for _, f := range NewFences(fenced()).Fences {
				if err := FenceText(b, f, style); err != nil {
					return err
				}
				b.WriteString("\n\n")
			}
			return nil
		},
		"fence-check.json": asJSON(NewFenceCheck(checked())),
		"history.txt": func(b *bytes.Buffer) error {
			return HistoryText(b, NewHistory(events(), "", 0), style)
		},
		"explain.txt": func(b *bytes.Buffer) error { return Explain(b, NewHistory(events(), "", 0), 37, style) },
		"local.txt": func(b *bytes.Buffer) error {
			return LocalText(b, Local{
				Node: "a", Daemon: "keeponed does not answer on this node", Guard: "answers", Leader: "b", AckAge: 4.2,
				Watchdog: "arm /dev/watchdog0: no such watchdog: load its driver (modprobe)",
				Services: []LocalService{{Name: "front", Epoch: 7, State: "not running", Since: "2026-03-14T02:51:00Z", Guard: "contained", Lease: -1.2}},
			}, style)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got bytes.Buffer
			if err := render(&got); err != nil {
				t.Fatal(err)
			}
			golden(t, name, got.String())
			for _, line := range strings.Split(got.String(), "\n") {
				if strings.HasSuffix(name, ".txt") && utf8.RuneCountInString(line) > 100 {
					t.Errorf("wider than 100 columns: %q", line)
				}
			}
		})
	}
}

// golden compares with testdata; GOLDEN=write in the environment writes it, to be read before it is kept.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("GOLDEN") == "write" {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestColourIsForTerminals(t *testing.T) {
	var plain, colour bytes.Buffer
	status := Build(lost())
	if err := Text(&plain, status, Style{}); err != nil {
		t.Fatal(err)
	}
	if err := Text(&colour, status, Style{Color: true}); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(plain.String(), "\x1b") || !strings.Contains(colour.String(), "\x1b[31mdown") {
		t.Errorf("colour is wrong:\n%q\n%q", plain.String(), colour.String())
	}
}

func TestExplainUnknown(t *testing.T) {
	if err := Explain(&bytes.Buffer{}, NewHistory(events(), "", 0), 99, Style{}); err == nil {
		t.Error("an event that is not there is explained")
	}
}

func TestServiceStates(t *testing.T) {
	failed := &core.Grant{Node: "a", Instance: "2", Phase: core.PhasePromoted, Times: core.Times{Granted: 7}}
	for _, c := range []struct {
		name string
		svc  core.Service
		want string
	}{
		{"stopped", core.Service{Stopped: true, Blocked: "x"}, StateStopped},
		{"blocked", core.Service{Blocked: "the image is missing"}, StateBlocked},
		{"waiting", core.Service{}, StateWaiting},
		{"starting", core.Service{Grant: &core.Grant{Phase: core.PhaseStarting}}, StateStarting},
		{"promoted", core.Service{Grant: &core.Grant{Phase: core.PhasePromoted}}, StatePromoted},
		{"promoted, failed", core.Service{Grant: failed, Failures: []core.Failure{{At: 7, Node: "a", Reason: "volume full"}}}, StatePromoted},
		{"promoted, failed before", core.Service{Grant: failed, Failures: []core.Failure{{At: 6, Node: "b", Reason: "volume full"}}}, StatePromoted},
		{"failed", core.Service{Grant: &core.Grant{Phase: core.PhaseFailed}}, StateFailed},
		{"stopping", core.Service{Grant: &core.Grant{Phase: core.PhaseReleasing}}, StateStopping},
		{"contained", core.Service{Grant: &core.Grant{Phase: core.PhaseContained}}, StateContained},
		{"fencing", core.Service{Grant: &core.Grant{Node: "a", Instance: "1", Phase: core.PhaseRunning}}, StateFencing},
		{"another life", core.Service{Grant: &core.Grant{Node: "a", Instance: "2", Phase: core.PhaseRunning}}, StateRunning},
	} {
		c.svc.Name = "front"
		look := well()
		look.State.Services = map[core.ServiceName]core.Service{"front": c.svc}
		look.State.Fences = []core.Fence{{Node: "a", Instance: "1", State: core.FenceRequested}, {Node: "a", Instance: "2", State: core.FenceConfirmed}}
		status := Build(look)
		if got := status.Services[0].State; got != c.want {
			t.Errorf("%s: state %s, want %s", c.name, got, c.want)
		}
		told := slices.ContainsFunc(status.Problems, func(p Problem) bool { return strings.Contains(p.Text, "its container failed on a: volume full") })
		if told != (c.name == "promoted, failed") {
			t.Errorf("%s: problems %+v", c.name, status.Problems)
		}
	}
}
