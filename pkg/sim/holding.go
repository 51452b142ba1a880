package sim

import (
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/guard"
	"github.com/keepone-ha/keepone/pkg/release"
)

// holding is what a node's kernel and run directory have of one service.
type holding struct {
	n        *node
	index    int
	name     core.ServiceName
	has      bool // there is a record of this life
	rec      release.Record
	client   *client // of the mapper, dead or alive; nil: there was none
	mounted  bool
	runs     bool // the container's init lives
	begun    time.Duration
	buried   tomb
	stopping bool
	turn     uint64 // counts runs, so that the work of an earlier one ends
}

// tomb stops every attempt up to its own.
type tomb struct {
	epoch   core.Epoch
	attempt int
}

func (h *holding) right() guard.Right { return guard.Right{Service: h.rec.Service, Epoch: h.rec.Epoch} }

func (h *holding) facts() release.Facts {
	mapper := h.client != nil && h.client.alive
	return release.Facts{Init: h.runs, Populated: h.runs, Mounted: h.mounted, Mapper: mapper, MapGroup: mapper}
}

func (h *holding) isBuried(epoch core.Epoch, attempt int) bool {
	return h.buried.epoch > epoch || (h.buried.epoch == epoch && h.buried.attempt >= attempt)
}

// start has the container run, and work.
func (h *holding) start() {
	h.runs, h.begun = true, h.n.w.now
	h.turn++
	h.n.w.checks.dirty = true
	h.work(h.turn)
}

// end is the death of the container.
func (h *holding) end() {
	if h.runs {
		h.runs = false
		h.n.w.checks.dirty = true
		if h.n.daemon != nil {
			h.n.daemon.stir()
		}
	}
}

// work writes and flushes, for as long as the run lasts.
func (h *holding) work(turn uint64) {
	w := h.n.w
	w.on(h.n, h.n.takes(w.between(100*time.Millisecond, 300*time.Millisecond)), func() {
		if !h.runs || h.turn != turn || h.client == nil || !h.client.alive {
			return
		}
		h.client.write(w.rng.IntN(objects))
		h.work(turn)
	})
}

// contain makes sure that nothing of the attempt runs, and reports whether it is so. It needs nothing (I5, I7).
func (h *holding) contain(epoch core.Epoch, attempt int, reason string) bool {
	if b := (tomb{epoch, attempt}); !h.isBuried(epoch, attempt) {
		h.buried = b
	}
	if !h.has || h.rec.Epoch != epoch || h.rec.Attempt != attempt {
		return true
	}
	if h.runs && h.n.wrong.container.undying {
		return false
	}
	h.end()
	h.rec.Marks.Contained, h.rec.Marks.Reason = true, reason
	return true
}

// orphaned is what the end of the daemon does to an activation under way: its helper ends, what it did stays. A mapper
// that has not been handed over ends with it.
func (h *holding) orphaned() {
	if h.client != nil && h.client.alive && h.rec.Storage.Address == "" {
		h.client.vanish()
	}
}

const (
	stopOther   = 15 * time.Second
	stopContain = 3 * time.Second
	stopSync    = 10 * time.Second
)

// stop takes down what is here, within its bounds, and says what it came to (I7). keep leaves the volume.
func (h *holding) stop(p *process, graceful time.Duration, keep bool) (result release.Result) {
	w := h.n.w
	w.busy++
	defer func() { w.busy-- }()
	if w.managed() && !p.await(stopOther, func() bool { return !h.stopping }) {
		return release.Result{Reasons: []string{"another stop of it goes on"}}
	}
	h.stopping = true
	defer func() { h.stopping = false }()
	rec := h.rec
	if !h.isBuried(rec.Epoch, rec.Attempt) {
		h.buried = tomb{rec.Epoch, rec.Attempt}
	}
	if h.runs {
		h.rec.Marks.Halted = true
		if h.n.wrong.container.stubborn {
			p.await(graceful, func() bool { return !h.runs })
		} else {
			p.sleep(w.between(100*time.Millisecond, 800*time.Millisecond))
		}
	}
	done := h.contain(rec.Epoch, rec.Attempt, "stopped")
	for until := w.now + stopContain; !done && w.now < until; {
		p.sleep(300 * time.Millisecond)
		done = h.contain(rec.Epoch, rec.Attempt, "stopped")
	}
	result.Contained = done
	if !done {
		result.Reasons = append(result.Reasons, "a process can't be killed")
	}
	if keep || !done {
		return result
	}
	result.Vacated = h.unmount(p, &result) && result.Contained
	if result.Vacated && h.rec.Epoch == rec.Epoch && h.rec.Attempt == rec.Attempt {
		h.rec.Marks.Vacated = true
	}
	h.n.w.checks.stopped(h, rec, result)
	return result
}

// unmount writes back, unmounts and unmaps; false: something of it failed or timed out.
func (h *holding) unmount(p *process, result *release.Result) bool {
	w := h.n.w
	clean := !h.rec.Marks.Dirty
	if h.mounted {
		p.sleep(w.between(20*time.Millisecond, 200*time.Millisecond))
		if h.n.wrong.unmount || !h.flushes(p) {
			clean = false
			p.sleep(w.between(time.Second, stopSync))
		}
		h.mounted = false
	}
	if h.client != nil && h.client.alive {
		switch {
		case clean && h.flushes(p):
			p.sleep(w.between(5*time.Millisecond, 50*time.Millisecond))
			h.client.close()
		default:
			clean = false
			p.sleep(w.between(100*time.Millisecond, 5*time.Second))
			h.client.vanish()
		}
	} else if h.client != nil && !h.client.alive && h.client.img.owner == h.client.address {
		clean = false // it died without its word
	}
	if !clean {
		h.rec.Marks.Dirty = true
		result.Reasons = append(result.Reasons, "unmount: input/output error")
	}
	return clean
}

// flushes reports whether what was written can be brought to the OSDs now.
func (h *holding) flushes(p *process) bool {
	w := h.n.w
	cl := h.client
	if cl == nil || !cl.alive || cl.cut || !w.ceph.answers() || !w.net.reachesCeph(h.n) {
		return false
	}
	p.sleep(w.between(time.Millisecond, 5*time.Millisecond) + w.between(0, w.ceph.slow))
	for until := w.now + stopSync; cl.flying > 0; { // a flush is told done once all before it is durable
		if w.now >= until || !cl.alive {
			return false
		}
		p.sleep(20 * time.Millisecond)
	}
	for k := range objects {
		if !cl.reach(k) {
			return false
		}
	}
	return cl.alive
}
