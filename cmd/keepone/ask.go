package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/keepone-ha/keepone/pkg/api"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/op"
)

// confirm says what will happen and asks. Without a terminal only --yes lets it go on.
func (c *cli) confirm(what string) error {
	if c.yes {
		return nil
	}
	if !c.terminal() {
		return fmt.Errorf("%w: %s Say --yes if that is what you want", errDeclined, what)
	}
	fmt.Fprintf(c.err, "%s\nType yes to go on: ", what)
	answer, err := bufio.NewReader(c.in).ReadString('\n')
	if err != nil || strings.TrimSpace(answer) != "yes" {
		return fmt.Errorf("%w: nothing was done", errDeclined)
	}
	return nil
}

func (c *cli) terminal() bool {
	file, ok := c.in.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil
}

// ask commits a request and shows it until it is answered.
func (c *cli) ask(ctx context.Context, ask op.Ask) error {
	var answer op.Answer
	if err := c.change(ctx, op.MethodAsk, ask, &answer); err != nil {
		return err
	}
	switch answer.State {
	case core.RequestOpen:
		c.printf("Request %d is committed and goes on; keepone status --watch shows it.\n", answer.Request)
	case core.RequestDone:
		c.printf("Done: %s\n", dot(answer.Text))
	case core.RequestRefused:
		return fmt.Errorf("%w: %s", errRefused, answer.Text)
	default:
		return fmt.Errorf("%w: %s; keepone explain and keepone status show more", errFailed, answer.Text)
	}
	return nil
}

// change makes a call that changes something: its lines are shown as they come. When the caller has enough
// (ctrl-C), what was asked for goes on, and it says how to watch it.
func (c *cli) change(ctx context.Context, method string, request, answer any) error {
	seen := uint64(0)
	begun := false
	err := c.daemon.Call(ctx, method, request, func(line json.RawMessage) {
		var p op.Progress
		if json.Unmarshal(line, &p) != nil {
			return
		}
		begun, seen = true, max(seen, p.Request)
		c.printf("%7.2f s  %s\n", p.After.Seconds(), p.Text)
	}, answer)
	if err != nil && ctx.Err() != nil {
		what := "what was asked for"
		if seen != 0 {
			what = fmt.Sprintf("request %d", seen)
		}
		return fmt.Errorf("%w without you: %s is not taken back by leaving; watch it with: keepone status --watch, keepone history", errGoesOn, what)
	}
	var remote *api.Error
	if errors.As(err, &remote) && remote.Code == api.CodeRefused && !begun {
		return fmt.Errorf("%w: %s", errRefused, remote.Message)
	}
	return err
}

func dot(text string) string {
	if text == "" {
		return "as asked."
	}
	return strings.TrimSuffix(text, ".") + "."
}
