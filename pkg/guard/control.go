package guard

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/core"
)

// guard.sock takes datagrams: "ID verb args", answered by "ID words". A request and its answer are one datagram
// each, so that a client that stops reading can't hold the guard.
const (
	controlName = "guard.sock"
	maxRequest  = 512
	maxAnswer   = 64 << 10
)

func openControl(runDir string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("open control socket: %w", err)
	}
	path := filepath.Join(runDir, controlName)
	_ = os.Remove(path) // of a guard that was killed; two guards never run: systemd sees to it
	old := unix.Umask(0o177)
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	unix.Umask(old)
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("bind control socket %s: %w", path, err)
	}
	return fd, nil
}

// answer serves the requests that wait.
func (g *Guard) answer() {
	buf, oob := make([]byte, maxRequest), make([]byte, unix.CmsgSpace(unix.SizeofUcred))
	for range maxReceive {
		n, oobn, _, from, err := unix.Recvmsg(g.io.control, buf, oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return
		}
		if !allowed(oob[:oobn]) || from == nil {
			continue
		}
		id, request, _ := strings.Cut(string(buf[:n]), " ")
		answer := id + " " + g.serve(strings.Fields(request))
		_ = unix.Sendto(g.io.control, []byte(answer), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, from)
	}
}

// allowed lets root in, and whoever the guard itself runs as.
func allowed(oob []byte) bool {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(messages) != 1 {
		return false
	}
	cred, err := unix.ParseUnixCredentials(&messages[0])
	return err == nil && (cred.Uid == 0 || int(cred.Uid) == os.Geteuid())
}

func (g *Guard) serve(f []string) string {
	now := g.o.Now()
	switch {
	case len(f) == 3 && f[0] == "lease":
		epoch, err := strconv.ParseUint(f[2], 10, 64)
		if err != nil {
			return "error no epoch"
		}
		until, ok := g.leases.Until(Right{core.ServiceName(f[1]), core.Epoch(epoch)}, now)
		if !ok {
			return "none"
		}
		return "until " + strconv.FormatInt(int64(until), 10)
	case len(f) == 1 && f[0] == "healthy":
		g.daemon = now
		return "ok"
	case len(f) == 1 && f[0] == "status":
		text, err := json.Marshal(g.status(now))
		if err != nil {
			return "error " + err.Error()
		}
		return "status " + string(text)
	}
	return "error unknown request"
}

func (g *Guard) status(now boottime.Time) Status {
	st := Status{
		Node: g.conf.Node, Instance: g.instance, Daemon: now.Sub(g.daemon) < daemonFresh,
		Term: g.leases.Term(), AckAge: -1, Leader: g.lastAck.from,
		Maintenance: max(0, g.leases.maintenance.Sub(now)), Watchdog: g.watchdogStatus(),
	}
	if g.lastAck.from != "" {
		st.AckAge = now.Sub(g.lastAck.at)
	}
	for _, s := range g.services {
		st.Services = append(st.Services, ServiceStatus{
			Service: s.record.Service, Epoch: s.record.Epoch, Attempt: s.record.Attempt, State: s.state.String(),
			Lease: g.leases.Deadline(s.right()).Sub(now), Reasons: s.reasons,
		})
	}
	slices.SortFunc(st.Services, func(a, b ServiceStatus) int { return strings.Compare(string(a.Service), string(b.Service)) })
	for what := range g.io.warned {
		st.Warnings = append(st.Warnings, what)
	}
	slices.Sort(st.Warnings)
	return st
}
