// Package vmlab makes the lab's nodes out of virtual machines, with a kernel of Debian's, systemd, and the project's own
// package installed: what namespaces can't show (kernel RBD, units, cgroup v2). Rooms, links, BMCs, Ceph and cases are the
// lab's own.
package vmlab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/keepone-ha/keepone/test/lab"
)

func init() {
	lab.HandleMachines(lab.Machines{Prepare: prepare, New: newMachine, Words: func(text string) string {
		p, err := readPrepared(text)
		if err != nil {
			return "none"
		}
		return p.Accel
	}})
}

// The ways to run a guest.
const (
	kvm = "kvm"
	tcg = "tcg"
)

// prepared is what the rooms are told.
type prepared struct {
	Image image
	Accel string
}

func readPrepared(text string) (prepared, error) {
	var p prepared
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return p, fmt.Errorf("read what was prepared: %w", err)
	}
	return p, nil
}

// tools names what is needed besides the lab's own, and the Debian package of each.
var tools = []struct{ name, pkg string }{
	{"qemu-system-x86_64", "qemu-system-x86"},
	{"qemu-img", "qemu-utils"},
	{"mmdebstrap", "mmdebstrap"},
	{"ssh", "openssh-client"},
	{"ssh-keygen", "openssh-client"},
	{"mkfs.ext4", "e2fsprogs"},
}

// prepare makes the image and finds out how to run it.
func prepare(ctx context.Context, host *lab.Host) (string, error) {
	for _, t := range tools {
		if _, err := exec.LookPath(t.name); err != nil {
			return "", fmt.Errorf("%w: virtual machines need %s: apt-get install --no-install-recommends %s", lab.ErrUnfit, t.name, t.pkg)
		}
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		return "", fmt.Errorf("%w: virtual machines need /dev/net/tun: modprobe tun", lab.ErrUnfit)
	}
	deb, err := newest(host.BinDir)
	if err != nil {
		return "", err
	}
	b, err := newBuilder(deb, host.Stdio.Out)
	if err != nil {
		return "", err
	}
	im, err := b.image(ctx)
	if err != nil {
		return "", fmt.Errorf("make the guests' image: %w", err)
	}
	text, err := json.Marshal(prepared{Image: im, Accel: accelOf(ctx, im)})
	return string(text), err
}

// newest is the package that was built last, if it is not one for an upgrade.
func newest(dir string) (string, error) {
	all, _ := filepath.Glob(filepath.Join(dir, "keepone_*.deb"))
	if len(all) == 0 {
		return "", fmt.Errorf("%w: no keepone_*.deb is in %s: make deb", lab.ErrUnfit, dir)
	}
	first := all[0]
	for _, path := range all { // the shortest name: a newer one of an upgrade has a longer version
		if len(path) < len(first) {
			first = path
		}
	}
	return first, nil
}

func accelArgs(accel string) []string {
	if accel == kvm {
		return []string{"-accel", "kvm", "-cpu", "host"}
	}
	return []string{"-accel", "tcg,thread=multi,tb-size=192", "-cpu", "max"}
}

// tryBound is far above what hardware needs to the first word of a kernel (0.2 s). A /dev/kvm that is there and does not
// work, as in some clouds, costs so much once for a run.
const tryBound = 4 * time.Second

// accelOf tries KVM with the guests' own kernel: that the device is there says nothing.
func accelOf(ctx context.Context, im image) string {
	if _, err := os.Stat("/dev/kvm"); err != nil {
		return tcg
	}
	ctx, cancel := context.WithTimeout(ctx, tryBound)
	defer cancel()
	args := append([]string{
		"-nodefaults", "-no-user-config", "-machine", "pc", "-m", "256", "-display", "none", "-serial", "stdio", "-no-reboot",
		"-kernel", im.Kernel, "-append", "console=ttyS0 earlyprintk=ttyS0 panic=-1",
	}, accelArgs(kvm)...)
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", args...)
	cmd.WaitDelay = time.Second
	// Without a root file system the kernel gives up, which ends qemu: it has then come through all of its own start.
	out, err := cmd.CombinedOutput()
	if err == nil && bytes.Contains(out, []byte("Kernel panic")) {
		return kvm
	}
	return tcg
}
