package watchdog

import (
	"errors"
	"io/fs"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// fake is a kernel with one watchdog, on a clock of its own.
type fake struct {
	attributes map[string]string // of watchdog0; state is the fake's own
	options    uint32
	boot       uint32
	least      int  // a shorter timeout than that is lengthened
	nowayout   bool // as the attribute says, unless that lies
	now        time.Duration
	timeout    int
	opened     bool
	running    bool
	deadline   time.Duration
	broken     error // of each keepalive
	reset      bool
}

func newFake() *fake {
	return &fake{
		attributes: map[string]string{"identity": "Some Watchdog", "nowayout": "0", "min_timeout": "1", "max_timeout": "600"},
		options:    needed, timeout: 60,
	}
}

func (f *fake) pass(d time.Duration) {
	f.now += d
	f.reset = f.reset || f.running && f.now >= f.deadline
}

func (f *fake) Attribute(name string) (string, error) {
	key, of0 := strings.CutPrefix(name, "watchdog0/")
	if of0 && key == "state" {
		return map[bool]string{true: "active", false: "inactive"}[f.running], nil
	}
	text, ok := f.attributes[key]
	if !of0 || !ok {
		return "", &fs.PathError{Op: "open", Path: name, Err: syscall.ENOENT}
	}
	return text, nil
}

func (f *fake) Open(device string) (port, error) {
	switch {
	case device != "/dev/watchdog0":
		return nil, &fs.PathError{Op: "open", Path: device, Err: syscall.ENOENT}
	case f.opened:
		return nil, &fs.PathError{Op: "open", Path: device, Err: syscall.EBUSY}
	}
	f.opened, f.running = true, true
	return f, f.ping()
}

func (f *fake) ping() error {
	f.deadline = f.now + time.Duration(f.timeout)*time.Second
	return nil
}

func (f *fake) Support() (uint32, uint32, error) { return f.options, f.boot, nil }
func (f *fake) Timeout() (int, error)            { return f.timeout, nil }

func (f *fake) SetTimeout(seconds int) error {
	if most, err := strconv.Atoi(f.attributes["max_timeout"]); err == nil && seconds > most || f.options&unix.WDIOF_SETTIMEOUT == 0 {
		return syscall.EINVAL
	}
	f.timeout = max(seconds, f.least)
	return f.ping()
}

func (f *fake) KeepAlive() error {
	if f.broken != nil {
		return f.broken
	}
	return f.ping()
}

func (f *fake) Close(magic bool) error {
	if !f.opened {
		return errors.New("closed twice")
	}
	f.opened = false
	if magic && !f.nowayout || f.options&unix.WDIOF_MAGICCLOSE == 0 {
		f.running = false
		return nil
	}
	return f.ping() // as the watchdog core does
}
