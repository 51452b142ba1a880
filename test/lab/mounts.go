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

// loop is an open loop device. While it is open its number can't become another's, in this lab or in one beside it: what
// was found of it stays true until it is closed.
type loop struct {
	path  string // /dev/loopN
	file  string // the backing file as its opener named it
	fd    int
	major uint32 // of the file system that the backing file is on
	minor uint32
	dead  bool // what is behind it answers with an error: its server is gone
}

// loopBound is how long a device may take to say what is behind it. Over another lab's frozen FUSE server it takes
// until that goes on; one of a node that was cut answers at once, as its connection is aborted.
const loopBound = 300 * time.Millisecond

// eachLoop shows the attached devices that answer, each while it is open.
func eachLoop(look func(loop) error) error {
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	var errs []error
	for _, f := range files {
		path := "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(f)))
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue // it goes away right now
		}
		text, err := os.ReadFile(f)
		l := loop{path: path, file: strings.TrimSpace(string(text)), fd: fd}
		if err == nil && l.answers() {
			errs = append(errs, look(l))
		}
		_ = unix.Close(fd)
	}
	return errors.Join(errs...)
}

// answers asks the device, within the bound. False: not in time, or attached no more.
func (l *loop) answers() bool {
	type answer struct {
		info *unix.LoopInfo64
		err  error
	}
	fd, err := unix.FcntlInt(uintptr(l.fd), unix.F_DUPFD_CLOEXEC, 0) // of the question's own: it may outlast the bound
	if err != nil {
		return false
	}
	answered := make(chan answer, 1)
	go func() {
		info, err := unix.IoctlLoopGetStatus64(fd)
		_ = unix.Close(fd)
		answered <- answer{info, err}
	}()
	select {
	case a := <-answered:
		if errors.Is(a.err, unix.ENXIO) {
			return false
		}
		if l.dead = a.err != nil; !l.dead {
			l.major, l.minor = unix.Major(a.info.Device), unix.Minor(a.info.Device)
		}
		return true
	case <-time.After(loopBound):
		return false
	}
}

// detach frees the device; one that is still open frees itself as its last opener closes it.
func (l loop) detach() error {
	if err := unix.IoctlSetInt(l.fd, unix.LOOP_CLR_FD, 0); err != nil && !errors.Is(err, unix.ENXIO) {
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

// releaseLoops detaches the devices over these file systems, of which the last user is gone. The file system's number
// alone does not say enough: the kernel gives it to the next one, of another node or lab, once it is free.
func releaseLoops(minors map[uint32]bool) error {
	return releaseUnserved(func(l loop) bool { return minors[l.minor] })
}

// releaseDeadLoops detaches the devices over a mapper's image whose FUSE mount is nowhere any more: its path has
// shrunk to the file's own name, and no process's mount namespace has it. Its server is gone, it can only fail.
// A mapper's device frees itself as its last opener goes; this is for what was left all the same.
func releaseDeadLoops() error {
	return releaseUnserved(func(l loop) bool { return l.file == "/image" })
}

// releaseUnserved detaches those that are chosen and whose server is gone.
func releaseUnserved(choose func(loop) bool) error {
	return eachLoop(func(l loop) error {
		if !choose(l) || (!l.dead && (l.major != 0 || mountedAnywhere(l.minor))) {
			return nil
		}
		return l.detach()
	})
}

// mountedAnywhere looks for the file system without a device in every process's mount namespace.
func mountedAnywhere(minor uint32) bool {
	return slices.ContainsFunc(mountsOf(allProcesses()), func(m mount) bool { return m.major == 0 && m.minor == minor })
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
