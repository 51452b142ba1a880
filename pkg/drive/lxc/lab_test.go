//go:build lab

package lxc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/drive/lxc/lxctest"
	"github.com/keepone-ha/keepone/pkg/drive/nstest"
	"github.com/keepone-ha/keepone/pkg/worker"
)

// TestMain is also the short-lived process that a start runs in.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "start" {
		started, err := Start(context.Background(), Options{Dir: os.Args[2], RunDir: os.Args[3]})
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

func startApart(t *testing.T, dir, run string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, self, "start", dir, run).Output()
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
	line := startApart(t, dir, run)
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
		line := startApart(t, dir, run)
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
