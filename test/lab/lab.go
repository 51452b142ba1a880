package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// MaxNodes is what the addresses of the lab leave room for.
const MaxNodes = 9

// Options says what a lab consists of.
type Options struct {
	Nodes        int
	NoCeph       bool      // nodes and BMCs alone
	CephSpread   bool      // a mon and an OSD in each of the first three nodes, instead of one of each beside them
	Machines     bool      // virtual machines for nodes
	DefaultPaxos bool      // leave Ceph's proposal timing as it ships
	LogWriters   bool      // have the one OSD log each answer, for Turns
	Log          io.Writer // one line per verb; nil is silence
}

// Lab is a running cluster of bare nodes. Its methods may be called from any goroutine.
type Lab struct {
	Work, BinDir string

	room    *Room
	opts    Options
	nodes   []*Node
	bmcs    []*BMC
	net     *network
	ceph    *ceph
	chassis *chassisServer

	records atomic.Uint64 // the newest number that a client has used
	writers *Writers      // nil unless asked for

	logMu sync.Mutex
	began time.Time
}

// New builds the lab of a room: network, nodes, BMCs and Ceph. It may be called once per room. What it made when
// it fails is gone with the room; Down is for ending early.
func New(ctx context.Context, room *Room, opts Options) (*Lab, error) {
	if opts.Nodes < 1 || opts.Nodes > MaxNodes || (opts.CephSpread && opts.Nodes < 3) {
		return nil, fmt.Errorf("make lab: %d nodes: 1 to %d are possible, 3 at least with Ceph spread over them", opts.Nodes, MaxNodes)
	}
	if opts.LogWriters && (opts.CephSpread || opts.NoCeph) {
		return nil, errors.New("make lab: writers are told apart by one OSD, not by none or several")
	}
	l := &Lab{Work: room.Work, BinDir: room.BinDir, room: room, opts: opts, began: time.Now()}
	for i := 1; i <= opts.Nodes; i++ {
		l.nodes = append(l.nodes, newNode(l, i))
	}
	if err := l.embody(); err != nil {
		return nil, err
	}
	if err := l.build(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("make lab: %w", err), l.Down(context.WithoutCancel(ctx)))
	}
	l.Logf("lab of %d nodes is up after %v", opts.Nodes, time.Since(l.began).Round(time.Millisecond))
	return l, nil
}

func (l *Lab) build(ctx context.Context) error {
	var err error
	if l.net, err = newNetwork(ctx, l.opts.Nodes); err != nil {
		return err
	}
	if !l.opts.NoCeph {
		if l.opts.LogWriters {
			l.writers = &Writers{}
		}
		l.ceph = newCeph(l)
		if err := l.ceph.writeClientFiles(); err != nil {
			return err
		}
	}
	if l.chassis, err = serveChassis(l); err != nil {
		return err
	}
	steps := []func(context.Context) error{l.startBMCs}
	if l.ceph != nil && !l.opts.CephSpread {
		steps = append(steps, l.ceph.start)
	}
	for _, n := range l.nodes {
		steps = append(steps, n.PowerOn)
	}
	if err := together(ctx, steps...); err != nil {
		return err
	}
	if l.ceph != nil && l.opts.CephSpread {
		return l.ceph.start(ctx)
	}
	return nil
}

// together runs all steps at once and waits for all of them.
func together(ctx context.Context, steps ...func(context.Context) error) error {
	errs := make([]error, len(steps))
	var wg sync.WaitGroup
	for i, step := range steps {
		wg.Go(func() { errs[i] = step(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Node returns node i, counted from 1.
func (l *Lab) Node(i int) *Node { return l.nodes[i-1] }

// Nodes returns all nodes in order.
func (l *Lab) Nodes() []*Node { return l.nodes }

// Down cuts every node and ends Ceph and the BMCs. What survives it ends with the room.
func (l *Lab) Down(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	steps := make([]func(context.Context) error, 0, len(l.nodes))
	for _, n := range l.nodes {
		steps = append(steps, n.PowerCut)
	}
	err := together(ctx, steps...)
	for _, b := range l.bmcs {
		err = errors.Join(err, b.close())
	}
	if l.chassis != nil {
		err = errors.Join(err, l.chassis.close())
	}
	if l.ceph != nil {
		err = errors.Join(err, l.ceph.close())
	}
	return err
}

// Logf writes one line with the lab's age to its log.
func (l *Lab) Logf(format string, args ...any) {
	if l.opts.Log == nil {
		return
	}
	l.logMu.Lock()
	defer l.logMu.Unlock()
	fmt.Fprintf(l.opts.Log, "%8.3f %s\n", time.Since(l.began).Seconds(), fmt.Sprintf(format, args...))
}

// run executes a program in the room and returns what it printed; its error quotes the end of it.
func run(ctx context.Context, bound time.Duration, argv ...string) (string, error) {
	return runWith(ctx, bound, nil, argv...)
}

func runWith(ctx context.Context, bound time.Duration, stdin io.Reader, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin = stdin
	return output(ctx, cmd)
}

// output runs cmd with its output bounded.
func output(ctx context.Context, cmd *exec.Cmd) (string, error) {
	out := &boundedBuffer{limit: 4 << 20}
	cmd.Stdout, cmd.Stderr = out, out
	if cmd.WaitDelay == 0 {
		cmd.WaitDelay = time.Second
	}
	err := cmd.Run()
	if err == nil {
		return out.String(), nil
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return out.String(), fmt.Errorf("run %s: %w: %s", filepath.Base(cmd.Path), err, out.tail(400))
}

// boundedBuffer keeps the first limit bytes that a program printed.
type boundedBuffer struct {
	mu    sync.Mutex
	text  []byte
	limit int
}

func (b *boundedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text = append(b.text, p[:min(len(p), b.limit-len(b.text))]...)
	return len(p), nil
}

func (b *boundedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.text)
}

func (b *boundedBuffer) tail(n int) string {
	s := b.String()
	return s[max(0, len(s)-n):]
}

// poll calls ready every few milliseconds until it says true, or says what it waited for in vain.
func poll(ctx context.Context, bound time.Duration, what string, ready func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ready() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		case <-tick.C:
		}
	}
	return nil
}

func writeFile(path, text string, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), mode)
}
