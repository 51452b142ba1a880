package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keepone-ha/keepone/pkg/api"
	"github.com/keepone-ha/keepone/pkg/api/pipenet"
	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/config"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/drive/ipmi"
	"github.com/keepone-ha/keepone/pkg/fence"
	"github.com/keepone-ha/keepone/pkg/fence/relay"
	"github.com/keepone-ha/keepone/pkg/op"
	"github.com/keepone-ha/keepone/pkg/pki"
)

var quiet = slog.New(slog.DiscardHandler)

// host is the machine behind a fake BMC.
type host struct {
	mu    sync.Mutex
	off   bool
	dead  bool
	noOff bool
	said  []string
}

func (s *host) did(what string, change func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return ipmi.ErrUnreachable
	}
	s.said = append(s.said, what)
	change()
	return nil
}

func (s *host) orders() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(slices.DeleteFunc(slices.Clone(s.said), func(w string) bool { return w == "read" }), " ")
}

func (s *host) Power(context.Context) (ipmi.Reading, error) {
	r := ipmi.Reading{State: ipmi.On, At: boottime.Time(time.Now().UnixNano())}
	err := s.did("read", func() {
		if s.off {
			r.State = ipmi.Off
		}
	})
	return r, err
}

func (s *host) Off(context.Context) error {
	return s.did("off", func() { s.off = !s.noOff || s.off })
}
func (s *host) On(context.Context) error { return s.did("on", func() { s.off = false }) }
func (s *host) Close() error             { return nil }
func (s *host) Identity(context.Context) (string, error) {
	return "a123456789abcdefa123456789abcd02", s.did("read", func() {})
}

// rig is node n1 with the agent on it, n2's machine behind its BMC, and peers n2 and n3.
type rig struct {
	dir      string
	file     config.NodeFile
	server   host
	quorate  error
	asked    int // of corosync
	settings bool
	dial     api.DialFunc
}

func newRig(t *testing.T) *rig {
	t.Helper()
	dir := t.TempDir()
	r := &rig{dir: dir, settings: true}
	r.file = config.NodeFile{Name: "n1", DataDir: dir, RunDir: dir, Ports: config.DefaultPorts()}
	r.dial = func(context.Context, netip.AddrPort) (net.Conn, error) { return nil, errors.New("connection refused") }
	return r
}

func address(last byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, last}) }

func (r *rig) save(t *testing.T) {
	t.Helper()
	if !r.settings {
		return
	}
	node := func(name core.NodeName, last byte) core.NodeSpec {
		return core.NodeSpec{
			Name: name, Links: []netip.Addr{address(last)},
			BMC: &core.BMCSpec{Address: "bmc-" + string(name), Password: "sealed:secret", CipherSuite: 3, GUID: "a123456789abcdefa123456789abcd02"},
		}
	}
	s := fence.Settings{
		Timing: core.Timing{RaftElection: 400 * time.Millisecond, OffReadings: 150 * time.Millisecond},
		Nodes:  []core.NodeSpec{node("n1", 1), node("n2", 2), node("n3", 3), {Name: "w"}},
	}
	text, err := s.Encode()
	if err == nil {
		err = os.WriteFile(filepath.Join(r.dir, fence.SettingsFile), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// call runs the agent once.
func (r *rig) call(t *testing.T, line string) (code int, out, stderr string) {
	t.Helper()
	r.save(t)
	o, _, err := parseStdin(strings.NewReader(strings.ReplaceAll(line, " ", "\n")))
	if err != nil {
		t.Fatal(err)
	}
	var stdout, errs bytes.Buffer
	a := &agent{
		options: o, file: r.file, out: &stdout, err: &errs, dial: r.dial,
		openBMC: func(spec core.BMCSpec) (bmc, error) {
			if spec.Address != "bmc-n2" {
				t.Errorf("opened %s", spec.Address)
			}
			return &r.server, nil
		},
		quorate: func(context.Context) error { r.asked++; return r.quorate },
	}
	code = a.exit(a.act(t.Context()))
	if strings.Contains(stdout.String()+errs.String(), "secret") {
		t.Errorf("a secret is printed: %s %s", stdout.String(), errs.String())
	}
	return code, stdout.String(), errs.String()
}

// daemon serves this node's socket.
func (r *rig) daemon(t *testing.T, methods map[string]func(json.RawMessage) (any, error)) {
	t.Helper()
	local := api.NewLocal(quiet)
	for method, answer := range methods {
		local.Handle(method, api.AccessChange, func(_ context.Context, _ api.Caller, body json.RawMessage, send func(any) error) (any, error) {
			if err := send(op.Progress{Text: "heard"}); err != nil {
				return nil, err
			}
			return answer(body)
		})
	}
	if err := local.Listen(filepath.Join(r.dir, "keeponed.sock")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = local.Close() })
}

func answers(v any, err error) func(json.RawMessage) (any, error) {
	return func(json.RawMessage) (any, error) { return v, err }
}

var offProven = op.Fenced{Proof: core.ProofBMCOff, Scope: core.ScopeNode, Words: "read off twice"}

func TestByDaemon(t *testing.T) {
	switchedOn, later := 0, false
	look := op.Look{State: core.State{Spec: core.Spec{Nodes: []core.NodeSpec{{Name: "n1", BMC: &core.BMCSpec{}}, {Name: "n2", BMC: &core.BMCSpec{}}, {Name: "w"}}}}}
	power := func(on bool, err error) func(json.RawMessage) (any, error) {
		return func(body json.RawMessage) (any, error) {
			var in op.Power
			if json.Unmarshal(body, &in) == nil && in.On {
				switchedOn++
				later = in.Later
			}
			return op.Powered{On: on}, err
		}
	}
	for name, row := range map[string]struct {
		call    string
		methods map[string]func(json.RawMessage) (any, error)
		code    int
		says    string
		on      int
	}{
		"off":                     {call: "action=off plug=n2", methods: map[string]func(json.RawMessage) (any, error){"fence": answers(offProven, nil), "power": power(true, nil)}, says: "bmc-off of node scope"},
		"reboot":                  {call: "action=reboot plug=n2", methods: map[string]func(json.RawMessage) (any, error){"fence": answers(offProven, nil), "power": power(true, nil)}, says: "is fenced", on: 1},
		"reboot, on fails":        {call: "action=reboot plug=n2", methods: map[string]func(json.RawMessage) (any, error){"fence": answers(offProven, nil), "power": power(false, errors.New("BMC busy"))}, says: "was not switched on", on: 1},
		"reboot, came back":       {call: "action=reboot plug=n2", methods: map[string]func(json.RawMessage) (any, error){"fence": answers(op.Fenced{Proof: core.ProofRebooted, Scope: core.ScopeNode}, nil), "power": power(true, nil)}, says: "rebooted"},
		"reboot, a human's word":  {call: "action=reboot plug=n2", methods: map[string]func(json.RawMessage) (any, error){"fence": answers(op.Fenced{Proof: core.ProofHuman, Scope: core.ScopeNode}, nil), "power": power(true, nil)}, says: "human"},
		"enough by client scope":  {call: "action=off plug=n2", methods: map[string]func(json.RawMessage) (any, error){"fence": answers(op.Fenced{Proof: core.ProofStorage, Scope: core.ScopeClient}, nil)}, says: "client scope"},
		"not fenced":              {call: "action=off plug=n2", methods: map[string]func(json.RawMessage) (any, error){"fence": answers(nil, api.Refuse("n2 is not fenced: only client scope"))}, code: 1, says: "only client scope"},
		"an answer without proof": {call: "action=off plug=n2", methods: map[string]func(json.RawMessage) (any, error){"fence": answers(struct{}{}, nil)}, code: 1, says: "proves nothing"},
		"on":                      {call: "action=on plug=n2", methods: map[string]func(json.RawMessage) (any, error){"power": power(true, nil)}, on: 1},
		"status on":               {call: "action=status plug=n2", methods: map[string]func(json.RawMessage) (any, error){"power": power(true, nil)}, says: "ON"},
		"status off":              {call: "action=status plug=n2", methods: map[string]func(json.RawMessage) (any, error){"power": power(false, nil)}, code: 2, says: "OFF"},
		"status unknown":          {call: "action=status plug=n2", methods: map[string]func(json.RawMessage) (any, error){"power": power(false, errors.New("no answer of the BMC"))}, code: 1, says: "no answer"},
		"list":                    {call: "action=list", methods: map[string]func(json.RawMessage) (any, error){"look": answers(look, nil)}, says: "n1,\nn2,\n"},
		"list-status":             {call: "action=list-status", methods: map[string]func(json.RawMessage) (any, error){"look": answers(look, nil), "power": power(false, nil)}, says: "n1,,OFF\nn2,,OFF\n"},
		"monitor":                 {call: "action=monitor", methods: map[string]func(json.RawMessage) (any, error){"look": answers(look, nil)}},
		"start":                   {call: "action=start"},
		"stop":                    {call: "action=stop"},
		"validate-all, no key":    {call: "action=validate-all", code: 1, says: "keepone init"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.daemon(t, row.methods)
			switchedOn, later = 0, false
			code, out, stderr := r.call(t, row.call)
			if code != row.code || !strings.Contains(out+stderr, row.says) || switchedOn != row.on {
				t.Errorf("exit %d, want %d; switched on %d times, want %d; said %q %q, want %q", code, row.code, switchedOn, row.on, out, stderr, row.says)
			}
			if later != strings.Contains(row.call, "reboot") && row.on > 0 {
				t.Errorf("left to the daemon: %v", later)
			}
			if r.server.said != nil {
				t.Errorf("the agent spoke to the BMC itself: %q", r.server.said)
			}
		})
	}
}

// shortened tells orders in short: how often one that takes no effect is sent again is its pace's affair.
func shortened(orders string) string {
	if rest := strings.TrimLeft(orders, "of "); rest == "" && strings.Count(orders, "off") > 2 {
		return "off, again and again"
	}
	return orders
}

// TestWithoutDaemon: what a daemon would do is done from the settings that it left, fences only under alone's conditions.
func TestWithoutDaemon(t *testing.T) {
	for name, row := range map[string]struct {
		call   string
		change func(*rig)
		code   int
		says   string
		orders string
	}{
		"alone":                  {call: "action=off plug=n2", says: "by this node alone", orders: "off"},
		"alone, reboot":          {call: "action=reboot plug=n2", says: "by this node alone", orders: "off on"},
		"alone, off already":     {call: "action=off plug=n2", change: func(r *rig) { r.server.off = true }, says: "read off twice"},
		"alone, not quorate":     {call: "action=off plug=n2", change: func(r *rig) { r.quorate = errNotQuorate }, code: 1, says: "not quorate"},
		"alone, BMC dead":        {call: "action=off plug=n2", change: func(r *rig) { r.server.dead = true }, code: 1, says: "no answer in time"},
		"alone, takes no effect": {call: "action=off plug=n2", change: func(r *rig) { r.server.noOff = true }, code: 1, says: "power is on", orders: "off, again and again"},
		"alone, itself":          {call: "action=off plug=n1", code: 1, says: "it is this node"},
		"alone, unknown node":    {call: "action=off plug=n9", code: 1, says: "no node of this name"},
		"alone, no BMC":          {call: "action=off plug=w", code: 1, says: "no node of this name"},
		"alone, no settings":     {call: "action=off plug=n2", change: func(r *rig) { r.settings = false }, code: 1, says: "load fencing settings"},
		"alone, no time":         {call: "action=off plug=n2 power_timeout=6", code: 1, says: "alone_delay"},
		"status":                 {call: "action=status plug=n2", says: "ON"},
		"status off":             {call: "action=status plug=n2", change: func(r *rig) { r.server.off = true }, code: 2, says: "OFF"},
		"status unknown":         {call: "action=status plug=n2", change: func(r *rig) { r.server.dead = true }, code: 1, says: "no answer in time"},
		"on":                     {call: "action=on plug=n2", change: func(r *rig) { r.server.off = true }, orders: "on"},
		"list":                   {call: "action=list", says: "n1,\nn2,\nn3,\n"},
		"monitor":                {call: "action=monitor"},
		"monitor, no settings":   {call: "action=monitor", change: func(r *rig) { r.settings = false }, code: 1, says: "keeponed does not answer"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			if row.change != nil {
				row.change(r)
			}
			synctest.Test(t, func(t *testing.T) {
				code, out, stderr := r.call(t, row.call)
				if code != row.code || !strings.Contains(out+stderr, row.says) || shortened(r.server.orders()) != row.orders {
					t.Errorf("exit %d, want %d; ordered %q, want %q; said %q %q, want %q", code, row.code, r.server.orders(), row.orders, out, stderr, row.says)
				}
			})
		})
	}
}

// TestAloneWaits: two election bounds without a leader and alone_delay pass before the order, and corosync is asked before and
// after.
func TestAloneWaits(t *testing.T) {
	r := newRig(t)
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		if code, _, stderr := r.call(t, "action=off plug=n2 alone_delay=7"); code != 0 {
			t.Fatal(stderr)
		}
		if took, least := time.Since(began), 2*relay.Elections*400*time.Millisecond+7*time.Second; took < least {
			t.Errorf("took %s, want %s and more", took, least)
		}
		if r.asked != 2 {
			t.Errorf("corosync was asked %d times", r.asked)
		}
	})
}

// members makes the identities of n1, whose files lie in dir, and n3.
func members(t *testing.T, dir string) *pki.Identity {
	t.Helper()
	n1, err := pki.Init(dir, "n1")
	if err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	n, err := pki.NewNewcomer(other, "n3", n1.NewToken())
	if err != nil {
		t.Fatal(err)
	}
	welcome, err := n1.Admit(t.Context(), n.Request, func(context.Context, pki.JoinRequest, string) (any, error) { return nil, nil })
	if err != nil {
		t.Fatal(err)
	}
	n3, err := n.Finish(other, welcome)
	if err != nil {
		t.Fatal(err)
	}
	return n3
}

// TestRelay: n1's daemon is dead, n3's follows a leader: the fence goes through it, and n1 shoots nobody.
func TestRelay(t *testing.T) {
	for name, row := range map[string]struct {
		leader func(asked int) core.NodeName
		fence  error
		code   int
		says   string
		orders string
	}{
		"through a peer":      {leader: func(int) core.NodeName { return "n3" }, says: "read off twice"},
		"refused there":       {leader: func(int) core.NodeName { return "n3" }, fence: api.Refuse("n2 is not fenced: bmc dead"), code: 1, says: "bmc dead"},
		"led after a while":   {leader: func(asked int) core.NodeName { return map[bool]core.NodeName{true: "n3"}[asked > 10] }, says: "read off twice"},
		"led in alone_delay":  {leader: func(asked int) core.NodeName { return map[bool]core.NodeName{true: "n3"}[asked > 21] }, says: "read off twice"},
		"lost its leader":     {leader: func(int) core.NodeName { return "n3" }, fence: &api.Error{Code: api.CodeNoQuorum, Message: "no leader"}, code: 1, says: "power_timeout"},
		"follows nobody ever": {leader: func(int) core.NodeName { return "" }, says: "by this node alone", orders: "off"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			n3 := members(t, r.dir)
			synctest.Test(t, func(t *testing.T) {
				network := pipenet.New()
				r.dial = func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
					return network.Dial(ctx, address(1), to)
				}
				mux := api.NewMux(n3, nil, quiet)
				node := api.NewNode("n3", mux, api.NewDialer(n3, func(core.NodeName) []netip.AddrPort { return nil }, nil), quiet)
				asked := 0
				node.Handle(op.MethodLeader, func(context.Context, core.NodeName, json.RawMessage) (any, error) {
					asked++
					return op.Leads{Leader: row.leader(asked)}, nil
				})
				node.Handle(op.MethodFence, func(_ context.Context, peer core.NodeName, body json.RawMessage) (any, error) {
					var in op.Fence
					if err := json.Unmarshal(body, &in); err != nil || in.Node != "n2" || peer != "n1" {
						t.Errorf("%s asks for %+v, %v", peer, in, err)
					}
					return offProven, row.fence
				})
				serving := make(chan struct{})
				go func() {
					defer close(serving)
					_ = mux.Serve(network.Listen(netip.AddrPortFrom(address(3), r.file.Ports.API)))
				}()
				synctest.Wait()
				code, out, stderr := r.call(t, "action=off plug=n2")
				if code != row.code || !strings.Contains(out+stderr, row.says) || shortened(r.server.orders()) != row.orders {
					t.Errorf("exit %d, want %d; ordered %q, want %q; said %q %q, want %q", code, row.code, r.server.orders(), row.orders, out, stderr, row.says)
				}
				if err := errors.Join(node.Close(), mux.Close()); err != nil {
					t.Error(err)
				}
				<-serving
				time.Sleep(20 * time.Second)
			})
		})
	}
}

// TestDeafDaemon: one that takes the request and says nothing is passed over.
func TestDeafDaemon(t *testing.T) {
	r := newRig(t)
	l, err := net.Listen("unix", filepath.Join(r.dir, "keeponed.sock")) // nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a := &agent{options: told(func(o *options) { o.Plug, o.ShellTimeout = "n2", 10*time.Millisecond }), file: r.file, out: &bytes.Buffer{}, err: &bytes.Buffer{}}
	if _, err := a.askDaemon(t.Context()); !errors.Is(err, relay.ErrDeaf) || !relay.NoAnswer(err) {
		t.Error(err)
	}
	if _, led, err := a.ask(t.Context(), nil); led || !errors.Is(err, relay.ErrNoLeader) {
		t.Errorf("led %t, %v", led, err)
	}
}
