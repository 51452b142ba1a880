package lab

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// FrontendProgram is the stand-in front-end; it lies beside the lab program.
const FrontendProgram = "keepone-frontend"

// Payload says what a service's container is made of.
type Payload struct {
	Hostname    string // "" means one
	Rootfs      string // value of lxc.rootfs.path; "" leaves it to whoever starts the container
	ExtraConfig string // more lines of the container's config
	Credentials string // "user:password" that the front-end asks for; "" asks for none
}

// containerConfig needs no cgroup keys; the network is the caller's. Its init halts on SIGUSR1.
const containerConfig = `lxc.uts.name = %s
lxc.init.cmd = /sbin/init
lxc.signal.halt = SIGUSR1
lxc.signal.reboot = SIGTERM
lxc.tty.max = 0
lxc.pty.max = 16
lxc.mount.auto = proc:mixed sys:ro
lxc.mount.entry = tmpfs run tmpfs rw,nodev,mode=755 0 0
lxc.mount.entry = tmpfs tmp tmpfs rw,nodev,mode=1777 0 0
lxc.apparmor.profile = unconfined
`

// initScript is the container's init: it keeps the front-end running and halts on SIGUSR1. Busybox's own would call
// sync(2) at halt, which waits for every file system of the machine, also those of a lab that is in trouble.
const initScript = `#!/bin/sh
trap 'kill -TERM "$child"; wait "$child"; exit 0' USR1 TERM
hostname -F /etc/hostname
while :; do
	/usr/bin/` + FrontendProgram + ` &
	child=$!
	wait "$child"
	sleep 1
done
`

// applets are the names of busybox that a container's init and a person in it need.
var applets = []string{
	"bin/sh", "bin/ls", "bin/cat", "bin/ip", "bin/ps", "bin/hostname", "bin/sleep", "bin/echo", "bin/kill", "bin/ping",
	"bin/mount", "bin/umount", "bin/touch", "bin/rm", "bin/dd", "bin/true", "bin/false", "sbin/halt", "sbin/poweroff", "sbin/reboot",
}

// Tarball writes a container directory as a tar file: config and rootfs/. It takes the front-end from BinDir or
// from beside the lab program.
func (l *Lab) Tarball(path string, p Payload) (err error) {
	frontend, err := l.frontend()
	if err != nil {
		return err
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("find busybox: %w", err)
	}
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("make tarball: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	t := &tarWriter{w: tar.NewWriter(f)}
	p.write(t)
	t.copy("rootfs/bin/busybox", busybox)
	t.copy("rootfs/usr/bin/"+FrontendProgram, frontend)
	if t.err == nil {
		t.err = t.w.Close()
	}
	if t.err != nil {
		return fmt.Errorf("write tarball: %w", t.err)
	}
	return nil
}

func (l *Lab) frontend() (string, error) {
	for _, dir := range []string{l.BinDir, filepath.Dir(l.room.exe)} {
		if path := filepath.Join(dir, FrontendProgram); present(path) {
			return path, nil
		}
	}
	return "", fmt.Errorf("find %s: it is not in %s; build it with CGO_ENABLED=0 go build -o %s ./test/lab/frontend",
		FrontendProgram, l.BinDir, filepath.Join(l.BinDir, FrontendProgram))
}

func (p Payload) write(t *tarWriter) {
	name := p.Hostname
	if name == "" {
		name = "one"
	}
	config := fmt.Sprintf(containerConfig, name)
	if p.Rootfs != "" {
		config += "lxc.rootfs.path = " + p.Rootfs + "\n"
	}
	t.file("config", config+p.ExtraConfig, 0o644)
	for _, dir := range []string{
		"", "bin", "sbin", "usr", "usr/bin", "etc", "dev", "proc", "sys", "run", "tmp", "root", "var", "var/lib", "var/lib/one",
		"var/lib/one/.one", "var/log",
	} {
		t.dir("rootfs/" + dir)
	}
	t.file("rootfs/etc/hostname", name+"\n", 0o644)
	t.file("rootfs/etc/hosts", "127.0.0.1 localhost\n", 0o644)
	t.file("rootfs/etc/passwd", "root::0:0:root:/root:/bin/sh\n", 0o644)
	t.file("rootfs/etc/group", "root:x:0:\n", 0o644)
	t.file("rootfs/sbin/init", initScript, 0o755)
	if p.Credentials != "" {
		t.file("rootfs/var/lib/one/.one/one_auth", p.Credentials+"\n", 0o600)
	}
	for _, applet := range applets {
		t.link("rootfs/"+applet, strings.Repeat("../", strings.Count(applet, "/"))+"bin/busybox")
	}
}

// tarWriter keeps the first error.
type tarWriter struct {
	w   *tar.Writer
	err error
}

func (t *tarWriter) header(h *tar.Header) {
	if t.err == nil {
		t.err = t.w.WriteHeader(h)
	}
}

func (t *tarWriter) dir(name string) {
	t.header(&tar.Header{Typeflag: tar.TypeDir, Name: strings.TrimSuffix(name, "/") + "/", Mode: 0o755})
}

func (t *tarWriter) link(name, target string) {
	t.header(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777})
}

func (t *tarWriter) file(name, text string, mode int64) {
	t.header(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(text)), Mode: mode})
	if t.err == nil {
		_, t.err = io.WriteString(t.w, text)
	}
}

func (t *tarWriter) copy(name, source string) {
	if t.err != nil {
		return
	}
	text, err := os.ReadFile(source)
	if err != nil {
		t.err = err
		return
	}
	t.file(name, string(text), 0o755)
}
