package probe_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/drive/probe"
)

const answerHead = `<?xml version="1.0" encoding="UTF-8"?>` + "\r\n" + `<methodResponse>` + "\r\n" + `<params>` + "\r\n" +
	`<param><value><array><data>` + "\r\n"
const answerTail = `</data></array></value></param>` + "\r\n</params>\r\n</methodResponse>\r\n"

func answered(ok int, payload string, code int) string {
	return answerHead + fmt.Sprintf("<value><boolean>%d</boolean></value>\r\n<value><string>%s</string></value>\r\n<value><i4>%d</i4></value>\r\n",
		ok, payload, code) + answerTail
}

func raft(state int) string {
	return answered(1, fmt.Sprintf("&lt;RAFT&gt;&lt;SERVER_ID&gt;-1&lt;/SERVER_ID&gt;&lt;STATE&gt;%d&lt;/STATE&gt;"+
		"&lt;TERM&gt;0&lt;/TERM&gt;&lt;VOTEDFOR&gt;-1&lt;/VOTEDFOR&gt;&lt;COMMIT&gt;0&lt;/COMMIT&gt;&lt;/RAFT&gt;", state), 0)
}

const fault = `<?xml version="1.0"?><methodResponse><fault><value><struct>
<member><name>faultCode</name><value><int>-506</int></value></member>
<member><name>faultString</name><value><string>Method 'one.x' not defined</string></value></member>
</struct></value></fault></methodResponse>`

type row struct {
	kind   string
	status int
	body   string
	user   string
	want   probe.Health
	says   string
}

func TestHTTPKinds(t *testing.T) {
	refused := answered(0, "[one.system.version] User couldn't be authenticated, aborting call.", 256)
	for name, row := range map[string]row{
		"http fine":              {kind: "http", status: 200, want: probe.Healthy},
		"http redirect":          {kind: "http", status: 302, want: probe.Healthy},
		"http error":             {kind: "http", status: 503, want: probe.Unhealthy, says: "503 Service Unavailable"},
		"version":                {kind: "opennebula", status: 200, body: answered(1, "6.8.0", 0), want: probe.Healthy},
		"version, no login":      {kind: "opennebula", status: 200, body: refused, want: probe.Healthy},
		"version, login refused": {kind: "opennebula", status: 200, body: refused, user: "oneadmin", want: probe.Unhealthy, says: "authenticated"},
		"version, other refusal": {kind: "opennebula", status: 200, body: answered(0, "database is locked", 2048), want: probe.Unhealthy, says: "database is locked"},
		"version empty":          {kind: "opennebula", status: 200, body: answered(1, "", 0), want: probe.Unhealthy, says: "no version"},
		"fault":                  {kind: "opennebula", status: 200, body: fault, want: probe.Unhealthy, says: "-506 Method 'one.x' not defined"},
		"not XML":                {kind: "opennebula", status: 200, body: "<html><body>hi", want: probe.Unhealthy, says: "not XML-RPC"},
		"cut off":                {kind: "opennebula", status: 200, body: answered(1, "6.8.0", 0)[:150], want: probe.Unhealthy, says: "not XML-RPC"},
		"another service's":      {kind: "opennebula", status: 200, body: `<methodResponse><params><param><value>x</value></param></params></methodResponse>`, want: probe.Unhealthy, says: "not OpenNebula's"},
		"endless":                {kind: "opennebula", status: 200, body: strings.Repeat("<a>", 1<<20), want: probe.Unhealthy, says: "not XML-RPC"},
		"XML-RPC 500":            {kind: "opennebula", status: 500, want: probe.Unhealthy, says: "500"},
		"solo":                   {kind: "raftstatus", status: 200, body: raft(0), user: "oneadmin", want: probe.Healthy},
		"candidate":              {kind: "raftstatus", status: 200, body: raft(1), user: "oneadmin", want: probe.Unhealthy, says: "candidate"},
		"follower":               {kind: "raftstatus", status: 200, body: raft(2), user: "oneadmin", want: probe.Unhealthy, says: "follower"},
		"leader":                 {kind: "raftstatus", status: 200, body: raft(3), user: "oneadmin", want: probe.Healthy},
		"state 9":                {kind: "raftstatus", status: 200, body: raft(9), user: "oneadmin", want: probe.Unhealthy, says: "state 9"},
		"no state":               {kind: "raftstatus", status: 200, body: answered(1, "&lt;RAFT&gt;&lt;/RAFT&gt;", 0), user: "oneadmin", want: probe.Unhealthy, says: "no STATE"},
		"raft no XML":            {kind: "raftstatus", status: 200, body: answered(1, "6.8.0", 0), user: "oneadmin", want: probe.Unhealthy, says: "not XML"},
		"raft login refused":     {kind: "raftstatus", status: 200, body: refused, user: "oneadmin", want: probe.Unhealthy, says: "authenticated"},
	} {
		t.Run(name, func(t *testing.T) { row.play(t) })
	}
}

func (r row) play(t *testing.T) {
	asked := ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		body, _ := io.ReadAll(request.Body)
		asked = request.URL.Path + " " + string(body)
		w.WriteHeader(r.status)
		_, _ = io.WriteString(w, r.body)
	}))
	defer server.Close()
	at := netip.MustParseAddrPort(server.Listener.Addr().String())
	p, err := probe.New(core.ProbeSpec{Kind: r.kind, Port: int(at.Port()), User: r.user}, probe.Parts{
		Host: at.Addr(), Secret: func() (string, error) { return "pa<ss&", nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	result := p.Probe(t.Context())
	if result.Health != r.want || !strings.Contains(result.Reason, r.says) || (result.Reason == "") != (r.want == probe.Healthy) {
		t.Errorf("Probe = %+v; want %s, %q", result, r.want, r.says)
	}
	if len(result.Reason) > 600 || strings.Contains(result.Reason, "pa<ss") {
		t.Errorf("reason is long, or tells the password: %s", result.Reason)
	}
	if r.user != "" && !strings.Contains(asked, "/RPC2 ") || r.user != "" && !strings.Contains(asked, "oneadmin:pa&lt;ss&amp;") {
		t.Errorf("asked %s", asked)
	}
}

func TestTCP(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(listener.Addr().String())
	p, err := probe.New(core.ProbeSpec{Kind: "tcp", Port: int(at.Port())}, probe.Parts{Host: at.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	if result := p.Probe(t.Context()); result.Health != probe.Healthy {
		t.Errorf("listening: %+v", result)
	}
	_ = listener.Close()
	if result := p.Probe(t.Context()); result.Health != probe.Unhealthy || !strings.Contains(result.Reason, "refused") {
		t.Errorf("closed: %+v", result)
	}
}

// A service that takes the connection and says nothing may be well or not.
func TestSilenceIsUnknown(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	at := netip.MustParseAddrPort(listener.Addr().String())
	for _, kind := range []string{"http", "opennebula", "raftstatus"} {
		spec := core.ProbeSpec{Kind: kind, Port: int(at.Port()), User: "u", Timeout: 50 * time.Millisecond}
		p, err := probe.New(spec, probe.Parts{Host: at.Addr(), Secret: func() (string, error) { return "p", nil }})
		if err != nil {
			t.Fatal(err)
		}
		result := p.Probe(t.Context())
		if result.Health != probe.Unknown || result.Reason == "" || result.Took > time.Second {
			t.Errorf("%s: %+v", kind, result)
		}
	}
}

func TestExec(t *testing.T) {
	for name, row := range map[string]struct {
		code int
		err  error
		want probe.Health
	}{
		"fine":     {0, nil, probe.Healthy},
		"fails":    {3, nil, probe.Unhealthy},
		"no start": {0, errors.New("no such file"), probe.Unhealthy},
		"late":     {0, context.DeadlineExceeded, probe.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := probe.New(core.ProbeSpec{Kind: "exec", Command: []string{"/bin/check", "-v"}}, probe.Parts{
				Exec: func(_ context.Context, argv []string) (int, string, error) {
					return row.code, strings.Join(argv, " ") + strings.Repeat("\n\xff line", 999), row.err
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			result := p.Probe(t.Context())
			if result.Health != row.want || len(result.Reason) > 300 || strings.Contains(result.Reason, "\n") {
				t.Errorf("Probe = %+v", result)
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	host := probe.Parts{Host: netip.MustParseAddr("127.0.0.1")}
	for _, spec := range []core.ProbeSpec{
		{Kind: "ping", Port: 1}, {Kind: "tcp"}, {Kind: "tcp", Port: 70000}, {Kind: "exec"}, {Kind: "raftstatus", Port: 2633},
	} {
		if _, err := probe.New(spec, host); !errors.Is(err, probe.ErrSpec) {
			t.Errorf("%+v: %v", spec, err)
		}
	}
}
