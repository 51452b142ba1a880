//go:build lab

package lxc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/drive"
	"github.com/keepone-ha/keepone/pkg/drive/lxc/lxctest"
	"github.com/keepone-ha/keepone/pkg/drive/nstest"
	"github.com/keepone-ha/keepone/pkg/worker"
)

// TestMain is also the short-lived process that a start runs in.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "start" {
		var o Options
		if err := json.Unmarshal([]byte(os.Args[2]), &o); err != nil {
			panic(err)
		}
		started, err := Start(context.Background(), o)
		var failure *worker.Failure
		if errors.As(err, &failure) {
			fmt.Println("failure", failure.Code, failure.Message)
			os.Exit(1)
		}
		fmt.Println("init", started.InitPID, started.HaltSignal)
		os.Exit(0)
	}
	os.Exit(nstest.Main(m, func() (func(), error) { return func() {}, nil }))
}

func startApart(t *testing.T, o Options) string {
	t.Helper()
	order, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, self, "start", string(order)).Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// TestStart finds the init alive after its starter has ended, asks it to halt, and finds it gone.
func TestStart(t *testing.T) {
	dir, run := filepath.Join(t.TempDir(), "svc"), t.TempDir()
	if err := lxctest.Make(dir); err != nil {
		t.Fatal(err)
	}
	var pid, signal int
	begin := time.Now()
	line := startApart(t, Options{Dir: dir, RunDir: run})
	if _, err := fmt.Sscanf(line, "init %d %d", &pid, &signal); err != nil {
		t.Fatalf("start said %q", line)
	}
	t.Logf("started in %v", time.Since(begin))
	t.Cleanup(func() { _ = unix.Kill(pid, unix.SIGKILL) })
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatalf("init ended with its starter: %v", err)
	}
	defer func() { _ = unix.Close(fd) }()
	if signal != int(unix.SIGUSR1) {
		t.Errorf("halt signal %d", signal)
	}
	for command, want := range map[string]int{"true": 0, "exit 7": 7} {
		code, err := Exec(filepath.Dir(dir), "svc", []string{"/bin/sh", "-c", command})
		if err != nil || code != want {
			t.Errorf("exec %s: %d, %v", command, code, err)
		}
	}
	if err := unix.PidfdSendSignal(fd, unix.Signal(signal), nil, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000)
	if n != 1 {
		t.Errorf("init did not halt: %v", err)
	}
	if _, err := Exec(filepath.Dir(dir), "svc", []string{"true"}); err == nil {
		t.Error("exec in a container that ended")
	}
}

func TestBadConfig(t *testing.T) {
	for name, test := range map[string]struct {
		config string
		code   worker.Code
		words  string
	}{
		"missing":     {"-", worker.CodeContainerConfig, "no config"},
		"unknown key": {"lxc.nonsense = 1\n", worker.CodeContainerConfig, "lxc.nonsense"},
		"no init":     {"lxc.init.cmd = /no/init\nlxc.autodev = 1\nlxc.tty.max = 0\n", worker.CodeContainerStart, "/no/init"},
	} {
		dir, run := filepath.Join(t.TempDir(), "svc"), t.TempDir()
		if err := lxctest.Make(dir); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "config")
		err := os.Remove(path)
		if test.config != "-" {
			err = os.WriteFile(path, []byte(test.config), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		line := startApart(t, Options{Dir: dir, RunDir: run})
		if !strings.HasPrefix(line, "failure "+string(test.code)) || !strings.Contains(line, test.words) {
			t.Errorf("%s: %s", name, line)
		}
		t.Log(name, line)
	}
}

func TestParseSignal(t *testing.T) {
	for text, want := range map[string]int{"10": 10, "SIGUSR1": 10, "SIGPWR": 30, "": 30, "x": 30} {
		if got := parseSignal(text, int(unix.SIGPWR)); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

func TestNetwork(t *testing.T) {
	if got := network(core.NetworkSpec{}, ""); len(got) != 1 || got[0][1] != "empty" {
		t.Errorf("no bridge: %v", got)
	}
}

// TestLink gives the container its one link: on the bridge, under the name that containment knows.
func TestLink(t *testing.T) {
	dir, run := filepath.Join(t.TempDir(), "svc"), t.TempDir()
	if err := lxctest.Make(dir); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{"link add kobr0 type bridge forward_delay 0", "addr add 10.55.0.1/24 dev kobr0", "link set kobr0 up"} {
		if _, err := drive.Run(t.Context(), append([]string{"ip"}, strings.Fields(args)...)...); err != nil {
			t.Fatal(err)
		}
	}
	// A link of the config's own is left out: containment would not know it.
	config, err := os.OpenFile(filepath.Join(dir, "config"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := config.WriteString("lxc.net.0.type = veth\nlxc.net.0.link = nobridge\nlxc.net.1.type = veth\n"); err != nil {
		t.Fatal(err)
	}
	_ = config.Close()
	line := startApart(t, Options{Dir: dir, RunDir: run, Link: "ko-svc", Network: core.NetworkSpec{
		Bridge: "kobr0", MAC: "02:00:00:00:aa:01", Gateway: netip.MustParseAddr("10.55.0.1"),
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.55.0.9/24"), netip.MustParsePrefix("fd55::9/64")},
	}})
	var pid, signal int
	if _, err := fmt.Sscanf(line, "init %d %d", &pid, &signal); err != nil {
		t.Fatalf("start said %q", line)
	}
	t.Cleanup(func() { _ = unix.Kill(pid, unix.SIGKILL) })
	out, err := drive.Run(t.Context(), "ip", "-o", "link", "show", "master", "kobr0")
	if err != nil || !strings.Contains(string(out), "ko-svc@") {
		t.Errorf("on the bridge: %s, %v", out, err)
	}
	out, err = drive.Run(t.Context(), "nsenter", "-t", fmt.Sprint(pid), "-n", "ip", "-o", "addr")
	for _, want := range []string{"10.55.0.9/24", "fd55::9/64"} {
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("inside: %s, %v; want %s", out, err, want)
		}
	}
	out, err = drive.Run(t.Context(), "nsenter", "-t", fmt.Sprint(pid), "-n", "ip", "-o", "link")
	if err != nil || !strings.Contains(string(out), "02:00:00:00:aa:01") || strings.Contains(string(out), "eth1") {
		t.Errorf("inside: %s, %v", out, err)
	}
	out, err = drive.Run(t.Context(), "nsenter", "-t", fmt.Sprint(pid), "-n", "ip", "route")
	if err != nil || !strings.Contains(string(out), "default via 10.55.0.1") {
		t.Errorf("inside: %s, %v", out, err)
	}
}
