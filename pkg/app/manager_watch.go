package app

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/drive/corosync"
	"github.com/keepone-ha/keepone/pkg/drive/pacemaker"
	"github.com/keepone-ha/keepone/pkg/op"
	"github.com/keepone-ha/keepone/pkg/setup"
)

const (
	// The leader reads at a slow pace: corosync-quorumtool costs a core 35 ms, crm_mon 50 ms. Others read when asked.
	quorumEvery = 2 * time.Second
	statusEvery = 10 * time.Second
	// managerGap bounds the pace while one change follows another.
	managerGap = 500 * time.Millisecond
	// factsPatience is how long a status waits for Pacemaker.
	factsPatience = 500 * time.Millisecond
	// quorateFresh is how long an answer of corosync counts: two readings may fail or be late. Beyond it corosyncQuorate
	// is not known, and nobody is shot for what was once so.
	quorateFresh = 5 * time.Second
)

// managerWatch reads Pacemaker and corosync where they manage the cluster, apart from each other: Pacemaker's answer
// waits for an election of its DC, corosync's does not. It keeps the newest of each.
type managerWatch struct {
	watch      func() (core.State, <-chan struct{}) // of the replica
	leads      func() bool
	changed    func() // corosyncQuorate is another one
	clock      func() boottime.Time
	readQuorum func(context.Context) (corosync.Quorum, error)
	readStatus func(context.Context) (pacemaker.Status, error)
	quorumNow  chan struct{} // 1
	statusNow  chan struct{} // 1

	mu     sync.Mutex
	quorum reading[corosync.Quorum]
	status reading[pacemaker.Status]
}

// reading is the newest answer, and how the newest question ended.
type reading[T any] struct {
	value T
	at    boottime.Time // 0: there was no answer
	err   error
}

func newManagerWatch(watch func() (core.State, <-chan struct{}), leads func() bool, changed func()) *managerWatch {
	return &managerWatch{
		watch: watch, leads: leads, changed: changed, clock: boottime.Now,
		readQuorum: corosync.ReadQuorum, readStatus: pacemaker.ReadStatus,
		quorumNow: make(chan struct{}, 1), statusNow: make(chan struct{}, 1),
	}
}

// look has both read at once.
func (w *managerWatch) look() {
	nudge(w.quorumNow)
	nudge(w.statusNow)
}

// run reads until ctx ends.
func (w *managerWatch) run(ctx context.Context) {
	var rounds sync.WaitGroup
	defer rounds.Wait()
	rounds.Go(func() { w.poll(ctx, quorumEvery, w.quorumNow, w.takeQuorum) })
	w.poll(ctx, statusEvery, w.statusNow, w.takeStatus)
}

// poll takes a reading when nudged, and on a leader again and again, and at once when State changed. Where Pacemaker
// does not manage the cluster it forgets what was read, and sleeps until that changes.
func (w *managerWatch) poll(ctx context.Context, every time.Duration, now <-chan struct{}, take func(context.Context)) {
	asked := true
	for ctx.Err() == nil {
		state, changed := w.watch()
		again := time.After(every)
		if state.Spec.Manager != core.ManagerPacemaker {
			w.forget()
			again = nil
		} else if asked || w.leads() {
			take(ctx)
			if pause(ctx, managerGap) != nil {
				return
			}
		}
		asked = false
		select {
		case <-ctx.Done():
		case <-now:
			asked = true
		case <-changed:
		case <-again:
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func (w *managerWatch) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.quorum, w.status = reading[corosync.Quorum]{}, reading[pacemaker.Status]{}
}

func (w *managerWatch) takeQuorum(ctx context.Context) {
	asked := w.clock() // an answer is as old as its question
	q, err := w.readQuorum(ctx)
	w.mu.Lock()
	was := w.quorum
	if err == nil {
		w.quorum = reading[corosync.Quorum]{value: q, at: asked}
	} else {
		w.quorum.err = err
	}
	w.mu.Unlock()
	if err == nil && (was.at == 0 || was.value.Quorate != q.Quorate) {
		w.changed()
	}
}

func (w *managerWatch) takeStatus(ctx context.Context) {
	asked := w.clock()
	s, err := w.readStatus(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		w.status = reading[pacemaker.Status]{value: s, at: asked}
	} else {
		w.status.err = err
	}
}

// refresh reads what has become old, within factsPatience.
func (w *managerWatch) refresh() {
	w.mu.Lock()
	fresh := w.status.at != 0 && w.clock().Sub(w.status.at) < managerGap
	w.mu.Unlock()
	if fresh {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), factsPatience)
	defer cancel()
	asked := w.clock()
	s, err := w.readStatus(ctx)
	if err != nil {
		return // a problem is for poll to tell, which has more patience
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status = reading[pacemaker.Status]{value: s, at: asked}
}

// corosyncQuorate is what corosync last said; nil: it is not used here, or did not answer lately.
func (w *managerWatch) corosyncQuorate() *bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.quorum.at == 0 || w.clock().Sub(w.quorum.at) > quorateFresh {
		return nil
	}
	quorate := w.quorum.value.Quorate
	return &quorate
}

// facts are for a status; nil where Pacemaker does not manage the cluster. Whoever asks sees what is so now, if
// Pacemaker answers soon.
func (w *managerWatch) facts(spec core.Spec) *op.Pacemaker {
	if spec.Manager != core.ManagerPacemaker {
		return nil
	}
	w.refresh()
	quorate := w.corosyncQuorate()
	w.mu.Lock()
	defer w.mu.Unlock()
	f := &op.Pacemaker{Age: -1}
	if quorate != nil {
		f.Corosync = &op.Corosync{Quorate: *quorate}
		for _, m := range w.quorum.value.Members {
			f.Corosync.Members = append(f.Corosync.Members, m.Name)
		}
	}
	if w.status.err != nil {
		f.Problem = w.status.err.Error()
	}
	if w.status.at != 0 {
		f.Age = w.clock().Sub(w.status.at)
		tell(f, w.status.value, setup.FileSystems(spec))
	}
	return f
}

// tell copies what concerns keepone.
func tell(f *op.Pacemaker, s pacemaker.Status, fileSystems []string) {
	f.DC, f.Maintenance, f.Stonith = s.DC, s.Options.MaintenanceMode, s.Options.StonithEnabled
	for _, n := range s.Nodes {
		f.Nodes = append(f.Nodes, op.PacemakerNode{
			Name: n.Name, Online: n.Online, Standby: n.Standby, Maintenance: n.Maintenance, Unclean: n.Unclean, Pending: n.Pending,
		})
	}
	tellResources(f, s, fileSystems)
	for _, e := range s.Fencing {
		if e.Status == "pending" && pendingNow(s, e.Target) {
			f.Fencing = append(f.Fencing, e.Target)
		}
	}
}

// tellResources copies keepone's resources. Of a clone, what no node has is left out, unless it was disabled.
func tellResources(f *op.Pacemaker, s pacemaker.Status, fileSystems []string) {
	ours := map[string]bool{} // resources, and groups and clones of them
	for _, r := range s.Resources {
		file := slices.Contains(fileSystems, r.ID)
		if !file && !strings.HasPrefix(r.Agent, "ocf:keepone:") && r.Agent != "stonith:fence_keepone" {
			continue
		}
		for _, id := range slices.Concat(r.Parents, []string{r.ID}) {
			ours[id] = true
		}
		shown := op.PacemakerResource{
			ID: r.ID, Agent: r.Agent, Role: r.Role, Nodes: r.Nodes, Managed: r.Managed, Failed: r.Failed, Blocked: r.Blocked, Disabled: disabled(r),
		}
		idle := len(r.Nodes) == 0 && len(r.Parents) > 0 && !r.Failed && !file && !strings.HasPrefix(r.Agent, "ocf:keepone:container")
		before := func(o op.PacemakerResource) bool { return o.ID == r.ID }
		if !idle || shown.Disabled != "" && !slices.ContainsFunc(f.Resources, before) {
			f.Resources = append(f.Resources, shown)
		}
	}
	for _, b := range s.Bans {
		if ours[b.Resource] && strings.HasPrefix(b.ID, pacemaker.BanPrefix) {
			f.Bans = append(f.Bans, op.PacemakerBan{Resource: b.Resource, Node: b.Node})
		}
	}
}

// disabled is what an operator has disabled that the resource is, or is in.
func disabled(r pacemaker.Resource) string {
	if r.TargetRole != "Stopped" {
		return ""
	}
	return slices.Concat(r.Parents, []string{r.ID})[0]
}

// pendingNow: a fence that a human ended stays pending in the history for a while.
func pendingNow(s pacemaker.Status, node string) bool {
	n := s.Node(node)
	return n != nil && n.Unclean
}

// ClientScopeEnough reports whether a fence that cut off the node's storage clients alone may be told to Pacemaker as
// success. why is for people.
func (a *App) ClientScopeEnough(ctx context.Context, node core.NodeName) (enough bool, why string) {
	spec := a.replica.State().Spec
	if !spec.ClientScope {
		return false, "the cluster document does not say client_scope = true in [pacemaker]"
	}
	return a.manager.onlyOurs(ctx, spec, node)
}

// onlyOurs: nothing but keepone's resources can be on the node, as Pacemaker shows it now, and every service's policy
// takes a storage proof by itself. It reads anew: what was so two seconds ago is not enough.
func (w *managerWatch) onlyOurs(ctx context.Context, spec core.Spec, node core.NodeName) (bool, string) {
	for _, svc := range spec.Services {
		policy := spec.PolicyOf(svc.Name)
		alone := len(policy.Proofs) == 1 || policy.Require == core.RequireAny
		if !alone || !slices.Contains(policy.Proofs, core.ProofStorage) {
			return false, fmt.Sprintf("the fencing policy of %s does not take a storage proof alone", svc.Name)
		}
	}
	status, err := w.readStatus(ctx)
	if err != nil {
		return false, err.Error()
	}
	return pacemaker.OnlyOurs(status, string(node), setup.FileSystems(spec)...)
}
