//go:build lab

package fence_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/drive/ipmi"
	"github.com/keepone-ha/keepone/pkg/fence"
	"github.com/keepone-ha/keepone/pkg/worker"
)

// sim is a real ipmi_sim on loopback; its machine's power is a file. The file `stuck` makes it take orders and
// ignore them, `late` makes it slow.
type sim struct {
	dir     string
	address string
	process *os.Process
}

const simScript = `#!/bin/sh
cd "$(dirname "$0")" || exit 1
[ -e late ] && sleep "$(cat late)"
op=$1; shift
case $op in
get) for name; do if [ "$name" = power ]; then read -r p <power; echo "power:$p"; else echo "$name:0"; fi; done ;;
set) while [ $# -gt 1 ]; do
	if [ "$1" = power ] && [ ! -e stuck ]; then echo "$2" >power.new; mv power.new power; fi
	shift 2; done ;;
esac
exit 0
`

const simLAN = `name "node"
set_working_mc 0x20
  startlan 1
    addr 127.0.0.1 %d
    priv_limit admin
    allowed_auths_callback none md2 md5 straight
    allowed_auths_user none md2 md5 straight
    allowed_auths_operator none md2 md5 straight
    allowed_auths_admin none md2 md5 straight
    guid %s
  endlan
  chassis_control "%s/power.sh"
  user 2 true "keepone" "secret" operator 10
`

func startSim(t *testing.T, guid string) sim {
	t.Helper()
	if _, err := exec.LookPath("ipmi_sim"); err != nil {
		t.Skip("ipmi_sim is missing: apt-get install openipmi")
	}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := conn.LocalAddr().(*net.UDPAddr).Port
	_ = conn.Close()
	s := sim{dir: t.TempDir(), address: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
	s.write(t, "power.sh", simScript)
	s.write(t, "power", "1\n")
	s.write(t, "lan.conf", fmt.Sprintf(simLAN, port, guid, s.dir))
	s.write(t, "sim.emu", "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\nmc_enable 0x20\nmc_set_guid 0x20 "+guid+"\n")
	var out bytes.Buffer
	cmd := exec.Command("ipmi_sim", "-c", s.dir+"/lan.conf", "-f", s.dir+"/sim.emu", "-s", s.dir, "-n")
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.process = cmd.Process
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	bmc := s.open(t, "secret", 100*time.Millisecond)
	if _, err := bmc.Power(t.Context()); err != nil {
		t.Fatalf("%v; ipmi_sim said: %s", err, out.String())
	}
	_ = bmc.Close()
	return s
}

func (s sim) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

func (s sim) on() bool {
	text, _ := os.ReadFile(filepath.Join(s.dir, "power"))
	return strings.TrimSpace(string(text)) == "1"
}

func (s sim) open(t *testing.T, password string, try time.Duration) *ipmi.BMC {
	t.Helper()
	bmc, err := ipmi.New(ipmi.Config{
		Address: s.address, User: "keepone", Password: ipmi.Password(password), CipherSuite: 3, Try: try,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = bmc.Close() })
	return bmc
}

func (s sim) signal(t *testing.T, signal syscall.Signal) {
	if err := s.process.Signal(signal); err != nil {
		t.Fatal(err)
	}
}

func (s sim) attempt(t *testing.T, bmc fence.BMC, limit time.Duration, storage fence.Storage, policy core.Policy) (fence.Result, []core.Proof) {
	t.Helper()
	lease := make(chan struct{})
	close(lease)
	var got []core.Proof
	result := fence.Attempt(t.Context(), fence.Order{
		Node: "b", Instance: "boot/1", By: "a", Shoot: true, GUID: ourGUID, LeaseEnded: lease, Gap: gap, Limit: limit,
		Targets: []fence.Target{{Target: core.Target{Service: "one", Epoch: 7}, Policy: policy}},
	}, fence.Parts{BMC: bmc, Storage: storage, Proved: func(p core.Proof) { got = append(got, p) }, Now: func() core.Time { return 1 }})
	t.Log(result.Note)
	return result, got
}

// The scenes of TestAttempt that hang on the BMC, with a real one.
func TestSim(t *testing.T) {
	const limit = 3 * time.Second
	for name, row := range map[string]struct {
		guid, password string
		set            func(*testing.T, sim)
		storage        func(int) (worker.CutOffDid, error)
		policy         core.Policy
		want           string
		stillOn        bool
		most           time.Duration
	}{
		"live":                 {policy: bmcOnly, want: "bmc-off", most: time.Second},
		"off already":          {policy: anyOf, storage: fails(worker.CodeCephAway), want: "bmc-off", set: func(t *testing.T, s sim) { s.write(t, "power", "0\n") }, most: time.Second},
		"slow":                 {policy: bmcOnly, want: "bmc-off", set: func(t *testing.T, s sim) { s.write(t, "late", "0.2") }, most: 2 * time.Second},
		"dead":                 {policy: bmcOnly, stillOn: true, set: func(t *testing.T, s sim) { s.signal(t, syscall.SIGSTOP) }, most: limit + time.Second},
		"dead, storage works":  {policy: anyOf, storage: cuts, want: "storage", stillOn: true, set: func(t *testing.T, s sim) { s.signal(t, syscall.SIGSTOP) }, most: time.Second},
		"wrong password":       {policy: bmcOnly, password: "wrong", stillOn: true, most: time.Second},
		"swapped":              {policy: bmcOnly, guid: otherGUID, stillOn: true, most: time.Second},
		"swapped and off":      {policy: bmcOnly, guid: otherGUID, set: func(t *testing.T, s sim) { s.write(t, "power", "0\n") }, most: time.Second},
		"lies":                 {policy: bmcOnly, stillOn: true, set: func(t *testing.T, s sim) { s.write(t, "stuck", "") }, most: limit + time.Second},
		"stranger, then power": {policy: anyOf, storage: fails(worker.CodeImageStranger), want: "bmc-off", most: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			if row.guid == "" {
				row.guid = ourGUID
			}
			if row.password == "" {
				row.password = "secret"
			}
			s := startSim(t, row.guid)
			if row.set != nil {
				row.set(t, s)
			}
			var parts fence.Storage
			if row.storage != nil {
				parts = &storage{say: row.storage}
			}
			begin := time.Now()
			result, got := s.attempt(t, s.open(t, row.password, time.Second), limit, parts, row.policy)
			if kinds(got) != row.want || result.Confirmed != (row.want != "") || s.on() != row.stillOn {
				t.Errorf("proofs %q, %+v, on %v", kinds(got), result, s.on())
			}
			if took := time.Since(begin); took > row.most {
				t.Errorf("took %s", took)
			}
		})
	}
}

// TestSimOrderToProof prints what a shot takes with a machine that goes off at once; it judges nothing.
func TestSimOrderToProof(t *testing.T) {
	s := startSim(t, ourGUID)
	var cold, warm []time.Duration
	for range 11 {
		bmc := s.open(t, "secret", time.Second)
		for _, times := range []*[]time.Duration{&cold, &warm} {
			s.write(t, "power", "1\n")
			begin := time.Now()
			if result, _ := s.attempt(t, bmc, 5*time.Second, nil, bmcOnly); !result.Confirmed {
				t.Fatal(errors.New(result.Note))
			}
			*times = append(*times, time.Since(begin)-gap)
		}
		_ = bmc.Close()
	}
	slices.Sort(cold)
	slices.Sort(warm)
	t.Logf("order to proof, beside the gap of %s: new session %s, warm %s", gap, cold[5], warm[5])
}
