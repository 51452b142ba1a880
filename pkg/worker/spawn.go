package worker

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"syscall"
)

// maxLine bounds one line of a helper's output.
const maxLine = 1 << 20

// Helpers starts the daemon's helper processes: its own binary with the `helper` sub-command.
type Helpers struct {
	Binary string    // /proc/self/exe as a rule
	Log    io.Writer // the helpers' standard error
}

// Activation is one running `helper activate`.
type Activation struct {
	cmd      *exec.Cmd
	stdin    io.WriteCloser
	progress chan Progress
	once     sync.Once
}

// Start spawns the activation helper inside the cgroup that the plan names: containment reaches it from its
// first instruction on (I5).
func (h Helpers) Start(ctx context.Context, plan Plan) (*Activation, error) {
	group, err := FreshCgroup(plan.Cgroup)
	if err != nil {
		return nil, err
	}
	defer func() { _ = group.Close() }()
	cmd := exec.Command(h.Binary, "helper", "activate")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd()), Setsid: true}
	cmd.Stderr = h.Log
	a := &Activation{cmd: cmd, progress: make(chan Progress, 16)}
	if a.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start activation helper: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start activation helper: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start activation helper: %w", err)
	}
	if err := json.NewEncoder(a.stdin).Encode(plan); err != nil {
		a.Kill()
	}
	go a.read(stdout)
	return a, nil
}

// read hands on each line, and reaps the helper when its output ends.
func (a *Activation) read(stdout io.Reader) {
	defer close(a.progress)
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var p Progress
		if err := json.Unmarshal(lines.Bytes(), &p); err != nil {
			p = Progress{Step: StepFailed, Failure: &Failure{Code: CodeUnknown, Message: "the activation helper wrote what is no progress: " + err.Error()}}
		}
		a.progress <- p
	}
	_ = a.cmd.Wait()
}

// Progress is closed when the helper has ended. It must be read to its end, or the helper be killed.
func (a *Activation) Progress() <-chan Progress { return a.progress }

// Go lets the helper pass StepMapped.
func (a *Activation) Go() error {
	if err := json.NewEncoder(a.stdin).Encode(Go{Go: true}); err != nil {
		return fmt.Errorf("let the activation helper go on: %w", err)
	}
	return nil
}

// Kill ends the helper, unless it has ended.
func (a *Activation) Kill() {
	a.once.Do(func() {
		_ = a.stdin.Close()
		_ = a.cmd.Process.Kill()
		go func() {
			for range a.progress { // let read reap it
				continue
			}
		}()
	})
}

// Control is the warm `helper blocklist`: one process, restarted when it ends or does not answer in time. Its
// calls may come from any goroutine; each is bounded by its context.
type Control struct {
	helpers Helpers
	args    []string

	mu      sync.Mutex
	process *controlProcess
	nextID  uint64
}

// ErrControl says that the helper ended or did not answer: the outcome of the call is unknown.
var ErrControl = errors.New("storage helper gave no answer")

// NewControl makes a control client; the process starts with the first call. Args tell it where Ceph is.
func NewControl(h Helpers, c Ceph) *Control {
	return &Control{helpers: h, args: []string{"helper", "blocklist", "--conf", c.Conf, "--keyring", c.Keyring, "--user", c.User}}
}

// Do asks and waits. A Failure comes back as the error; any other error means that the outcome is unknown.
func (c *Control) Do(ctx context.Context, r Request) (Response, error) {
	p, id, err := c.started()
	if err != nil {
		return Response{}, err
	}
	r.ID = id
	answer, err := p.ask(ctx, r)
	if err != nil {
		c.drop(p)
		return Response{}, fmt.Errorf("%w: %w", ErrControl, err)
	}
	if answer.Failure != nil {
		return answer, answer.Failure
	}
	return answer, nil
}

// Close ends the helper.
func (c *Control) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.process != nil {
		c.process.kill()
		c.process = nil
	}
}

// started returns the running helper, started now if need be, and the next request's id.
func (c *Control) started() (*controlProcess, uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nextID++
	if c.process != nil && !c.process.ended() {
		return c.process, c.nextID, nil
	}
	p, err := startControl(c.helpers, c.args)
	if err != nil {
		return nil, 0, err
	}
	c.process = p
	return p, c.nextID, nil
}

func (c *Control) drop(p *controlProcess) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.kill()
	if c.process == p {
		c.process = nil
	}
}

// controlProcess is one life of the helper.
type controlProcess struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	done  chan struct{}

	mu      sync.Mutex
	waiting map[uint64]chan Response
}

func startControl(h Helpers, args []string) (*controlProcess, error) {
	cmd := exec.Command(h.Binary, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = h.Log
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start storage helper: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start storage helper: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start storage helper: %w", err)
	}
	p := &controlProcess{cmd: cmd, stdin: stdin, done: make(chan struct{}), waiting: map[uint64]chan Response{}}
	go p.read(stdout)
	return p, nil
}

func (p *controlProcess) read(stdout io.Reader) {
	defer close(p.done)
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var r Response
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			break
		}
		p.mu.Lock()
		if to, ok := p.waiting[r.ID]; ok {
			to <- r // buffered, and taken out with the first answer
			delete(p.waiting, r.ID)
		}
		p.mu.Unlock()
	}
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

func (p *controlProcess) ask(ctx context.Context, r Request) (Response, error) {
	line, err := json.Marshal(r)
	if err != nil {
		return Response{}, fmt.Errorf("encode request: %w", err)
	}
	answer := make(chan Response, 1)
	p.mu.Lock()
	p.waiting[r.ID] = answer
	_, err = p.stdin.Write(append(line, '\n'))
	p.mu.Unlock()
	if err != nil {
		return Response{}, fmt.Errorf("write request: %w", err)
	}
	select {
	case got := <-answer:
		return got, nil
	case <-p.done:
		return Response{}, errors.New("it ended")
	case <-ctx.Done():
		return Response{}, ctx.Err()
	}
}

func (p *controlProcess) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *controlProcess) kill() {
	_ = p.stdin.Close()
	_ = p.cmd.Process.Kill()
}

// Volume runs one volume job to its end, handing out each line. The error is its Failure, or ErrControl if the
// helper ended without a word: the outcome is then unknown.
func (h Helpers) Volume(ctx context.Context, job VolumeJob, each func(VolumeProgress)) error {
	cmd := exec.CommandContext(ctx, h.Binary, "helper", "volume")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = h.Log
	order, err := json.Marshal(job)
	if err != nil {
		return fmt.Errorf("encode volume job: %w", err)
	}
	cmd.Stdin = bytes.NewReader(order)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("start volume helper: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start volume helper: %w", err)
	}
	// A child of the helper may hold its output open for longer than it lives.
	stop := context.AfterFunc(ctx, func() { _ = stdout.Close() })
	defer stop()
	done := false
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var p VolumeProgress
		if json.Unmarshal(lines.Bytes(), &p) != nil {
			continue
		}
		each(p)
		if p.Failure != nil {
			err = p.Failure
		}
		done = done || p.Done
	}
	_ = cmd.Wait()
	if err == nil && !done {
		err = fmt.Errorf("make volume: %w", ErrControl)
	}
	return err
}
