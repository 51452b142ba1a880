package app

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/pkg/api"
	"github.com/keepone-ha/keepone/pkg/config"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/op"
	"github.com/keepone-ha/keepone/pkg/replica"
)

const (
	askLimit    = 10 * time.Second // to commit what was asked
	followEvery = time.Second
	defaultJoin = 24 * time.Hour
)

// openLocal serves the operator's socket.
func (a *App) openLocal() error {
	local := api.NewLocal(a.log)
	for method, h := range map[string]struct {
		need   api.Access
		handle api.LocalHandler
	}{
		op.MethodLook:        {api.AccessRead, a.opLook},
		op.MethodAsk:         {api.AccessChange, a.opAsk},
		op.MethodConfig:      {api.AccessRead, a.opConfig},
		op.MethodConfigCheck: {api.AccessRead, a.opConfigCheck},
		op.MethodConfigApply: {api.AccessChange, a.opConfigApply},
		op.MethodToken:       {api.AccessChange, a.opToken},
		op.MethodLeave:       {api.AccessChange, a.opLeave},
		op.MethodVolume:      {api.AccessChange, a.opVolume},
		op.MethodDoctor:      {api.AccessRead, a.opDoctor},
		op.MethodFenceCheck:  {api.AccessRead, a.opFenceCheck},
		op.MethodClaim:       {api.AccessChange, a.opClaim},
		op.MethodWake:        {api.AccessChange, a.opWake},
		op.MethodHealth:      {api.AccessRead, a.opHealth},
		op.MethodProbe:       {api.AccessChange, a.opProbe},
		op.MethodPublish:     {api.AccessChange, a.opPublish},
	} {
		local.Handle(method, h.need, h.handle)
	}
	a.openFencing(local)
	if err := local.Listen(filepath.Join(a.file.RunDir, "keeponed.sock")); err != nil {
		return err
	}
	a.onStop(func() { _ = local.Close() })
	return nil
}

// opLook answers with State and facts; sealed secrets stay here.
func (a *App) opLook(ctx context.Context, _ api.Caller, _ json.RawMessage, _ func(any) error) (any, error) {
	return op.Look{State: toShow(a.replica.State()), Facts: a.bestFacts(ctx)}, nil
}

// toShow is a State as an operator may see it.
func toShow(state core.State) core.State {
	state.Document.Text = ""
	state.Tokens = nil
	state.Spec = withoutSecrets(state.Spec)
	return state
}

// withoutSecrets is a copy without passwords, sealed as they are.
func withoutSecrets(spec core.Spec) core.Spec {
	spec.Nodes = slices.Clone(spec.Nodes)
	for i, n := range spec.Nodes {
		if n.BMC != nil {
			bmc := *n.BMC
			bmc.Password = ""
			spec.Nodes[i].BMC = &bmc
		}
	}
	spec.Services = slices.Clone(spec.Services)
	for i, svc := range spec.Services {
		probes := slices.Clone(svc.Probes)
		for j := range probes {
			probes[j].Password = ""
		}
		spec.Services[i].Probes = probes
	}
	return spec
}

// opAsk commits a request and follows it to its answer. Hanging up leaves it going.
func (a *App) opAsk(ctx context.Context, c api.Caller, body json.RawMessage, send func(any) error) (any, error) {
	var ask op.Ask
	if err := json.Unmarshal(body, &ask); err != nil {
		return nil, api.Refuse("read request: %v", err)
	}
	token := rand.Text()
	f := follower{token: token, began: time.Now(), send: send}
	if state := a.replica.State(); state.Spec.Manager == core.ManagerPacemaker {
		if answer, done, err := a.drive(ctx, ask, &f); done || err != nil {
			return answer, err
		}
	}
	command := core.Ask{
		What: ask.What, Service: ask.Service, Node: ask.Node, For: ask.For, Token: token,
		By: fmt.Sprintf("%s on %s", c.Name(), a.file.Name),
	}
	if err := a.change(ctx, command); err != nil {
		return nil, err
	}
	for {
		state, changed := a.replica.Watch()
		r, ok := f.look(state)
		if ok && (r.State != core.RequestOpen || ask.NoWait) {
			return op.Answer{Request: r.ID, State: r.State, Text: r.Answer}, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("request %d goes on: %w", r.ID, ctx.Err())
		case <-changed:
		case <-time.After(followEvery):
		}
	}
}

// change commits a command and words what came of it.
func (a *App) change(ctx context.Context, c core.Command) error {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	outcome, err := a.replica.Propose(ctx, c)
	switch {
	case outcome == core.Done:
		return nil
	case outcome == core.Unknown:
		return &api.Error{Code: api.CodeUnknown, Message: err.Error() + "; `keepone history` shows whether it was done"}
	case errors.Is(err, replica.ErrNoLeader):
		return &api.Error{Code: api.CodeNoQuorum, Message: err.Error()}
	}
	return &api.Error{Code: api.CodeRefused, Message: refusal(err)}
}

// refusal is why State did not take a command, without the way that the answer came.
func refusal(err error) string {
	text := err.Error()
	if _, rest, ok := strings.Cut(text, "apply "); ok {
		if _, why, ok := strings.Cut(rest, ": "); ok {
			text = why
		}
	}
	return strings.TrimSuffix(text, ": "+core.ErrRefused.Error())
}

// follower turns new events about one request into progress.
type follower struct {
	token string
	began time.Time
	send  func(any) error
	seen  uint64
	last  string
}

// look sends what is new, and returns the request once it is applied here.
func (f *follower) look(state core.State) (core.Request, bool) {
	for _, r := range state.Requests {
		if r.Token != f.token {
			continue
		}
		f.seen = max(f.seen, r.ID)
		for _, e := range state.History {
			if e.ID > f.seen && (e.Request == r.ID || (r.Service != "" && e.Service == r.Service) || (r.Node != "" && e.Node == r.Node)) {
				f.seen = e.ID
				f.say(r.ID, e.Reason)
			}
		}
		if r.State == core.RequestOpen && r.Answer != "" {
			f.say(r.ID, r.Answer)
		}
		return r, true
	}
	return core.Request{}, false
}

func (f *follower) say(id uint64, text string) {
	if text == f.last {
		return
	}
	f.last = text
	_ = f.send(op.Progress{Request: id, After: time.Since(f.began), Text: text}) // a caller that hung up needs none
}

func (a *App) opConfig(context.Context, api.Caller, json.RawMessage, func(any) error) (any, error) {
	return a.replica.State().Document, nil
}

func (a *App) opConfigCheck(_ context.Context, _ api.Caller, body json.RawMessage, _ func(any) error) (any, error) {
	d, err := a.newDocument(body)
	return d.changes, err
}

func (a *App) opConfigApply(ctx context.Context, _ api.Caller, body json.RawMessage, _ func(any) error) (any, error) {
	d, err := a.newDocument(body)
	if err != nil {
		return nil, err
	}
	if d.against != "" {
		return nil, api.Refuse("%s", d.against)
	}
	if err := a.change(ctx, d.command); err != nil {
		return nil, err
	}
	d.changes.Version = d.command.Expect + 1
	return d.changes, nil
}

// newDocument is a document that was read, and what it would change.
type newDocument struct {
	command core.Configure
	changes op.Changes
	against string // why it can't be applied now, empty if it can
}

// against says what a change needs that is not given now, empty if nothing. State may move until the change is
// committed: what safety needs Apply refuses itself, this is for what an operator must know beforehand.
func against(state core.State, c config.Change) string {
	switch c.Effect {
	case config.EffectRefused:
		return "can't be changed"
	case config.EffectMaintenance:
		if !state.Maintenance.On {
			return "needs maintenance: `keepone maintenance on` first"
		}
		for _, name := range state.ServiceNames() {
			// I5: a holder that was not offered it yet is about to live or die by a lease of the old length.
			if g := state.Services[name].Grant; g != nil && state.Maintenance.Accepted[g.Node] != g.Instance {
				return fmt.Sprintf("needs maintenance, which has not reached %s yet: wait a moment, or stop %s", g.Node, name)
			}
		}
	case config.EffectStopped:
		if g := state.Services[c.Service].Grant; g != nil {
			return fmt.Sprintf("needs %s stopped, and %s holds it: `keepone service stop %s` first", c.Service, g.Node, c.Service)
		}
	case config.EffectAtOnce, config.EffectNextStart, config.EffectRestart:
	}
	return ""
}

// newDocument reads a document, seals its secrets, and says what it would change.
func (a *App) newDocument(body json.RawMessage) (newDocument, error) {
	var in op.Config
	if err := json.Unmarshal(body, &in); err != nil {
		return newDocument{}, api.Refuse("read request: %v", err)
	}
	if _, err := config.Parse(in.Text, config.Options{File: in.File}); err != nil {
		return newDocument{}, api.Refuse("%v", err)
	}
	text, err := config.Seal(in.Text, a.id.Seal)
	if err != nil {
		return newDocument{}, api.Refuse("seal passwords: %v", err)
	}
	spec, err := config.Parse(text, config.Options{File: in.File, Sealed: true})
	if err != nil {
		return newDocument{}, api.Refuse("%v", err)
	}
	state := a.replica.State()
	expect := in.Expect
	if expect == 0 {
		expect = state.Document.Version
	}
	document := core.Document{Text: text, Digest: config.Digest(text)}
	d := newDocument{command: core.Configure{Expect: expect, Document: document, Spec: spec}}
	var problems []string
	for _, c := range config.Diff(state.Spec, spec) {
		d.changes.Lines = append(d.changes.Lines, c.String())
		if why := against(state, c); why != "" {
			problems = append(problems, c.What+": "+why)
		}
	}
	d.against = strings.Join(problems, "\n")
	return d, nil
}

// opToken makes a join token; only its hash is committed.
func (a *App) opToken(ctx context.Context, _ api.Caller, body json.RawMessage, _ func(any) error) (any, error) {
	var in op.Token
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, api.Refuse("read request: %v", err)
	}
	if in.For <= 0 {
		in.For = defaultJoin
	}
	token := a.id.NewToken()
	if err := a.change(ctx, core.IssueToken{ID: token.ID, Hash: token.Hash(), Node: in.Node, For: in.For}); err != nil {
		return nil, err
	}
	return op.TokenMade{Token: token.String()}, nil
}

func (a *App) opLeave(ctx context.Context, _ api.Caller, body json.RawMessage, _ func(any) error) (any, error) {
	var in op.Leave
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, api.Refuse("read request: %v", err)
	}
	return struct{}{}, a.change(ctx, core.Leave{Node: in.Node})
}
