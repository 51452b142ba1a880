//go:build lab

package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/release"
	"github.com/keepone-ha/keepone/pkg/worker"
)

func median(d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2]
}

// TestActivate runs a service up and down a few times: each run finds the data of the one before it.
func TestActivate(t *testing.T) {
	v, n := newVolume(t), newNode(t)
	took := map[worker.Step][]time.Duration{}
	for epoch := 1; epoch <= 7; epoch++ {
		plan := n.plan(v, core.Epoch(epoch))
		begin := time.Now()
		done := mustActivate(t, plan)
		took["whole"] = append(took["whole"], time.Since(begin))
		for step, p := range done.steps {
			took[step] = append(took[step], p.Took)
		}
		mounted := done.steps[worker.StepMapped]
		if !strings.HasPrefix(mounted.Device, "/dev/loop") || !strings.HasPrefix(mounted.Address, "127.0.0.1:0/") {
			t.Errorf("mapped: %+v", mounted)
		}
		counter := filepath.Join(plan.Volume.Mount, "rootfs/counter")
		before, _ := os.ReadFile(counter)
		if len(before) != epoch-1 {
			t.Errorf("run %d finds %q", epoch, before)
		}
		if err := os.WriteFile(counter, append(before, 'x'), 0o600); err != nil {
			t.Fatal(err)
		}
		// The helper has ended; its lock must not live on in LXC's monitor.
		unlock, err := release.Lock(t.Context(), n.run, "svc")
		if err != nil {
			t.Fatal(err)
		}
		unlock()
		mustVacate(t, n)
	}
	for step, all := range took {
		t.Logf("%-8s median %v", step, median(all).Round(100*time.Microsecond))
	}
}

// TestRestartInPlace keeps the volume and starts the container anew.
func TestRestartInPlace(t *testing.T) {
	n := newNode(t)
	plan := n.plan(newVolume(t), 1)
	first := mustActivate(t, plan)
	plan.Restart, plan.Attempt = true, 2
	if _, err := helpers(t).Start(t.Context(), plan); err == nil {
		t.Error("a restart beside a running container was begun")
	}
	rec, err := release.Load(n.run, "svc")
	if err != nil {
		t.Fatal(err)
	}
	if result := release.StopContainer(t.Context(), n.run, rec, release.Options{Reason: "test"}); !result.Contained {
		t.Fatalf("stop container: %+v", result)
	}
	second := mustActivate(t, plan)
	if second.steps[worker.StepStarted].InitPID == first.steps[worker.StepStarted].InitPID {
		t.Error("the same init")
	}
	if _, ok := second.steps[worker.StepMapped]; ok {
		t.Error("a restart in place mapped again")
	}
	mustVacate(t, n)
}

// TestStoppedHolder is i6/stopped-holder: everything of the old holder is stopped, the image taken over, and then
// continued. Every late write fails and no byte lands.
func TestStoppedHolder(t *testing.T) {
	v, old, next := newVolume(t), newNode(t), newNode(t)
	plan := old.plan(v, 1)
	was := mustActivate(t, plan)
	address := was.steps[worker.StepMapped].Address
	file, err := os.Create(filepath.Join(plan.Volume.Mount, "records"))
	if err != nil {
		t.Fatal(err)
	}
	acked := make(chan int, 1)
	go func() { // writes and flushes until it fails
		n := 0
		for {
			if _, err := file.WriteString("record\n"); err != nil {
				break
			}
			if err := file.Sync(); err != nil {
				break
			}
			n++
			if n == 20 {
				acked <- n
			}
		}
		acked <- n
	}()
	<-acked
	signalCgroup(t, filepath.Dir(plan.Cgroup), unix.SIGSTOP)

	c := control(t, "ha")
	cut, err := request(t, c, worker.Request{Limit: 10 * time.Second, CutOff: &worker.CutOff{Volume: v, Epoch: 2, Addresses: []string{address}}})
	if err != nil || len(cut.CutOff.Watchers) != 0 || len(cut.CutOff.Blocklisted) != 1 {
		t.Fatalf("cut off: %+v, %v", cut.CutOff, err)
	}
	order := next.plan(v, 2)
	order.Takeover.Addresses = []string{address}
	mustActivate(t, order)
	records, err := os.ReadFile(filepath.Join(order.Volume.Mount, "records"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(order.Volume.Mount, "records"), []byte("taken over\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	mustVacate(t, next)
	before := digest(t, v)

	signalCgroup(t, filepath.Dir(plan.Cgroup), unix.SIGCONT)
	total := <-acked
	if got := strings.Count(string(records), "record\n"); got < total {
		t.Errorf("%d records were acknowledged, the new holder found %d", total, got) // I8
	}
	_ = file.Close()
	rec, err := release.Load(old.run, "svc")
	if err != nil {
		t.Fatal(err)
	}
	result := release.Stop(t.Context(), old.run, rec, release.Options{Reason: "test"})
	if !result.Contained || result.Vacated {
		t.Errorf("an old holder that lost its volume: %+v", result)
	}
	if after := digest(t, v); after != before {
		t.Error("the image changed after the old holder went on")
	}
	exit, err := release.LoadMapperExit(old.run, "svc")
	if err == nil && exit.Clean() {
		t.Errorf("the old mapper says it ended cleanly: %+v", exit)
	}
	t.Logf("acknowledged=%d present=%d; %+v; %+v", total, strings.Count(string(records), "record\n"), exit, result.Reasons)
}

// TestPausedBeforeLock stops Ceph, so that the mapper hangs on its way, kills its parent, and finds that it took
// nothing once Ceph is back.
func TestPausedBeforeLock(t *testing.T) {
	v, n := newVolume(t), newNode(t)
	if err := cluster.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	helper, err := helpers(t).Start(t.Context(), n.plan(v, 1))
	if err != nil {
		_ = cluster.Signal(unix.SIGCONT)
		t.Fatal(err)
	}
	waitFor(t, "a mapper", func() bool { return mappers(n) != "" })
	helper.Kill()
	if err := release.Tombstone(n.run, "svc", 1, 1, "test"); err != nil {
		t.Error(err)
	}
	if err := cluster.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the mapper's end", func() bool { return mappers(n) == "" })
	seen, err := request(t, control(t, "ha"), worker.Request{Limit: 10 * time.Second, Inspect: &worker.Inspect{Volume: v}})
	if err != nil || len(seen.Image.Owners) != 0 || len(seen.Image.Watchers) != 0 {
		t.Errorf("image: %+v, %v", seen.Image, err)
	}
}

func mappers(n *node) string {
	text, _ := os.ReadFile(filepath.Join(n.cgroup, "svc/map/cgroup.procs"))
	return string(text)
}

// waitFor polls what no event tells of.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(15 * time.Second)
	for !done() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("%s did not come", what)
		}
	}
}
