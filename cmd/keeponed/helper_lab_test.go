//go:build lab

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/drive/lxc/lxctest"
	"github.com/keepone-ha/keepone/pkg/drive/nstest"
	"github.com/keepone-ha/keepone/pkg/drive/rbd/cephtest"
	"github.com/keepone-ha/keepone/pkg/release"
	"github.com/keepone-ha/keepone/pkg/worker"
)

var (
	cluster *cephtest.Cluster
	source  string // a container's directory
)

// TestMain is also the binary whose helpers the tests start.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "helper" {
		main()
	}
	os.Exit(nstest.Main(m, setUp))
}

func setUp() (func(), error) {
	dir, err := os.MkdirTemp("", "keepone-helper-")
	if err != nil {
		return nil, err
	}
	source = filepath.Join(dir, "container")
	if err := lxctest.Make(source); err != nil {
		return nil, err
	}
	if cluster, err = cephtest.Start(filepath.Join(dir, "ceph")); err != nil {
		return nil, err
	}
	return func() { _ = cluster.Stop(); _ = os.RemoveAll(dir) }, nil
}

// node is one node's directories, with a guard that gives leases or not.
type node struct {
	run, volumes, cgroup string
	leases               atomic.Bool
}

var nodes atomic.Int64

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{run: t.TempDir(), volumes: t.TempDir(), cgroup: fmt.Sprintf("%s/node%d", nstest.CgroupRoot, nodes.Add(1))}
	n.leases.Store(true)
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(n.run, "guard.sock"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	go n.guard(socket)
	t.Cleanup(func() { _ = socket.Close() })
	return n
}

func (n *node) guard(socket *net.UnixConn) {
	buf := make([]byte, 512)
	for {
		size, from, err := socket.ReadFromUnix(buf)
		if err != nil {
			return
		}
		id, _, _ := strings.Cut(string(buf[:size]), " ")
		answer := id + " none"
		if n.leases.Load() {
			answer = fmt.Sprintf("%s until %d", id, boottime.Now().Add(time.Minute))
		}
		_, _ = socket.WriteToUnix([]byte(answer), from)
	}
}

func (n *node) plan(spec core.VolumeSpec, epoch core.Epoch) worker.Plan {
	const name = "svc"
	return worker.Plan{
		Run: n.run, Service: name, Epoch: epoch, Instance: "boot/1", Attempt: 1,
		Volume: worker.Volume{
			Ceph: cluster.Client("ha"), Spec: spec, Mount: filepath.Join(n.volumes, name), RunDir: release.Dir(n.run, name),
		},
		Takeover:  worker.Takeover{Epoch: epoch},
		Container: worker.Container{Name: name},
		Cgroup:    filepath.Join(n.cgroup, name, "run"), MapCgroup: filepath.Join(n.cgroup, name, "map"),
		Limit: 20 * time.Second, StopLimit: time.Second,
	}
}

func helpers(t *testing.T) worker.Helpers {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return worker.Helpers{Binary: self, Log: os.Stderr}
}

var images atomic.Int64

func spec() core.VolumeSpec {
	return core.VolumeSpec{Pool: cephtest.Pool, Image: fmt.Sprintf("v%d", images.Add(1)), FS: "ext4", Mapper: "librbd"}
}

// newVolume makes a volume as the operator does.
func newVolume(t *testing.T) core.VolumeSpec {
	t.Helper()
	v := spec()
	if err := makeVolume(t, v, 64<<20, source); err != nil {
		t.Fatal(err)
	}
	return v
}

func makeVolume(t *testing.T, v core.VolumeSpec, size uint64, from string) error {
	t.Helper()
	job := worker.VolumeJob{
		Volume: worker.Volume{Ceph: cluster.Client("ha"), Spec: v, RunDir: t.TempDir()},
		Create: &worker.CreateVolume{Size: size, From: from}, Limit: time.Minute,
	}
	return helpers(t).Volume(t.Context(), job, func(p worker.VolumeProgress) { t.Log("volume:", p.Step) })
}

// activation is how one ended.
type activation struct {
	steps   map[worker.Step]worker.Progress
	failure *worker.Failure
}

// activate runs the helper to its end. each, if not nil, sees each step before the helper may go on.
func activateHere(t *testing.T, plan worker.Plan, each func(worker.Progress)) activation {
	t.Helper()
	helper, err := helpers(t).Start(t.Context(), plan)
	if err != nil {
		t.Fatal(err)
	}
	done := activation{steps: map[worker.Step]worker.Progress{}}
	for p := range helper.Progress() {
		done.steps[p.Step] = p
		if p.Failure != nil {
			done.failure = p.Failure
		}
		if each != nil {
			each(p)
		}
		if p.Step == worker.StepMapped {
			if err := helper.Go(); err != nil {
				t.Error(err)
			}
		}
	}
	return done
}

func mustActivate(t *testing.T, plan worker.Plan) activation {
	t.Helper()
	done := activateHere(t, plan, nil)
	if done.failure != nil || done.steps[worker.StepStarted].InitPID == 0 {
		log, _ := os.ReadFile(filepath.Join(plan.Volume.RunDir, "mapper.log"))
		t.Fatalf("activation: %+v %+v; %s", done.failure, done.steps, log)
	}
	return done
}

// mustVacate stops what runs and finds that nothing is left.
func mustVacate(t *testing.T, n *node) {
	t.Helper()
	rec, err := release.Load(n.run, "svc")
	if err != nil {
		t.Fatal(err)
	}
	result := release.Stop(context.Background(), n.run, rec, release.Options{Reason: "test", Graceful: time.Second}) // also as a clean-up
	if !result.Vacated {
		t.Fatalf("stop: %+v", result)
	}
	wantNothing(t, n)
}

func wantNothing(t *testing.T, n *node) {
	t.Helper()
	left := release.Leftovers(release.Places{RunDir: n.run, CgroupRoot: n.cgroup, Volumes: n.volumes})
	if len(left) > 0 {
		t.Errorf("left behind: %+v", left)
	}
}

// digest reads all of an image, as nobody's client.
func digest(t *testing.T, v core.VolumeSpec) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "export")
	if out, err := cluster.Run(t.Context(), "rbd", "export", "--no-progress", v.Pool+"/"+v.Image, path); err != nil {
		t.Fatalf("export: %v %s", err, out)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

func signalCgroup(t *testing.T, path string, sig unix.Signal) {
	t.Helper()
	err := filepath.WalkDir(path, func(dir string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			return err
		}
		for _, field := range strings.Fields(string(text)) {
			var pid int
			if _, err := fmt.Sscan(field, &pid); err == nil && pid > 1 {
				if err := unix.Kill(pid, sig); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func control(t *testing.T, user string) *worker.Control {
	t.Helper()
	c := worker.NewControl(helpers(t), cluster.Client(user))
	t.Cleanup(c.Close)
	return c
}

func request(t *testing.T, c *worker.Control, r worker.Request) (worker.Response, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	return c.Do(ctx, r)
}
