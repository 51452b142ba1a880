package cases

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keepone-ha/keepone/test/lab"
)

// takeover is one failover as its user and its operator saw it.
type takeover struct {
	From, To *lab.Node
	Began    time.Time // when the bad thing was done
	Answered time.Time // first answer of the front-end after that, from its new place
	Event    event     // the history's one line for the whole
	Verdict  lab.Verdict
	Client   *lab.Client // stopped; can be asked again whether all of it is still there
}

func (t takeover) took() time.Duration { return t.Answered.Sub(t.Began) }

// failOver does something bad to the holder while a client writes, and waits until the front-end answers elsewhere.
func (c *cluster) failOver(ctx context.Context, bound time.Duration, bad func(context.Context, *lab.Node) error) (takeover, error) {
	holder, _, err := c.holder(ctx, c.anyUp())
	if err != nil {
		return takeover{}, err
	}
	t, err := outage(ctx, c.Lab, c.address, bound, holder, bad)
	if err != nil {
		return t, err
	}
	if t.To, err = c.awaitHolder(ctx, bound, holder); err != nil {
		return t, err
	}
	t.Event, err = c.lastEvent(ctx, t.To, "failover")
	return t, err
}

// outage does something bad to a node while a client writes, waits until the front-end answers again, and reads back
// what the client was told is there. It knows nothing of who brings the front-end back.
func outage(ctx context.Context, l *lab.Lab, address string, bound time.Duration, holder *lab.Node, bad func(context.Context, *lab.Node) error) (takeover, error) {
	t := takeover{From: holder}
	client := l.Client(ctx, address)
	defer client.Stop()
	_, err := client.AwaitAck(ctx, time.Now(), 5*time.Second)
	if err != nil {
		return t, err
	}
	time.Sleep(500 * time.Millisecond) // let some records be written: a user's time, nothing is synchronised by it
	t.Began = time.Now()
	if t.Answered, err = doAndAwait(ctx, address, bound, holder, bad); err != nil {
		return t, err
	}
	if _, err := client.AwaitAck(ctx, t.Answered, 10*time.Second); err != nil {
		return t, err
	}
	client.Stop()
	t.Client = client
	t.Verdict, err = client.Verify(ctx)
	return t, err
}

// doAndAwait does the bad thing and waits for the answer from elsewhere, side by side: on a busy machine a takeover may
// be over before all of a node's processes are gone.
func doAndAwait(ctx context.Context, address string, bound time.Duration, holder *lab.Node, bad func(context.Context, *lab.Node) error) (time.Time, error) {
	began := time.Now()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan error, 1)
	go func() {
		err := bad(ctx, holder)
		if err != nil {
			cancel(err)
		}
		done <- err
	}()
	answered, err := awaitAnswerElsewhere(ctx, address, bound, began)
	return answered, errors.Join(<-done, err)
}

// awaitAnswerElsewhere waits for an answer that can't be the old holder's last: the front-end must first be gone.
func awaitAnswerElsewhere(ctx context.Context, address string, bound time.Duration, after time.Time) (time.Time, error) {
	gone := func() error {
		short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		defer cancel()
		if _, err := lab.AskVersion(short, address, session); err == nil {
			return fmt.Errorf("the front-end still answers")
		}
		return nil
	}
	if err := await(ctx, bound, "front-end gone", gone); err != nil {
		return time.Time{}, err
	}
	return lab.AwaitAnswer(ctx, address, session, bound-time.Since(after))
}

// lastEvent is the newest event of a kind about the service.
func (c *cluster) lastEvent(ctx context.Context, ask *lab.Node, kind string) (event, error) {
	var found event
	err := await(ctx, 5*time.Second, kind+" in the history", func() error {
		events, err := c.history(ctx, ask)
		if err != nil {
			return err
		}
		for i := len(events) - 1; i >= 0; i-- {
			if events[i].Kind == kind && events[i].Service == service {
				found = events[i]
				return nil
			}
		}
		return fmt.Errorf("no %s event", kind)
	})
	return found, err
}

// nothingLost is an error if a record that was acknowledged is missing.
func nothingLost(v lab.Verdict) error {
	if len(v.Missing) > 0 {
		return fmt.Errorf("acknowledged records are missing: %s: %v", v, v.Missing[:min(len(v.Missing), 5)])
	}
	return nil
}
