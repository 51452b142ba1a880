//go:build lab

package release

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// The lab tests hold the real kernel to what the fakes do: cgroup v2, namespaces, a FUSE file with a loop device and
// ext4 on it. They need root, and clean up behind themselves. The mapper is this program with labMapper set.
const labMapper = "KEEPONE_LAB_MAPPER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(labMapper); dir != "" {
		os.Exit(mapperMain(dir))
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "the lab tests of pkg/release need root")
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// mapperMain serves <backing>/image at the service's FUSE directory until SIGTERM.
func mapperMain(runDir string) int {
	backing := os.Getenv("KEEPONE_LAB_BACKING")
	root, err := fs.NewLoopbackRoot(backing)
	if err != nil {
		return 2
	}
	timeout := time.Hour
	server, err := fs.Mount(FuseDir(runDir, "one"), root, &fs.Options{
		AttrTimeout: &timeout, EntryTimeout: &timeout, MountOptions: fuse.MountOptions{DirectMount: true, FsName: "lab"},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 3
	}
	var st unix.Stat_t
	if err := unix.Stat(FuseDir(runDir, "one"), &st); err != nil {
		return 4
	}
	if err := SaveMapper(runDir, "one", Mapper{Connection: unix.Minor(st.Dev)}); err != nil {
		return 5
	}
	fmt.Println("ready")
	term := make(chan os.Signal, 1)
	signal.Notify(term, unix.SIGTERM)
	<-term
	if err := server.Unmount(); err != nil {
		return 6
	}
	if err := SaveMapperExit(runDir, "one", MapperExit{Flushed: true, Unlocked: true}); err != nil {
		return 7
	}
	return 0
}

// lab is one service with real parts.
type lab struct {
	t      *testing.T
	runDir string
	r      Record
	mapper *exec.Cmd
}

func cgroup2(t *testing.T) string {
	t.Helper()
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			return dir
		}
	}
	t.Fatal("no cgroup v2 is mounted")
	return ""
}

func newLab(t *testing.T) *lab {
	root := filepath.Join(cgroup2(t), fmt.Sprintf("keepone-release-%d", os.Getpid()), "one")
	l := &lab{t: t, runDir: t.TempDir()}
	l.r = Record{
		Service: "one", Epoch: 1, Attempt: 1,
		Cgroups: Cgroups{Run: filepath.Join(root, "run"), Map: filepath.Join(root, "map")},
		Storage: Storage{Kind: KindLoop, Mount: filepath.Join(t.TempDir(), "volume"), FuseDir: FuseDir(l.runDir, "one")},
	}
	for _, dir := range []string{l.r.Cgroups.Run, l.r.Cgroups.Map, l.r.Storage.Mount, l.r.Storage.FuseDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(l.cleanUp)
	l.save()
	return l
}

func (l *lab) save() {
	l.t.Helper()
	if err := l.r.Save(l.runDir); err != nil {
		l.t.Fatal(err)
	}
}

// cleanUp needs no more than Stop does, and sees that nothing is left.
func (l *lab) cleanUp() {
	_ = Stop(l.t.Context(), l.runDir, l.r, Options{Sync: time.Second, Unmount: time.Second, Unmap: time.Second, Mapper: time.Second})
	if l.mapper != nil {
		_ = l.mapper.Wait()
	}
	root := filepath.Dir(filepath.Dir(l.r.Cgroups.Run))
	var dirs []string
	_ = filepath.WalkDir(root, func(dir string, d os.DirEntry, _ error) error {
		if d != nil && d.IsDir() {
			dirs = append(dirs, dir)
		}
		return nil
	})
	for _, dir := range slices.Backward(dirs) { // deepest first
		_ = unix.Rmdir(dir)
	}
	if left := Leftovers(Places{RunDir: l.runDir, CgroupRoot: root, Volumes: filepath.Dir(l.r.Storage.Mount)}); len(left) > 0 {
		l.t.Errorf("left behind: %+v", left)
	}
}

// start runs a program in a cgroup.
func (l *lab) start(cgroup string, env []string, argv ...string) *exec.Cmd {
	l.t.Helper()
	dir, err := os.Open(cgroup)
	if err != nil {
		l.t.Fatal(err)
	}
	defer func() { _ = dir.Close() }()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env, cmd.Stderr = append(os.Environ(), env...), os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	out, err := cmd.StdoutPipe()
	if err != nil {
		l.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || !strings.Contains(line, "ready") {
		l.t.Fatalf("%v said %q, %v", argv, line, err)
	}
	return cmd
}

// container starts a tree of processes that ignores what can be ignored, one of them in a nested cgroup.
func (l *lab) container() *exec.Cmd {
	l.t.Helper()
	nested := filepath.Join(l.r.Cgroups.Run, "lxc.payload", "deep")
	if err := os.MkdirAll(nested, 0o755); err != nil {
		l.t.Fatal(err)
	}
	deep := l.start(nested, nil, "sh", "-c", "trap '' TERM HUP INT; echo ready; while :; do sleep 1; done")
	init := l.start(l.r.Cgroups.Run, nil, "sh", "-c", "trap 'exit 0' USR1; echo ready; while :; do sleep 0.05; done")
	l.t.Cleanup(func() { _ = deep.Wait(); _ = init.Wait() })
	var err error
	if l.r.Init, err = ProcessOf(init.Process.Pid); err != nil {
		l.t.Fatal(err)
	}
	l.r.HaltSignal = int(unix.SIGUSR1)
	l.save()
	return init
}

// volume maps and mounts a small ext4.
func (l *lab) volume() {
	l.t.Helper()
	backing := l.t.TempDir()
	image := filepath.Join(backing, "image")
	f, err := os.Create(image)
	if err == nil {
		err = errors.Join(f.Truncate(32<<20), f.Close())
	}
	if err != nil {
		l.t.Fatal(err)
	}
	l.run("mkfs.ext4", "-q", image)
	l.mapper = l.start(l.r.Cgroups.Map, []string{labMapper + "=" + l.runDir, "KEEPONE_LAB_BACKING=" + backing}, os.Args[0])
	l.r.Storage.Device = strings.TrimSpace(l.run("losetup", "--show", "-f", filepath.Join(l.r.Storage.FuseDir, "image")))
	l.run("mount", l.r.Storage.Device, l.r.Storage.Mount)
	l.save()
}

func (l *lab) run(argv ...string) string {
	l.t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		l.t.Fatalf("%v: %v: %s", argv, err, out)
	}
	return string(out)
}

func (l *lab) write() {
	l.t.Helper()
	if err := os.WriteFile(filepath.Join(l.r.Storage.Mount, "file"), make([]byte, 1<<20), 0o644); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) stop(o Options) Result {
	l.t.Helper()
	started := time.Now()
	res := Stop(l.t.Context(), l.runDir, l.r, o)
	l.t.Logf("%v contained %t vacated %t %q %v", time.Since(started), res.Contained, res.Vacated, res.Reasons, res.Steps)
	if took := time.Since(started); took > o.Bound() {
		l.t.Errorf("stop took %v, its bound is %v", took, o.Bound())
	}
	return res
}

// quick bounds keep the lab short.
func quick() Options {
	return Options{Graceful: 2 * time.Second, Sync: 2 * time.Second, Unmount: 2 * time.Second, Unmap: 2 * time.Second, Mapper: 2 * time.Second}
}

func TestLabStopVacates(t *testing.T) {
	l := newLab(t)
	l.volume()
	l.container()
	l.write()
	if f, err := Running(l.runDir, l.r); err != nil || f != (Facts{true, true, true, true, true}) {
		t.Errorf("facts %+v, %v", f, err)
	}
	if res := l.stop(quick()); !res.Contained || !res.Vacated {
		t.Error("not vacated")
	}
	if f, err := Running(l.runDir, l.r); err != nil || !f.Idle() {
		t.Errorf("facts %+v, %v", f, err)
	}
}

// I7: a stopped starter and a stopped container die; nothing of them runs when contained is said.
func TestLabStopsPausedProcesses(t *testing.T) {
	l := newLab(t)
	init := l.container()
	if err := unix.Kill(init.Process.Pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	res := StopContainer(t.Context(), l.runDir, l.r, Options{})
	if populated, err := (cgroupFS{proc: "/proc"}).Populated(l.r.Cgroups.Run); !res.Contained || populated || err != nil {
		t.Errorf("contained %t %q, populated %t %v", res.Contained, res.Reasons, populated, err)
	}
}

// I7: with the mapper stopped as if Ceph were away, stop ends in its bound and never says vacated, and the node is
// clean afterwards.
func TestLabMapperHangs(t *testing.T) {
	l := newLab(t)
	l.volume()
	l.container()
	l.write()
	if err := unix.Kill(l.mapper.Process.Pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if res := l.stop(quick()); !res.Contained || res.Vacated {
		t.Errorf("got %+v", res)
	}
	if f, err := Running(l.runDir, l.r); err != nil || !f.Idle() {
		t.Errorf("still here: %+v, %v", f, err)
	}
}

func TestLabMapperKilled(t *testing.T) {
	l := newLab(t)
	l.volume()
	l.write()
	if err := l.mapper.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if res := l.stop(quick()); !res.Contained || res.Vacated {
		t.Errorf("got %+v", res)
	}
}

// A process outside the cgroup that sits in the volume keeps it from being vacated.
func TestLabBusyMount(t *testing.T) {
	l := newLab(t)
	l.volume()
	f, err := os.Open(l.r.Storage.Mount)
	if err != nil {
		t.Fatal(err)
	}
	res := l.stop(quick())
	_ = f.Close()
	if !res.Contained || res.Vacated {
		t.Errorf("got %+v", res)
	}
}

// The starter died before it recorded the device: the mount and mapper.json tell it.
func TestLabHalfRecord(t *testing.T) {
	l := newLab(t)
	l.volume()
	l.r.Storage.Device = ""
	l.save()
	if res := l.stop(quick()); !res.Vacated {
		t.Errorf("got %+v", res)
	}
}

func TestLabLinkDown(t *testing.T) {
	if os.Getenv("KEEPONE_LAB_NETNS") == "" {
		cmd := exec.Command("unshare", "--net", os.Args[0], "-test.run", "^TestLabLinkDown$", "-test.v")
		cmd.Env = append(os.Environ(), "KEEPONE_LAB_NETNS=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return
	}
	l := newLab(t)
	l.run("ip", "link", "add", "ko-lab0", "type", "veth", "peer", "name", "ko-lab1")
	l.run("ip", "link", "set", "ko-lab0", "up")
	l.r.Network.Links = []string{"ko-lab0", "ko-missing"}
	if up, err := (netLinks{}).Up("ko-lab0"); !up || err != nil {
		t.Fatalf("up %t %v", up, err)
	}
	if c := Contain(t.Context(), l.runDir, l.r, "test"); !c.Done {
		t.Errorf("not contained: %q", c.Reasons)
	}
	if up, err := (netLinks{}).Up("ko-lab0"); up || err != nil {
		t.Errorf("up %t %v", up, err)
	}
}

// TestLabCarries: what lies on top at the mount point must be the volume, over its own image.
func TestLabCarries(t *testing.T) {
	l := newLab(t)
	l.volume()
	if err := Carries(t.Context(), l.runDir, l.r); err != nil {
		t.Errorf("the volume itself: %v", err)
	}
	l.run("mount", "-t", "tmpfs", "none", l.r.Storage.Mount)
	if err := Carries(t.Context(), l.runDir, l.r); err == nil || !strings.Contains(err.Error(), "correct the device") {
		t.Errorf("another file system over it: %v", err)
	}
	l.run("umount", l.r.Storage.Mount)
	other := l.r
	other.Storage.FuseDir = t.TempDir()
	if err := Carries(t.Context(), t.TempDir(), other); err == nil || !strings.Contains(err.Error(), "not over the image") {
		t.Errorf("a device that became another image's: %v", err)
	}
}

// TestLabDetachSparesAnothers: a device's number may be another volume's by the time that it is to be detached.
func TestLabDetachSparesAnothers(t *testing.T) {
	l := newLab(t)
	l.volume()
	l.run("umount", l.r.Storage.Mount)
	devices := system().devices
	ours := (&teardown{host: system(), runDir: l.runDir, r: l.r}).want()
	attached := func() bool {
		t.Helper()
		found, err := devices.Find(t.Context(), ours)
		if err != nil {
			t.Fatal(err)
		}
		return slices.Contains(found, l.r.Storage.Device)
	}
	wrong := ours
	wrong.connection++
	nameless := ours
	nameless.connection, nameless.file = 0, "/elsewhere/image"
	for name, want := range map[string]sought{"another connection": wrong, "another file": nameless} {
		if err := devices.Detach(t.Context(), l.r.Storage.Device, want); err != nil || !attached() {
			t.Errorf("%s: detached, %v", name, err)
		}
	}
	if err := devices.Detach(t.Context(), l.r.Storage.Device, ours); err != nil || attached() {
		t.Errorf("its own is still attached, %v", err)
	}
}
