package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Program names a daemon as a node's init runs it.
type Program string

// The daemons of a node: the product's, and the stock stack's.
const (
	Daemon     Program = "keeponed"
	Guard      Program = "keepone-guard"
	Corosync   Program = "corosync"
	Pacemakerd Program = "pacemakerd"
)

const (
	controlSocket = "/run/lab.sock"
	nodeFile      = "/etc/keepone/node.toml"
	// restartDelay is systemd's Restart=always with RestartSec=1.
	restartDelay = time.Second
	// readyPace is how often a daemon that needs another looks for it.
	readyPace = 50 * time.Millisecond
)

// newUnit says how each daemon is run.
func (p Program) newUnit(c nodeConfig) *unit {
	u := &unit{
		env: nodeEnv(c.BinDir), log: "/var/log/keepone/" + string(p) + ".log", ready: func() bool { return true },
		delay: restartDelay, wake: make(chan struct{}, 1),
	}
	path, enabled := filepath.Join(c.BinDir, string(p)), nodeFile
	switch p {
	case Guard:
		u.argv = []string{path, "--run-dir", "/run/keepone"}
	case Daemon:
		u.argv = []string{path, "--node-file", nodeFile}
	case Corosync:
		u.argv, enabled = []string{"/usr/sbin/corosync", "-f"}, stackEnabled
	case Pacemakerd:
		u.argv, enabled = []string{"/usr/sbin/pacemakerd", "-f"}, stackEnabled
		u.env = append(u.env, "PCMK_logfile="+pacemakerLog+"/pacemaker.log", "PCMK_logfacility=none")
		u.ready, u.final = corosyncAnswers, crmFatal
	}
	u.wanted = present(enabled) && present(u.argv[0])
	return u
}

// supervisor is the part of a node's init that systemd has on a real node: it keeps the daemons running.
type supervisor struct {
	reaper   *reaper
	units    map[Program]*unit
	listener net.Listener
}

// unit is one daemon under supervision.
type unit struct {
	argv  []string
	env   []string
	log   string
	ready func() bool // it may be started
	final int         // the exit code after which it stays away; 0: none

	mu     sync.Mutex
	wanted bool
	pid    int // 0 while it does not run
	delay  time.Duration
	wake   chan struct{}
}

func newSupervisor(c nodeConfig) (*supervisor, error) {
	listener, err := net.Listen("unix", controlSocket)
	if err != nil {
		return nil, fmt.Errorf("listen for the lab: %w", err)
	}
	s := &supervisor{reaper: newReaper(), units: map[Program]*unit{}, listener: listener}
	for _, p := range []Program{Guard, Daemon, Corosync, Pacemakerd} {
		s.units[p] = p.newUnit(c)
	}
	return s, os.MkdirAll("/var/log/keepone", 0o755)
}

func present(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (s *supervisor) run(ctx context.Context) error {
	for _, u := range s.units {
		go u.keep(ctx, s.reaper)
	}
	go s.serve()
	s.reaper.run(ctx)
	return ctx.Err()
}

// keep runs the daemon again whenever it ended while it is wanted.
func (u *unit) keep(ctx context.Context, r *reaper) {
	for ctx.Err() == nil {
		if !u.isWanted() {
			u.pause(ctx, -1)
			continue
		}
		if !u.ready() {
			u.pause(ctx, readyPace)
			continue
		}
		ended, err := u.start(r)
		if err != nil {
			fmt.Fprintf(os.Stderr, "start %s: %v\n", u.argv[0], err)
			u.pause(ctx, u.restartDelay())
			continue
		}
		status := <-ended
		u.setPID(0)
		fmt.Fprintf(os.Stderr, "%s ended: exit %d, signal %d\n", u.argv[0], status.ExitStatus(), status.Signal())
		if u.final != 0 && status.ExitStatus() == u.final {
			u.giveUp()
		}
		if u.isWanted() {
			u.pause(ctx, u.restartDelay())
		}
	}
}

// pause waits for d, without end if it is negative, or until a control command changed something.
func (u *unit) pause(ctx context.Context, d time.Duration) {
	var timer <-chan time.Time
	if d >= 0 {
		timer = time.After(d)
	}
	select {
	case <-ctx.Done():
	case <-u.wake:
	case <-timer:
	}
}

func (u *unit) start(r *reaper) (<-chan syscall.WaitStatus, error) {
	log, err := os.OpenFile(u.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	pid, ended, err := r.start(u.argv, u.env, []uintptr{null.Fd(), log.Fd(), log.Fd()})
	if err == nil {
		u.setPID(pid)
	}
	return ended, err
}

func (u *unit) isWanted() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.wanted
}

func (u *unit) giveUp() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.wanted = false
}

func (u *unit) restartDelay() time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.delay
}

func (u *unit) setPID(pid int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.pid = pid
}

// serve answers the lab: one line in, one line out.
func (s *supervisor) serve() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			line, err := bufio.NewReader(conn).ReadString('\n')
			if err == nil {
				fmt.Fprintln(conn, s.obey(strings.Fields(line)))
			}
		}()
	}
}

// obey does one of: pid P, start P, stop P SIGNAL, kill P, delay P D.
func (s *supervisor) obey(words []string) string {
	if len(words) < 2 || s.units[Program(words[1])] == nil {
		return "error unknown program"
	}
	u := s.units[Program(words[1])]
	u.mu.Lock()
	defer u.mu.Unlock()
	switch words[0] {
	case "pid":
		return fmt.Sprintf("ok %d", u.pid)
	case "start":
		if !present(u.argv[0]) {
			return "error " + u.argv[0] + " is missing"
		}
		u.wanted = true
	case "stop":
		u.wanted = false
		u.signal(syscall.SIGTERM)
	case "halt":
		u.wanted = false
		u.signal(syscall.SIGKILL)
	case "kill":
		u.signal(syscall.SIGKILL)
		return "ok"
	case "delay":
		d, err := time.ParseDuration(words[len(words)-1])
		if err != nil {
			return "error " + err.Error()
		}
		u.delay = d
		return "ok"
	default:
		return "error unknown command"
	}
	select {
	case u.wake <- struct{}{}:
	default:
	}
	return "ok"
}

// signal needs u.mu; the reaper buries the process only after its end, so the pid can't be another's.
func (u *unit) signal(sig syscall.Signal) {
	if u.pid > 0 {
		_ = syscall.Kill(u.pid, sig)
	}
}

// control asks the node's init.
func (n *Node) control(ctx context.Context, words ...string) (string, error) {
	path, err := n.LivePath(controlSocket)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		return "", fmt.Errorf("reach init of %s: %w", n.Name, err)
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	fmt.Fprintln(conn, strings.Join(words, " "))
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("ask init of %s: %w", n.Name, err)
	}
	status, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	if status != "ok" {
		return "", fmt.Errorf("ask init of %s: %s: %w", n.Name, strings.Join(words, " "), errors.New(rest))
	}
	return rest, nil
}

// Kill sends SIGKILL to a daemon; the node's init starts it again after the restart delay (1 s unless changed).
func (n *Node) Kill(ctx context.Context, p Program) error {
	n.lab.Logf("%s: kill %s", n.Name, p)
	_, err := n.control(ctx, "kill", string(p))
	return err
}

// Halt sends SIGKILL to a daemon, which then stays away.
func (n *Node) Halt(ctx context.Context, p Program) error {
	n.lab.Logf("%s: kill %s for good", n.Name, p)
	_, err := n.control(ctx, "halt", string(p))
	return err
}

// Stop ends a daemon by SIGTERM and waits for its end; it stays away.
func (n *Node) Stop(ctx context.Context, p Program) error {
	n.lab.Logf("%s: stop %s", n.Name, p)
	if _, err := n.control(ctx, "stop", string(p)); err != nil {
		return err
	}
	bound := 15 * time.Second
	if p == Pacemakerd {
		bound = pacemakerStop
	}
	return poll(ctx, bound, "the end of "+string(p), func() bool { return n.PID(ctx, p) == 0 })
}

// Start makes the node's init run a daemon, now and whenever it ends. It is what enabling its unit is on a real
// node: at power-on the product's daemons start by themselves if /etc/keepone/node.toml is there. A daemon that needs
// another (Pacemaker needs corosync) is waited for that long.
func (n *Node) Start(ctx context.Context, p Program) error {
	n.lab.Logf("%s: start %s", n.Name, p)
	if _, err := n.control(ctx, "start", string(p)); err != nil {
		return err
	}
	return poll(ctx, 10*time.Second, "the start of "+string(p), func() bool { return n.PID(ctx, p) != 0 })
}

// SetRestartDelay changes how long the node's init waits before it starts a daemon again.
func (n *Node) SetRestartDelay(ctx context.Context, p Program, d time.Duration) error {
	_, err := n.control(ctx, "delay", string(p), d.String())
	return err
}

// PID is a daemon's process id as the node sees it; 0 while it does not run or the node can't answer.
func (n *Node) PID(ctx context.Context, p Program) int {
	rest, err := n.control(ctx, "pid", string(p))
	if err != nil {
		return 0
	}
	var pid int
	_, _ = fmt.Sscan(rest, &pid)
	return pid
}

// LogPath is where a daemon's output is, also while the node is off.
func (n *Node) LogPath(p Program) string { return n.Path("/var/log/keepone/" + string(p) + ".log") }
