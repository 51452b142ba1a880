package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/worker"
)

const (
	inspectEvery = 2 * time.Second
	checkEvery   = 5 * time.Minute
	inspectLimit = 6 * time.Second
	checkLimit   = 10 * time.Second
	cutOffLimit  = 12 * time.Second
)

// storage is this node's standing with Ceph: it answers for readiness, and cuts clients off.
type storage struct {
	helpers   worker.Helpers
	fencing   *worker.Control // kept apart: a readiness check that hangs must not cost a fence its time
	readiness *worker.Control
	full      func(context.Context, core.ServiceName) bool // whether a volume that is mounted here has no room

	mu      sync.Mutex
	ready   map[core.ServiceName]core.Ready
	checked map[core.ServiceName]time.Time // when the cap was last found right
	relists map[core.ServiceName]bool      // what was found then
}

func newStorage(h worker.Helpers, c worker.Ceph) *storage {
	return &storage{
		helpers: h, fencing: worker.NewControl(h, c), readiness: worker.NewControl(h, c),
		ready: map[core.ServiceName]core.Ready{}, checked: map[core.ServiceName]time.Time{}, relists: map[core.ServiceName]bool{},
	}
}

func (s *storage) close() {
	s.fencing.Close()
	s.readiness.Close()
}

// CutOff is the storage proof's effect, see worker.CutOff.
func (s *storage) CutOff(ctx context.Context, order worker.CutOff) (worker.CutOffDid, error) {
	ctx, cancel := context.WithTimeout(ctx, cutOffLimit)
	defer cancel()
	answer, err := s.fencing.Do(ctx, worker.Request{Limit: cutOffLimit, CutOff: &order})
	if err != nil {
		renew(s.fencing, err)
		renew(s.fencing, err)
		return worker.CutOffDid{}, err
	}
	if answer.CutOff == nil {
		return worker.CutOffDid{}, fmt.Errorf("cut off clients of %s: the helper's answer is empty", order.Volume.Image)
	}
	return *answer.CutOff, nil
}

// warm opens the connection that a fence will need, so that the first fence does not wait for it.
func (s *storage) warm(ctx context.Context, spec core.VolumeSpec) {
	ctx, cancel := context.WithTimeout(ctx, inspectLimit)
	defer cancel()
	_, _ = s.fencing.Do(ctx, worker.Request{Limit: inspectLimit, Inspect: &worker.Inspect{Volume: spec}})
}

// watch keeps saying, for each service, whether this node could take it now; changed is called when that changes.
func (s *storage) watch(ctx context.Context, state func() core.State, changed func()) {
	for round := 0; ctx.Err() == nil; round++ {
		st := state()
		for _, svc := range st.Spec.Services {
			if round%15 == 0 {
				s.warm(ctx, svc.Volume)
			}
			was := s.Ready()[svc.Name]
			now := s.look(ctx, st, svc)
			s.mu.Lock()
			s.ready[svc.Name] = now
			s.mu.Unlock()
			if was != now {
				changed()
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(inspectEvery):
		}
	}
}

// Ready is the newest answer for each service.
func (s *storage) Ready() map[core.ServiceName]core.Ready {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[core.ServiceName]core.Ready{}
	for name, r := range s.ready {
		all[name] = r
	}
	return all
}

// look opens the image and tries the cap.
func (s *storage) look(ctx context.Context, st core.State, svc core.ServiceSpec) core.Ready {
	ctx, cancel := context.WithTimeout(ctx, inspectLimit+checkLimit)
	defer cancel()
	answer, err := s.readiness.Do(ctx, worker.Request{Limit: inspectLimit, Inspect: &worker.Inspect{Volume: svc.Volume}})
	if err != nil {
		renew(s.readiness, err)
		return core.Ready{Reason: err.Error()}
	}
	image := answer.Image
	if image == nil {
		return core.Ready{Reason: "the storage helper's answer is empty"}
	}
	ready := core.Ready{Epoch: image.Epoch}
	if time.Since(s.checkedAt(svc.Name)) > checkEvery {
		if err := s.tryCap(ctx, svc); err != nil {
			ready.Reason = err.Error()
		}
	}
	ready.Cuts = ready.Reason == ""
	if reason := unusable(*image, st, svc); reason != "" {
		ready.Reason = reason
	} else if s.full(ctx, svc.Name) {
		ready.Reason = fmt.Sprintf("the volume of %s is full: make room in its container, or grow image and file system", svc.Name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if ready.OK = ready.Reason == ""; ready.OK {
		ready.Relists = s.relists[svc.Name]
	}
	return ready
}

// tryCap cuts off an address that nobody has, as a fence and a takeover would cut off a client's.
func (s *storage) tryCap(ctx context.Context, svc core.ServiceSpec) error {
	answer, err := s.readiness.Do(ctx, worker.Request{Limit: checkLimit, Check: &worker.Check{Volume: svc.Volume}})
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		delete(s.checked, svc.Name)
		renew(s.readiness, err)
		return err
	}
	s.checked[svc.Name], s.relists[svc.Name] = time.Now(), answer.Checked != nil && answer.Checked.Relists
	return nil
}

// again looks at every service's storage now, the cap included, whenever it was last tried.
func (s *storage) again(ctx context.Context, st core.State) map[core.ServiceName]core.Ready {
	s.mu.Lock()
	clear(s.checked)
	s.mu.Unlock()
	all := map[core.ServiceName]core.Ready{}
	for _, svc := range st.Spec.Services {
		all[svc.Name] = s.look(ctx, st, svc)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.Copy(s.ready, all)
	return all
}

// renew drops a connection that is of no more use: Ceph gives a key's new caps to new connections alone, and one
// whose monitor died may look for another for half a minute, where a new one asks all of them at once.
func renew(c *worker.Control, err error) {
	var failure *worker.Failure
	if errors.As(err, &failure) && (failure.Code == worker.CodeNoCap || failure.Code == worker.CodeCephAway) {
		c.Close()
	}
}

func (s *storage) checkedAt(name core.ServiceName) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.checked[name]
}

// unusable says why an image can't be taken by anybody of the cluster, empty if it can.
func unusable(image worker.Image, st core.State, svc core.ServiceSpec) string {
	name := svc.Volume.Pool + "/" + svc.Volume.Image
	if image.Size == 0 {
		return fmt.Sprintf("image %s has size 0: it was never filled, or was cut; restore it", name)
	}
	held := st.Services[svc.Name]
	for _, owner := range image.Owners {
		if ours(owner, st) && held.Grant == nil && len(held.Uncut) == 0 {
			return fmt.Sprintf("image %s is held by %s although no node holds the service: a volume job is at work there, or it ends in a moment", name, owner)
		}
		if !ours(owner, st) {
			return fmt.Sprintf("image %s is locked by a stranger at %s: stop it there, or run `keepone volume claim %s`", name, owner, svc.Name)
		}
	}
	return ""
}

// ours reports whether a storage client's address is at a node of the cluster.
func ours(owner string, st core.State) bool {
	host, _, _ := strings.Cut(owner, "/")
	at, err := netip.ParseAddrPort(host)
	if err != nil {
		return false
	}
	for _, node := range st.Spec.Nodes {
		for _, link := range node.Links {
			if link == at.Addr() {
				return true
			}
		}
	}
	for _, s := range st.Services {
		if s.Grant == nil {
			continue
		}
		for _, c := range s.Grant.Clients {
			if c == owner {
				return true
			}
		}
	}
	return false
}
