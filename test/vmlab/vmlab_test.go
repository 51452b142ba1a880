package vmlab

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestClosure(t *testing.T) {
	t.Parallel()
	const deps = "kernel/fs/ext4/ext4.ko: kernel/lib/crc16.ko kernel/fs/mbcache.ko kernel/fs/jbd2/jbd2.ko\nkernel/lib/crc16.ko:\n" +
		"kernel/fs/mbcache.ko:\nkernel/fs/jbd2/jbd2.ko:\nkernel/net/bridge/bridge.ko: kernel/net/802/stp.ko kernel/net/llc/llc.ko\n" +
		"kernel/net/802/stp.ko: kernel/net/llc/llc.ko\nkernel/net/llc/llc.ko:\nkernel/drivers/virtio/virtio-blk.ko:\n"
	files, err := closure(deps, []string{"virtio_blk", "ext4", "bridge"})
	if err != nil {
		t.Fatal(err)
	}
	at := func(part string) int {
		return slices.IndexFunc(files, func(f string) bool { return strings.HasSuffix(f, "/"+part) })
	}
	for _, pair := range [][2]string{{"jbd2.ko", "ext4.ko"}, {"llc.ko", "stp.ko"}, {"stp.ko", "bridge.ko"}} {
		if at(pair[0]) < 0 || at(pair[0]) > at(pair[1]) {
			t.Errorf("%s is not before %s in %v", pair[0], pair[1], files)
		}
	}
	if _, err := closure(deps, []string{"rbd"}); err == nil {
		t.Error("a module that the kernel does not have was found")
	}
}

// TestInitrd has cpio itself read what is written.
func TestInitrd(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("cpio"); err != nil {
		t.Skip("cpio is not installed")
	}
	var archive bytes.Buffer
	c := &cpio{w: &archive}
	c.entry("bin", 0o40755, nil)
	c.entry("bin/odd", 0o100755, []byte("five\n"))
	c.entry("init", 0o100755, []byte(guestFile("init")))
	c.entry("TRAILER!!!", 0, nil)
	if c.err != nil {
		t.Fatal(c.err)
	}
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "cpio", "-i", "--quiet")
	cmd.Dir, cmd.Stdin = dir, &archive
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cpio: %v: %s", err, out)
	}
	for name, want := range map[string]string{"bin/odd": "five\n", "init": guestFile("init")} {
		if text, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(text) != want {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
}

// TestMonitor plays qemu, which mixes events into its answers.
func TestMonitor(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "qmp")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("{\"QMP\": {}}\n"))
			in := json.NewDecoder(conn)
			for {
				var order struct{ Execute string }
				if in.Decode(&order) != nil {
					break
				}
				said := "{\"event\": \"STOP\"}\n{\"return\": {}}\n"
				if order.Execute == "burn" {
					said = "{\"error\": {\"desc\": \"not found\"}}\n"
				}
				_, _ = conn.Write([]byte(said))
			}
			conn.Close()
		}
	}()
	if err := monitor(t.Context(), socket, "stop"); err != nil {
		t.Error(err)
	}
	if err := monitor(t.Context(), socket, "burn"); err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("an order that qemu refuses: %v", err)
	}
}

func TestDigestTellsPartsApart(t *testing.T) {
	t.Parallel()
	if digest("ab", "c") == digest("a", "bc") {
		t.Error("parts that add up to the same text have one digest")
	}
}
