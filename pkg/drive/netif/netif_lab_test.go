//go:build lab

package netif

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// inNamespaces runs the rest of the test in a network namespace of its own, with a bridge kobr and a host
// `peer` behind it in another namespace. All of it dies with the two processes.
func inNamespaces(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to make network namespaces")
	}
	runtime.LockOSThread() // never unlocked: the thread ends with the test's goroutine
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("make network namespace: %v", err)
	}
	peer := exec.Command("unshare", "--net", "sh", "-c", "echo ready; exec sleep 60")
	peer.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	said, err := peer.StdoutPipe()
	if err == nil {
		err = peer.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = peer.Process.Kill(); _ = peer.Wait() })
	if _, err := io.ReadFull(said, make([]byte, len("ready"))); err != nil {
		t.Fatalf("the peer has no network namespace of its own: %v", err)
	}
	pid := strconv.Itoa(peer.Process.Pid)
	for _, line := range [][]string{
		{"link", "add", "kobr", "address", "02:00:00:00:00:01", "type", "bridge"},
		{"link", "set", "kobr", "up"},
		{"link", "add", "kop", "type", "veth", "peer", "name", "eth0"},
		{"link", "set", "eth0", "netns", pid},
		{"link", "set", "kop", "master", "kobr"},
		{"link", "set", "kop", "up"},
	} {
		command(t, "ip", line...)
	}
	inside := func(args ...string) {
		command(t, "nsenter", append([]string{"--net=/proc/" + pid + "/ns/net"}, args...)...)
	}
	inside("ip", "link", "set", "eth0", "address", otherMAC.String())
	inside("ip", "link", "set", "eth0", "up")
	inside("ip", "addr", "add", addr4.String()+"/24", "dev", "eth0")
	inside("ip", "addr", "add", addr6.String()+"/64", "dev", "eth0", "nodad")
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}

func TestDuplicateOnABridge(t *testing.T) {
	inNamespaces(t)
	for _, row := range []struct {
		addr string
		want net.HardwareAddr
	}{
		{addr4.String(), otherMAC}, {"192.0.2.200", nil}, {addr6.String(), otherMAC}, {"2001:db8::200", nil},
	} {
		begin := time.Now()
		who, err := Duplicate(t.Context(), "kobr", netip.MustParseAddr(row.addr))
		if err != nil || who.String() != row.want.String() {
			t.Errorf("Duplicate(%s) = %s, %v; want %s", row.addr, who, err, row.want)
		}
		t.Logf("%s: %s", row.addr, time.Since(begin).Round(100*time.Microsecond))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Duplicate(ctx, "kobr", netip.MustParseAddr("192.0.2.200")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// What Announce sends leaves the bridge by its ports, from the container's hardware address.
func TestAnnounceLeavesTheBridge(t *testing.T) {
	inNamespaces(t)
	link, err := net.InterfaceByName("kop")
	if err != nil {
		t.Fatal(err)
	}
	heard, err := packet.Listen(link, packet.Raw, unix.ETH_P_ALL, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer heard.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	a := Announcement{Bridge: "kobr", MAC: testMAC, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("2001:db8::9")}}
	if err := Announce(ctx, a, always, nil); err != nil {
		t.Fatal(err)
	}
	want := [][]byte{garp(testMAC, a.Addresses[0]), unsolicited(testMAC, a.Addresses[1])}
	_ = heard.SetReadDeadline(time.Now().Add(2 * time.Second))
	for buffer := make([]byte, 2048); len(want) > 0; {
		n, _, err := heard.ReadFrom(buffer)
		if err != nil {
			t.Fatalf("%d frames not heard: %v", len(want), err)
		}
		if bytes.Equal(buffer[:n], want[0]) {
			want = want[1:]
		}
	}
}

// A frame of an old holder, which comes in by the uplink with the container's hardware address, leads no frame of
// this node's away from the container.
func TestPinnedAgainstTheUplink(t *testing.T) {
	inNamespaces(t)
	for _, port := range []string{"container", "uplink"} {
		command(t, "ip", "link", "add", port, "type", "veth", "peer", "name", port+"-far")
		command(t, "ip", "link", "set", port, "master", "kobr")
		command(t, "ip", "link", "set", port, "up")
		command(t, "ip", "link", "set", port+"-far", "up")
	}
	knows := func(port string) bool {
		out, err := exec.Command("bridge", "fdb", "show", "br", "kobr").Output()
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Contains(out, []byte(testMAC.String()+" dev "+port+" "))
	}
	old, err := net.InterfaceByName("uplink-far")
	if err != nil {
		t.Fatal(err)
	}
	holder, err := packet.Listen(old, packet.Raw, etherARP, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	speak := func() {
		frame := garp(testMAC, netip.MustParseAddr("192.0.2.9"))
		if _, err := holder.WriteTo(frame, &packet.Addr{HardwareAddr: net.HardwareAddr(frame[:6])}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	for limit := time.Now().Add(5 * time.Second); !knows("uplink"); speak() { // a port begins to forward in its own time
		if time.Now().After(limit) {
			t.Fatal("the bridge does not learn")
		}
	}
	for range 2 {
		if err := Pin("container", testMAC); err != nil {
			t.Fatal(err)
		}
		if speak(); !knows("container") || knows("uplink") {
			t.Error("the old holder's frame moved the address")
		}
	}
	if err := Pin("gone", testMAC); !errors.Is(err, ErrNoLink) {
		t.Errorf("a port that is gone: %v", err)
	}
}
