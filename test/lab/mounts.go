package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// mount is one line of a mountinfo file (proc(5)).
type mount struct {
	major, minor uint32
	point        string
	fs, source   string
}

func readMounts(path string) ([]mount, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	return parseMounts(string(text)), nil
}

// parseMounts skips lines that it does not understand.
func parseMounts(text string) []mount {
	var all []mount
	for line := range strings.Lines(text) {
		left, right, found := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !found || len(l) < 5 || len(r) < 2 {
			continue
		}
		major, minor, _ := strings.Cut(l[2], ":")
		ma, err1 := strconv.ParseUint(major, 10, 32)
		mi, err2 := strconv.ParseUint(minor, 10, 32)
		if err1 != nil || err2 != nil {
			continue
		}
		all = append(all, mount{major: uint32(ma), minor: uint32(mi), point: unescapeMount(l[4]), fs: r[0], source: r[1]})
	}
	return all
}

// unescapeMount undoes the octal escapes of blank, tab, newline and backslash.
func unescapeMount(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

func (m mount) isFUSE() bool {
	return m.fs == "fuse" || strings.HasPrefix(m.fs, "fuse.") || m.fs == "fuseblk"
}

// mountsOf reads the mounts of each mount namespace that one of the processes is in, once.
func mountsOf(pids []int) []mount {
	seen := map[string]bool{}
	var all []mount
	for _, pid := range pids {
		ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid))
		if err != nil || seen[ns] {
			continue
		}
		if mounts, err := readMounts(fmt.Sprintf("/proc/%d/mountinfo", pid)); err == nil {
			seen[ns] = true
			all = append(all, mounts...)
		}
	}
	return all
}

// loop is a loop device that has a backing file.
type loop struct {
	path  string // /dev/loopN
	file  string // the backing file as its opener named it
	major uint32 // of the file system that the backing file is on
	minor uint32
	dead  bool // what is behind it answers with an error: its server is gone
}

// listLoops are the devices that say what is behind them.
func listLoops() []loop {
	return slices.DeleteFunc(allLoops(), func(l loop) bool { return l.dead })
}

// allLoops are those, and the dead ones.
func allLoops() []loop {
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	var all []loop
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		l := loop{path: "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(f))), file: strings.TrimSpace(string(text))}
		if l.answers() {
			all = append(all, l)
		}
	}
	return all
}

// loopBound is how long a device may take to say what is behind it. Over another lab's frozen FUSE server it takes
// until that goes on; one of a node that was cut answers at once, as its connection is aborted.
const loopBound = 300 * time.Millisecond

// answers asks the device, within the bound. False: not in time.
func (l *loop) answers() bool {
	asked := *l
	answer := make(chan error, 1)
	go func() { answer <- asked.stat() }()
	select {
	case err := <-answer:
		*l = asked
		l.dead = err != nil
		return true
	case <-time.After(loopBound):
		return false
	}
}

func (l *loop) stat() error {
	fd, err := unix.Open(l.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	info, err := unix.IoctlLoopGetStatus64(fd)
	if err != nil {
		return err
	}
	l.major, l.minor = unix.Major(info.Device), unix.Minor(info.Device)
	return nil
}

// detach frees the device; one that is still open frees itself as its last opener closes it.
func (l *loop) detach() error {
	fd, err := unix.Open(l.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open loop device: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.IoctlSetInt(fd, unix.LOOP_CLR_FD, 0); err != nil && !errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("detach %s: %w", l.path, err)
	}
	return nil
}

// loopNumbers are the loop devices that exist, free ones too.
func loopNumbers() map[int]bool {
	all := map[int]bool{}
	dirs, _ := filepath.Glob("/sys/block/loop*")
	for _, dir := range dirs {
		if n, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(dir), "loop")); err == nil {
			all[n] = true
		}
	}
	return all
}

// forgetLoops takes away the free devices that were not there before: each activation makes its own, and one that a
// node left behind as it lost power stays. The kernel refuses what is in use; another lab whose new device goes away
// before it is attached makes the next one.
func forgetLoops(before map[int]bool) {
	control, err := unix.Open("/dev/loop-control", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(control)
	for n := range loopNumbers() {
		if _, err := os.Stat(fmt.Sprintf("/sys/block/loop%d/loop", n)); err != nil && !before[n] {
			_ = unix.IoctlSetInt(control, unix.LOOP_CTL_REMOVE, n)
		}
	}
}

// attachedLoops are the devices that have a backing file now. It asks none of them: see loopBound.
func attachedLoops() map[string]bool {
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	found := map[string]bool{}
	for _, f := range files {
		found["/dev/"+filepath.Base(filepath.Dir(filepath.Dir(f)))] = true
	}
	return found
}

// releaseLoops detaches those of the devices that are over one of these file systems. The file system's number alone does
// not say enough: once it went away the kernel gives its number to the next one, of another node or lab.
func releaseLoops(devices map[string]bool, minors map[uint32]bool) error {
	var errs []error
	for _, l := range listLoops() {
		if devices[l.path] && l.major == 0 && minors[l.minor] {
			errs = append(errs, l.detach())
		}
	}
	return errors.Join(errs...)
}

// releaseDeadLoops detaches the devices over a mapper's image whose FUSE mount is nowhere any more: its path has
// shrunk to the file's own name, and no process's mount namespace has it. Its server is gone, it can only fail.
// A mapper's device frees itself as its last opener goes; this is for what was left all the same.
func releaseDeadLoops() error {
	var ours []loop
	for _, l := range allLoops() {
		if l.file == "/image" && (l.dead || l.major == 0) {
			ours = append(ours, l)
		}
	}
	if len(ours) == 0 {
		return nil
	}
	alive := map[uint32]bool{}
	for _, m := range mountsOf(allProcesses()) {
		if m.major == 0 {
			alive[m.minor] = true
		}
	}
	var errs []error
	for _, l := range ours {
		if l.dead || !alive[l.minor] {
			errs = append(errs, l.detach())
		}
	}
	return errors.Join(errs...)
}

func allProcesses() []int {
	entries, _ := os.ReadDir("/proc")
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}
