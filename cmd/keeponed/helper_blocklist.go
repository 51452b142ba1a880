package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/keepone-ha/keepone/pkg/activate/takeover"
	"github.com/keepone-ha/keepone/pkg/drive/rbd"
	"github.com/keepone-ha/keepone/pkg/worker"
)

// requestLimit is the bound of a request that names none.
const requestLimit = 10 * time.Second

// errHung ends the helper, so that the daemon starts one whose calls do not hang.
var errHung = errors.New("a call into Ceph hangs")

// helperBlocklist answers Request lines with Response lines, each within its Limit, until its input ends.
func helperBlocklist(args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	var ceph worker.Ceph
	flags := flag.NewFlagSet("keeponed helper blocklist", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&ceph.Conf, "conf", "/etc/ceph/ceph.conf", "ceph.conf")
	flags.StringVar(&ceph.Keyring, "keyring", "", "keyring")
	flags.StringVar(&ceph.User, "user", "keepone", "client, without client.")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%w: %w", errHelper, err)
	}
	requests, answers := make(chan worker.Request), make(chan worker.Response, 1)
	defer close(requests)
	go (&controller{ceph: ceph}).serve(requests, answers) // ends with requests, or hangs in Ceph until the process ends
	lines, out := json.NewDecoder(bufio.NewReader(stdin)), json.NewEncoder(stdout)
	for {
		var r worker.Request
		switch err := lines.Decode(&r); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read request: %w", err)
		}
		answer, err := ask(r, requests, answers)
		if failed := out.Encode(answer); failed != nil {
			return fmt.Errorf("answer request: %w", failed)
		}
		if err != nil {
			return err
		}
	}
}

// ask waits no longer than the request's limit, whatever hangs.
func ask(r worker.Request, requests chan<- worker.Request, answers <-chan worker.Response) (worker.Response, error) {
	if r.Limit <= 0 {
		r.Limit = requestLimit
	}
	timer := time.NewTimer(r.Limit)
	defer timer.Stop()
	away := worker.Response{ID: r.ID, Failure: &worker.Failure{
		Code: worker.CodeCephAway, Message: fmt.Sprintf("Ceph gave no answer within %v: look at ceph status", r.Limit),
	}}
	select {
	case requests <- r:
	case <-timer.C: // still connecting
		return away, errHung
	}
	select {
	case answer := <-answers:
		return answer, nil
	case <-timer.C:
		return away, errHung
	}
}

// controller owns the warm connection.
type controller struct {
	ceph worker.Ceph
	conn *rbd.Conn
}

func (c *controller) serve(requests <-chan worker.Request, answers chan<- worker.Response) {
	_ = c.connect() // ahead of the first request; its error comes back with that
	for r := range requests {
		answer := worker.Response{ID: r.ID}
		if err := c.answer(r, &answer); err != nil {
			answer.Failure = asFailure(err)
			c.forget(answer.Failure.Code)
		}
		answers <- answer
	}
}

func (c *controller) connect() error {
	if c.conn != nil {
		return nil
	}
	conn, err := rbd.Control(c.ceph)
	if err != nil {
		return err
	}
	c.conn = conn
	return nil
}

// forget drops a connection that is of no more use: cut off itself, or with a call left behind in it.
func (c *controller) forget(code worker.Code) {
	if c.conn != nil && (code == worker.CodeBlocklisted || c.conn.Hung()) {
		conn := c.conn
		c.conn = nil
		go conn.Close() // it may hang; it ends with the process at the latest
	}
}

func (c *controller) answer(r worker.Request, answer *worker.Response) (err error) {
	if err := c.connect(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), r.Limit)
	defer cancel()
	switch {
	case r.Inspect != nil:
		answer.Image, err = c.conn.Inspect(r.Inspect.Volume)
	case r.Check != nil:
		answer.Checked, err = c.conn.Check(r.Check.Volume)
	case r.CutOff != nil:
		answer.CutOff, err = c.cutOff(ctx, *r.CutOff)
	default:
		err = errors.New("the request asks for nothing")
	}
	return err
}

func (c *controller) cutOff(ctx context.Context, order worker.CutOff) (*worker.CutOffDid, error) {
	img, err := c.conn.Open(order.Volume)
	if err != nil {
		return nil, err
	}
	did, err := takeover.CutOff(ctx, img, order)
	if err := errors.Join(err, img.Close()); err != nil {
		return nil, err
	}
	return &did, nil
}
