//go:build lab

package ipmi_test

import (
	"bytes"
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

	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/drive/ipmi"
)

// powerScript is ipmi_sim's chassis_control: a machine whose power is the content of a file. `late` makes it
// slow, `stuck` makes it take orders and ignore them.
const powerScript = `#!/bin/sh
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

const simConfig = `name "node"
set_working_mc 0x20
  startlan 1
    addr 127.0.0.1 %[1]d
    priv_limit admin
    allowed_auths_callback none md2 md5 straight
    allowed_auths_user none md2 md5 straight
    allowed_auths_operator none md2 md5 straight
    allowed_auths_admin none md2 md5 straight
    %[2]s
  endlan
  chassis_control "%[3]s/power.sh"
  user 2 true "%[4]s" "%[5]s" operator 10
`

const simEmu = `mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
mc_enable 0x20
%s
`

// simBMC starts a real ipmi_sim on loopback.
func simBMC(t *testing.T, guid string) rig {
	t.Helper()
	if _, err := exec.LookPath("ipmi_sim"); err != nil {
		t.Skip("ipmi_sim is missing: apt-get install openipmi")
	}
	dir := t.TempDir()
	port := freePort(t)
	reported := guid
	if guid == "" {
		reported = strings.Repeat("0", 32) // without one ipmi_sim answers no login
	}
	lanGUID, mcGUID := "guid "+reported, "mc_set_guid 0x20 "+reported
	write := func(name, text string, mode os.FileMode) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("power.sh", powerScript, 0o755)
	write("power", "1\n", 0o644)
	write("lan.conf", fmt.Sprintf(simConfig, port, lanGUID, dir, testUser, testPassword), 0o600)
	write("sim.emu", fmt.Sprintf(simEmu, mcGUID), 0o644)
	var out bytes.Buffer
	cmd := exec.Command("ipmi_sim", "-c", dir+"/lan.conf", "-f", dir+"/sim.emu", "-s", dir+"/state", "-n")
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := os.Mkdir(dir+"/state", 0o755); err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("ipmi_sim said: %s", out.String())
		}
	})
	r := rig{
		address: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)),
		guid:    guid,
		set:     func(on bool) { write("power", map[bool]string{true: "1\n", false: "0\n"}[on], 0o644) },
		on: func() bool {
			text, _ := os.ReadFile(filepath.Join(dir, "power"))
			return strings.TrimSpace(string(text)) == "1"
		},
		dead: func(dead bool) {
			signal := map[bool]syscall.Signal{true: syscall.SIGSTOP, false: syscall.SIGCONT}[dead]
			if err := cmd.Process.Signal(signal); err != nil {
				t.Error(err)
			}
		},
		slow: func(d time.Duration) { write("late", fmt.Sprintf("%.3f\n", d.Seconds()), 0o644) },
	}
	bmc := open(t, r, func(c *ipmi.Config) { c.Limit, c.Try = 5*time.Second, 100*time.Millisecond })
	wantPower(t, bmc, ipmi.On)
	_ = bmc.Close()
	return r
}

func freePort(t *testing.T) int {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).Port
}

func TestSim(t *testing.T) { testBMC(t, simBMC) }

// TestSimTimes prints what the parts of a fence take; it judges nothing.
func TestSimTimes(t *testing.T) {
	r := simBMC(t, testGUID)
	var session, status, off []time.Duration
	for range 15 {
		bmc := open(t, r, nil)
		session = append(session, taken(t, func() error { _, err := bmc.Identity(t.Context()); return err }))
		status = append(status, taken(t, func() error { _, err := bmc.Power(t.Context()); return err }))
		off = append(off, taken(t, func() error { return bmc.Off(t.Context()) }))
		wantPower(t, bmc, ipmi.Off)
		r.set(true)
		_ = bmc.Close()
	}
	t.Logf("medians: login+GUID %s, status %s, off %s", median(session), median(status), median(off))
}

func taken(t *testing.T, f func() error) time.Duration {
	t.Helper()
	begin := boottime.Now()
	if err := f(); err != nil {
		t.Fatal(err)
	}
	return boottime.Now().Sub(begin)
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2].Round(10 * time.Microsecond)
}
