package guard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/release"
)

// Options of a guard.
type Options struct {
	RunDir   string
	Log      *slog.Logger
	Watchdog func(device string, timeout time.Duration) (Watchdog, error)                 // arms one; nil: there is none
	Contain  func(ctx context.Context, r release.Record, reason string) release.Contained // nil: release.Contain
	Now      func() boottime.Time                                                         // nil: boottime.Now
}

const (
	defaultBeat  = 200 * time.Millisecond // until guard.conf says otherwise
	defaultLease = 3 * time.Second        // likewise
	daemonFresh  = 2 * time.Second        // a daemon that has not poked for so long is not healthy
	overdueAfter = 3 * time.Second        // past a deadline: containment takes milliseconds unless something hangs
	retryContain = 500 * time.Millisecond // between two attempts to contain
	maxReceive   = 64                     // datagrams in one go, so that a flood can't keep the loop from its deadlines
)

// Guard is the guard's loop. One goroutine owns all of its state; only containments run beside it.
type Guard struct {
	o        Options
	instance core.Instance
	conf     Conf
	confMark stamp
	leases   *Leases
	services map[core.ServiceName]*service
	seq      uint64
	daemon   boottime.Time // of its last poke
	lastAck  lastAck
	dog      dog
	io       wires
	work     sync.WaitGroup // containments
}

type lastAck struct {
	at   boottime.Time
	from core.NodeName
}

// wires are what the loop waits on.
type wires struct {
	wake    int // eventfd: a containment ended, or the context did
	timer   int // timerfd on CLOCK_BOOTTIME: it fires at once after a suspend
	control int // guard.sock
	epoll   int // over all of them
	file    *os.File
	waiter  syscall.RawConn // of file, which is epoll
	links   []int
	ended   chan verdict
	buf     []byte
	warned  map[string]bool // what was logged once, until it is well again
}

// New prepares a guard and takes up what an earlier one of this life knew.
func New(o Options) (*Guard, error) {
	if o.Now == nil {
		o.Now = boottime.Now
	}
	if o.Contain == nil {
		o.Contain = func(ctx context.Context, r release.Record, reason string) release.Contained {
			return release.Contain(ctx, o.RunDir, r, reason)
		}
	}
	instance, err := release.Instance(o.RunDir)
	if err != nil {
		return nil, fmt.Errorf("start guard: %w", err)
	}
	g := &Guard{
		o: o, instance: instance, services: map[core.ServiceName]*service{},
		conf:   Conf{Heartbeat: defaultBeat, Lease: defaultLease},
		leases: NewLeases(defaultLease),
		daemon: o.Now().Add(-daemonFresh),
		io:     wires{ended: make(chan verdict, 1), warned: map[string]bool{}, buf: make([]byte, MaxDatagram+1)},
	}
	g.remember()
	return g, nil
}

// remember loads guard.leases. Where it is missing or damaged, whatever has a record gets no grace: see memoryName.
func (g *Guard) remember() {
	err := g.leases.loadMemory(g.o.RunDir)
	if err == nil {
		return
	}
	records, listErr := release.List(g.o.RunDir)
	if listErr != nil || len(records) > 0 {
		g.o.Log.Warn("leases of an earlier guard are not known: what runs here is contained", "error", err)
	}
	for _, r := range records {
		// Never before the boot, which guard.leases could not say: a lease of this life ends no earlier than one from there.
		g.leases.seen[Right{r.Service, r.Epoch}] = max(0, g.o.Now().Add(-maxGrace))
	}
}

// maxGrace is longer than any lease.
const maxGrace = time.Duration(maxTiming)

// Run guards until ctx ends. It returns an error only if it can't begin.
func (g *Guard) Run(ctx context.Context) error {
	if err := g.open(); err != nil {
		return fmt.Errorf("start guard: %w", err)
	}
	defer g.close()
	woken := make(chan struct{})
	stopWake := context.AfterFunc(ctx, func() { g.wake(); close(woken) })
	defer func() {
		if !stopWake() {
			<-woken // before close: the descriptor's number may be another's then
		}
	}()
	defer g.park()
	defer g.work.Wait() // each is bounded, and hurries once ctx has ended
	next := g.o.Now()
	for ctx.Err() == nil {
		// Deadlines come first, whatever else waits: after a pause or a suspend they have passed (I5).
		now := g.o.Now()
		g.expire(ctx, now)
		g.collect(now)
		g.hear(ctx)
		g.answer()
		if now >= next {
			g.beat(ctx, now)
			next = now.Add(g.conf.Heartbeat)
		}
		g.sleep(min(next, g.nextDeadline(now)))
	}
	return nil
}

func (g *Guard) open() error {
	var err error
	if g.io.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("open eventfd: %w", err)
	}
	if g.io.timer, err = unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		return fmt.Errorf("open timer: %w", err)
	}
	if g.io.control, err = openControl(g.o.RunDir); err != nil {
		return err
	}
	if g.io.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("open epoll: %w", err)
	}
	err = errors.Join(unix.SetNonblock(g.io.epoll, true), g.watch(g.io.wake), g.watch(g.io.timer), g.watch(g.io.control))
	if err != nil {
		return fmt.Errorf("set up epoll: %w", err)
	}
	g.io.file = os.NewFile(uintptr(g.io.epoll), "epoll")
	if g.io.waiter, err = g.io.file.SyscallConn(); err != nil {
		return fmt.Errorf("set up epoll: %w", err)
	}
	return nil
}

func (g *Guard) close() {
	_ = g.io.file.Close()
	for _, fd := range append(g.io.links, g.io.wake, g.io.timer, g.io.control) {
		_ = unix.Close(fd)
	}
	_ = os.Remove(filepath.Join(g.o.RunDir, controlName))
}

func (g *Guard) wake() {
	_, _ = unix.Write(g.io.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

// watch makes the loop's wait end when fd can be read. A closed fd leaves by itself.
func (g *Guard) watch(fd int) error {
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
	return unix.EpollCtl(g.io.epoll, unix.EPOLL_CTL_ADD, fd, &event)
}

// sleep waits until something can be read, or until then. It waits in Go's own poller, by an epoll within it: a thread
// in a blocking call would have the runtime look after it all the time, at more cost than all else here.
func (g *Guard) sleep(then boottime.Time) {
	at := unix.NsecToTimespec(int64(max(then, 1)))
	if err := unix.TimerfdSettime(g.io.timer, unix.TFD_TIMER_ABSTIME, &unix.ItimerSpec{Value: at}, nil); err != nil {
		g.warn("timer", err)
		return // awake and busy rather than asleep past a deadline
	}
	var events [8]unix.EpollEvent
	err := g.io.waiter.Read(func(fd uintptr) bool {
		n, err := unix.EpollWait(int(fd), events[:], 0)
		return n > 0 || (err != nil && !errors.Is(err, unix.EINTR))
	})
	if err != nil {
		g.warn("poll", err)
	}
	var drain [8]byte
	_, _ = unix.Read(g.io.wake, drain[:])
	_, _ = unix.Read(g.io.timer, drain[:])
}

// warn logs what is wrong once, until well says that it is over: a guard that can't send must not fill a disk.
func (g *Guard) warn(what string, err error) {
	if !g.io.warned[what] {
		g.io.warned[what] = true
		g.o.Log.Warn("guard is hindered", "at", what, "error", err)
	}
}

func (g *Guard) well(what string) {
	if g.io.warned[what] {
		delete(g.io.warned, what)
		g.o.Log.Info("guard is hindered no more", "at", what)
	}
}

// stamp tells whether a file is another one than before.
type stamp struct {
	ino   uint64
	mtime int64
	size  int64
}

func stampOf(path string) (stamp, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return stamp{}, err
	}
	return stamp{st.Ino, st.Mtim.Nano(), st.Size}, nil
}

// reload takes up a new guard.conf. A damaged one changes nothing.
func (g *Guard) reload() {
	path := filepath.Join(g.o.RunDir, confName)
	mark, err := stampOf(path)
	if err == nil && mark == g.confMark {
		return
	}
	if errors.Is(err, fs.ErrNotExist) {
		return // the daemon has not been here yet
	}
	var conf Conf
	text, err := os.ReadFile(path)
	if err == nil {
		conf, err = ParseConf(text)
	}
	if err != nil {
		g.warn(confName, err)
		return
	}
	g.well(confName)
	g.confMark = mark
	g.adopt(conf)
}

func (g *Guard) adopt(conf Conf) {
	same := len(conf.Links) == len(g.io.links)
	for i := range conf.Links {
		same = same && conf.Links[i] == g.conf.Links[i]
	}
	if !same {
		for _, fd := range g.io.links {
			_ = unix.Close(fd)
		}
		g.io.links = nil
	}
	if g.leases.term == 0 { // no ack has said how long a lease is
		g.leases.lease = conf.Lease
	}
	g.conf = conf
	g.o.Log.Info("guard.conf taken up", "cluster", conf.Cluster, "node", conf.Node, "links", len(conf.Links), "peers", len(conf.Peers))
}
