package release

import (
	"context"
	"fmt"
	"time"
)

// contain takes the steps of Contain. Their order: the tombstone first, so that a paused starter that is not in the
// cgroup does nothing when it wakes; the link next, so that the service is silent even if the kill takes long.
func (h *host) contain(ctx context.Context, runDir string, r Record, reason string, limit time.Duration) Contained {
	started := time.Now()
	ctx, cancel := context.WithTimeout(ctx, limit) // for all of it
	defer cancel()
	var c Contained
	note := func(err error) bool {
		if err != nil {
			c.Reasons = append(c.Reasons, err.Error())
		}
		return err == nil
	}
	note(Tombstone(runDir, r.Service, r.Epoch, r.Attempt, reason))
	for _, link := range r.Network.Links {
		_ = h.links.Down(link) // what counts is read after the kill
	}
	empty := note(h.empty(ctx, r.Cgroups.Run, limit))
	if !empty {
		c.Reasons = append(c.Reasons, h.cgroups.Survivors(r.Cgroups.Run)...)
	}
	ended := note(h.endInit(ctx, r, limit))
	silent := true
	for _, link := range r.Network.Links {
		silent = note(h.silence(ctx, link, limit)) && silent
	}
	c.Done = empty && ended && silent
	if c.Done {
		note(Mark(runDir, r.Service, r.Epoch, r.Attempt, MarkContained, reason))
	}
	c.Took = time.Since(started)
	return c
}

// empty kills the cgroup until the kernel says that nothing is in it. It tries at least once, whatever ctx says.
func (h *host) empty(ctx context.Context, path string, limit time.Duration) error {
	var killed time.Time
	var killErr error
	err := until(ctx, limit, func() (bool, error) {
		populated, err := h.cgroups.Populated(path)
		if err == nil && !populated {
			return true, nil
		}
		if killed.IsZero() || time.Since(killed) >= killAgain {
			killErr = h.cgroups.Kill(path)
			killed = time.Now()
			if populated, again := h.cgroups.Populated(path); again == nil && !populated {
				return true, nil
			}
		}
		if err == nil {
			err = killErr
		}
		return false, err
	})
	if err != nil {
		return fmt.Errorf("empty cgroup %s: %w", path, err)
	}
	return nil
}

// endInit makes sure that the container's init is dead even if LXC put it outside the run cgroup: a PID namespace
// dies with its init.
func (h *host) endInit(ctx context.Context, r Record, limit time.Duration) error {
	if err := r.Init.Signal(sigKill); err != nil {
		return fmt.Errorf("kill init: %w", err)
	}
	err := until(ctx, limit, func() (bool, error) {
		alive, err := r.Init.Alive()
		return !alive && err == nil, err
	})
	if err != nil {
		return fmt.Errorf("kill init %d: %w", r.Init.PID, err)
	}
	return nil
}

// silence sets the link down again and reads it: the container's own end may have been moved or renamed meanwhile.
func (h *host) silence(ctx context.Context, link string, limit time.Duration) error {
	err := until(ctx, limit, func() (bool, error) {
		if err := h.links.Down(link); err != nil {
			return false, err
		}
		up, err := h.links.Up(link)
		return !up && err == nil, err
	})
	if err != nil {
		return fmt.Errorf("set link %s down: %w", link, err)
	}
	return nil
}
