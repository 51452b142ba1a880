package main

import (
	"io"
	"testing"

	gobmc "github.com/bougou/go-ipmi/pkg/bmc"
	"github.com/bougou/go-ipmi/pkg/clock"
	"github.com/bougou/go-ipmi/pkg/hal/mock"
	"github.com/bougou/go-ipmi/pkg/server"
	"github.com/bougou/go-ipmi/pkg/transport/udp"

	"github.com/keepone-ha/keepone/pkg/config"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/drive/ipmi"
	"github.com/keepone-ha/keepone/pkg/fence"
	"github.com/keepone-ha/keepone/pkg/pki"
)

// TestSealedBMC: a BMC that speaks IPMI is shot with the password that only this node's key opens.
func TestSealedBMC(t *testing.T) {
	const user, password = "keepone", "very secret"
	hal := mock.New()
	fake := gobmc.New(gobmc.DeviceInfo{DeviceID: 32, IPMIVersion: 0x20}, [16]byte{1}, hal, gobmc.WithClock(clock.Real))
	account, err := fake.Users.Add(2, user)
	if err != nil {
		t.Fatal(err)
	}
	account.SetPassword([]byte(password))
	account.Enabled = true
	account.ChannelAccess[1] = gobmc.UserChannelAccess{MaxPrivilege: gobmc.PrivilegeLevelOperator, Enabled: true}
	if err := hal.Chassis().SetPower(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	conn, err := udp.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := server.NewServer(fake, conn)
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(t.Context()) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })

	dir := t.TempDir()
	id, err := pki.Init(dir, "n1")
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := id.Seal(password)
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{options: told(func(o *options) { o.Plug = "n2" }), file: config.NodeFile{Name: "n1", DataDir: dir}, out: io.Discard, err: io.Discard}
	b, err := a.openSealed(core.BMCSpec{Address: conn.LocalAddr().String(), User: user, Password: sealed, CipherSuite: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if state, err := fence.ReadPower(t.Context(), b, ""); err != nil || state != ipmi.On {
		t.Fatalf("%s, %v", state, err)
	}
	if err := b.Off(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := fence.ReadOff(t.Context(), b, "", 1); err != nil {
		t.Error(err)
	}
}
