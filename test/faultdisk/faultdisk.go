// Package faultdisk is a disk for tests that fails as disks do: it is full, it can't read or write, its fsync fails, and when its
// power is cut what was not synced is there, half there or gone. It is a loopback through FUSE, served by a process of its
// own, so that the files can be mapped into memory. It needs root.
//
// Folders are simple: what is made, renamed or removed in them is durable at once, which is the harder case for whoever
// renames a file before its content is synced.
package faultdisk

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// served marks the process that serves a disk: its folder and mount point.
const served = "KEEPONE_FAULTDISK"

// Main serves a disk and ends the process if that is what it was started for. The TestMain of each package that uses New
// calls it first.
func Main() {
	below, at, is := strings.Cut(os.Getenv(served), ":")
	if !is {
		return
	}
	if err := serve(below, at, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "faultdisk:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Disk is one that is mounted. It may be used where time is virtual: it has no bounds of its own but the test's, and the server
// unmounts it and ends when the test's process does.
type Disk struct {
	Dir string // where it is mounted

	t       testing.TB
	cmd     *exec.Cmd
	orders  io.WriteCloser
	answers *bufio.Reader
	kept    *os.File
	gone    bool
}

// New mounts what is in folder below, and unmounts it at the end of the test at the latest.
func New(t testing.TB, below string) *Disk {
	t.Helper()
	d := &Disk{Dir: t.TempDir(), t: t}
	d.cmd = exec.Command(os.Args[0])
	d.cmd.Env = append(os.Environ(), served+"="+below+":"+d.Dir)
	d.cmd.Stderr = os.Stderr
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // ctrl-C ends it when its orders end, after the unmount
	orders, err := d.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	answers, kept, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	d.cmd.Stdout, d.orders, d.kept, d.answers = kept, orders, answers, bufio.NewReader(answers)
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kept.Close()
	t.Cleanup(d.Close)
	d.answer("mount")
	return d
}

// Fail has an operation ("read", "write", "sync") fail, after so many more of them: that one and all behind it.
func (d *Disk) Fail(operation string, errno syscall.Errno, after int) {
	d.t.Helper()
	d.order(fmt.Sprintf("fail %s %d %d", operation, errno, after))
}

// Cut takes the power: from now on nothing reaches the disk. What it has by then shows in the folder below after Close.
func (d *Disk) Cut(seed uint64) {
	d.t.Helper()
	d.order(fmt.Sprintf("cut %d", seed))
}

func (d *Disk) order(words string) {
	d.t.Helper()
	if _, err := fmt.Fprintln(d.orders, words); err != nil {
		d.t.Fatalf("faultdisk %s: %v", words, err)
	}
	d.answer(words)
}

func (d *Disk) answer(to string) {
	d.t.Helper()
	line, err := d.answers.ReadString('\n')
	if err != nil || line != "ok\n" {
		d.t.Fatalf("faultdisk %s: %q, %v", to, line, err)
	}
}

// Close unmounts the disk and ends its server. Whoever uses its files has closed them.
func (d *Disk) Close() {
	if d.gone {
		return
	}
	d.gone = true
	if err := syscall.Unmount(d.Dir, syscall.MNT_DETACH); err != nil {
		d.t.Errorf("unmount %s: %v", d.Dir, err)
	}
	d.orders.Close()
	if err := d.cmd.Wait(); err != nil {
		d.t.Errorf("end faultdisk: %v", err)
	}
	d.kept.Close()
}
