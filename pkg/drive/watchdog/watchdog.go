// Package watchdog arms, pets and stops a watchdog of Linux's watchdog core, by the API that the kernel's
// Documentation/watchdog/watchdog-api and sysfs-class-watchdog describe. Only the guard may own one.
package watchdog

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The bounds of a real timeout that can be counted on. Below the least, a guard that is restarted (one second) or a
// machine that stalls for a moment would cost a healthy node; a heartbeat can't say more than the most.
const (
	LeastTimeout = 5 * time.Second
	MostTimeout  = 63 * time.Second
)

// The reasons why a watchdog is not armed.
var (
	ErrMissing  = errors.New("no such watchdog")
	ErrBusy     = errors.New("watchdog belongs to another process")
	ErrUnfit    = errors.New("watchdog is not fit")
	ErrNoWayOut = errors.New("watchdog can't be stopped (nowayout)")
)

// deviceName is what a name of a device must look like: /dev/watchdog alone may be of a driver that has no sysfs entry.
var deviceName = regexp.MustCompile(`^/dev/watchdog[0-9]+$`)

// needed is what a driver must offer. Without the magic close any end of the guard would stop the watchdog.
const needed = unix.WDIOF_SETTIMEOUT | unix.WDIOF_KEEPALIVEPING | unix.WDIOF_MAGICCLOSE

// blocking drivers ask somebody else with each pet, and would hold up heartbeats and deadlines while that one is away.
var blocking = map[string]string{"IPMI": "its pets wait for the BMC"}

// kernel is what Linux offers.
type kernel interface {
	Attribute(name string) (string, error) // of a file below /sys/class/watchdog
	Open(device string) (port, error)
}

// port is a watchdog that is open, and so runs.
type port interface {
	Support() (options, boot uint32, err error)
	SetTimeout(seconds int) error
	Timeout() (seconds int, err error)
	KeepAlive() error
	Close(magic bool) error // with magic it is stopped, unless nowayout
}

// Dog is a watchdog that runs. It is for one goroutine.
type Dog struct {
	kernel   kernel
	device   string
	name     string
	port     port
	timeout  time.Duration
	unfit    error
	nowayout bool
	bitten   bool
}

// Open arms the watchdog at device with a timeout near the one wanted, and pets it once. An error says that it is not
// armed and does not run on our account. One that runs, is not fit and can't be stopped is no error, since it must be
// pet or it resets a healthy node: Timeout says why it does not count.
func Open(device string, timeout time.Duration) (*Dog, error) { return open(linux{}, device, timeout) }

func open(k kernel, device string, timeout time.Duration) (*Dog, error) {
	d := &Dog{kernel: k, device: device, name: path.Base(device)}
	err := d.inspect(timeout)
	if err == nil {
		d.port, err = k.Open(device)
	}
	switch {
	case errors.Is(err, syscall.EBUSY):
		err = fmt.Errorf("%w: systemd (RuntimeWatchdogSec=), sbd or a watchdog daemon has it", ErrBusy)
	case errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("%w: load its driver (modprobe)", ErrMissing)
	}
	if err != nil {
		return nil, fmt.Errorf("arm %s: %w", device, err)
	}
	d.unfit = d.arm(timeout)
	if d.unfit != nil && d.Stop() == nil {
		return nil, fmt.Errorf("arm %s: %w", device, d.unfit)
	}
	return d, nil
}

// inspect looks at what can be known before the watchdog is opened: opening it starts it.
func (d *Dog) inspect(timeout time.Duration) error {
	if !deviceName.MatchString(d.device) {
		return fmt.Errorf("%w: its name must be /dev/watchdog and a number", ErrUnfit)
	}
	identity, err := d.kernel.Attribute(d.name + "/identity")
	if err != nil {
		return err
	}
	if why, bad := blocking[identity]; bad {
		return fmt.Errorf("%w: %s, which could hold up the guard", ErrUnfit, why)
	}
	nowayout, err := d.kernel.Attribute(d.name + "/nowayout")
	if err != nil {
		return err
	}
	d.nowayout = nowayout != "0"
	for name, outside := range map[string]func(limit time.Duration) bool{
		"min_timeout": func(limit time.Duration) bool { return timeout < limit },
		"max_timeout": func(limit time.Duration) bool { return limit > 0 && timeout > limit },
	} {
		text, err := d.kernel.Attribute(d.name + "/" + name) // older kernels do not say it
		seconds, bad := strconv.Atoi(text)
		if err == nil && bad == nil && outside(time.Duration(seconds)*time.Second) {
			return fmt.Errorf("%w: its %s is %d s, not %s", ErrUnfit, name, seconds, timeout)
		}
	}
	return nil
}

// arm sets the timeout of a watchdog that runs since it was opened, and reads back what it really is.
func (d *Dog) arm(timeout time.Duration) error {
	options, boot, err := d.port.Support()
	if err != nil {
		return err
	}
	d.bitten = boot&unix.WDIOF_CARDRESET != 0
	if options&needed != needed {
		return fmt.Errorf("%w: its driver lacks what is needed of it (options %#x)", ErrUnfit, options)
	}
	if err := d.port.SetTimeout(int(math.Ceil(timeout.Seconds()))); err != nil {
		return err
	}
	real, err := d.port.Timeout()
	if err != nil {
		return err
	}
	d.timeout = time.Duration(real) * time.Second
	if d.timeout < LeastTimeout || d.timeout > MostTimeout {
		return fmt.Errorf("%w: its real timeout is %s, not within %s to %s", ErrUnfit, d.timeout, LeastTimeout, MostTimeout)
	}
	return d.port.KeepAlive()
}

// Timeout is the real one, as it was read back. An error says why the watchdog can't be counted on.
func (d *Dog) Timeout() (time.Duration, error) { return d.timeout, d.unfit }

// Bitten reports whether the driver says that this watchdog caused the last reset.
func (d *Dog) Bitten() bool { return d.bitten }

// Pet starts its time anew.
func (d *Dog) Pet() error {
	if err := d.port.KeepAlive(); err != nil {
		return fmt.Errorf("pet %s: %w", d.name, err)
	}
	return nil
}

// Stop ends its time by the magic close and makes sure that it does not run any more. After an error it may: it is
// still open then, and must be pet or left.
func (d *Dog) Stop() error {
	if d.nowayout {
		return fmt.Errorf("stop %s: %w", d.name, ErrNoWayOut)
	}
	err := d.port.Close(true)
	if err == nil {
		var state string
		if state, err = d.kernel.Attribute(d.name + "/state"); err == nil && state != "inactive" {
			err = fmt.Errorf("it is still %s", state)
		}
	}
	if err == nil {
		return nil
	}
	again, openErr := d.kernel.Open(d.device)
	if openErr == nil {
		d.port = again
	}
	return fmt.Errorf("stop %s: %w", d.name, errors.Join(err, openErr))
}

// Leave closes it while its time goes on: who opens and pets it in time goes on with it.
func (d *Dog) Leave() error {
	if err := d.port.Close(false); err != nil {
		return fmt.Errorf("leave %s: %w", d.name, err)
	}
	return nil
}

func trimmed(text []byte) string { return strings.TrimSpace(string(text)) }
