package ipmi_test

import (
	"encoding/hex"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bougou/go-ipmi/pkg/bmc"
	"github.com/bougou/go-ipmi/pkg/clock"
	"github.com/bougou/go-ipmi/pkg/hal/mock"
	"github.com/bougou/go-ipmi/pkg/server"
	"github.com/bougou/go-ipmi/pkg/transport/udp"
)

// wire is the fake BMC's socket: it can lose and delay what comes in.
type wire struct {
	*udp.Conn
	dead atomic.Bool
	slow atomic.Int64
}

func (w *wire) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		n, from, err := w.Conn.ReadFrom(p)
		if err == nil && w.dead.Load() {
			continue
		}
		if late := w.slow.Load(); err == nil && late > 0 && p[5] == 0xC0 && p[4] == 6 {
			time.Sleep(time.Duration(late)) // the slow BMC itself, not a way to wait for one
		}
		return n, from, err
	}
}

func fakeBMC(t *testing.T, guid string) rig {
	t.Helper()
	raw := make([]byte, 16)
	if _, err := hex.Decode(raw, []byte(guid)); err != nil {
		t.Fatal(err)
	}
	hal := mock.New()
	fake := bmc.New(bmc.DeviceInfo{DeviceID: 32, IPMIVersion: 0x20}, [16]byte(raw), hal, bmc.WithClock(clock.Real))
	user, err := fake.Users.Add(2, testUser)
	if err != nil {
		t.Fatal(err)
	}
	user.SetPassword([]byte(testPassword))
	user.Enabled = true
	user.ChannelAccess[1] = bmc.UserChannelAccess{MaxPrivilege: bmc.PrivilegeLevelOperator, Enabled: true}
	conn, err := udp.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{Conn: conn}
	srv := server.NewServer(fake, w)
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(t.Context()) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	set := func(on bool) { _ = hal.Chassis().SetPower(t.Context(), on) }
	set(true)
	return rig{
		address: conn.LocalAddr().String(),
		guid:    guid,
		set:     set,
		on:      func() bool { on, _ := hal.Chassis().PowerState(t.Context()); return on },
		dead:    w.dead.Store,
		slow:    func(d time.Duration) { w.slow.Store(int64(d)) },
	}
}

func TestFake(t *testing.T) { testBMC(t, fakeBMC) }
