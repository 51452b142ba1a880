// Package release takes down what runs on this node from kernel facts and /run records alone: no quorum, no
// daemon, no Ceph, no configuration (I7). The agent, the guard, the operator's CLI and the OCF agents use it.
//
// It says Contained only if the kernel says that no process of the service is left and its link is down, and
// Vacated only if every step down to the storage client's own clean end was seen to succeed. Whatever is not
// known is reported as not done. Every call ends in a bound.
package release

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/keepone-ha/keepone/pkg/core"
)

// DefaultRunDir is where a node's records live; it dies with the node.
const DefaultRunDir = "/run/keepone"

// DefaultCgroupRoot is below which services' cgroups are, unless a node is set up otherwise.
const DefaultCgroupRoot = "/sys/fs/cgroup/keepone"

// ErrName refuses a service name that can't be a file name.
var ErrName = errors.New("not a usable service name")

// Dir is the directory of one service's records.
func Dir(runDir string, service core.ServiceName) string {
	return filepath.Join(runDir, "services", string(service))
}

// FuseDir is where the user space mapper of a service mounts its one file, `image`.
func FuseDir(runDir string, service core.ServiceName) string {
	return filepath.Join(Dir(runDir, service), "fuse")
}

// Instance returns this life's name, "<boot-id>/<random>". Whoever comes first in a life makes it; it is the
// same for everybody until the run directory dies with the node.
func Instance(runDir string) (core.Instance, error) {
	path := filepath.Join(runDir, "instance")
	if instance, err := readInstance(path); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return instance, err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	random := make([]byte, 8)
	if _, err := rand.Read(random); err != nil {
		return "", fmt.Errorf("draw instance: %w", err)
	}
	fresh := strings.TrimSpace(string(boot)) + "/" + hex.EncodeToString(random)
	if err := os.MkdirAll(runDir, 0o755); err != nil {
		return "", fmt.Errorf("make run directory: %w", err)
	}
	if err := writeNew(path, []byte(fresh+"\n")); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("make instance: %w", err)
	}
	return readInstance(path)
}

func readInstance(path string) (core.Instance, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read instance: %w", err)
	}
	instance := strings.TrimSpace(string(text))
	if boot, random, ok := strings.Cut(instance, "/"); !ok || boot == "" || random == "" {
		return "", fmt.Errorf("read instance: %s holds %q, want boot-id/random", path, instance)
	}
	return core.Instance(instance), nil
}

// writeNew makes path with all of its content at once, or fails with fs.ErrExist: a link of a whole file, so
// that nobody ever reads half an instance.
func writeNew(path string, content []byte) error {
	tmp, err := writeTemp(path, content)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp) }()
	return os.Link(tmp, path)
}

// writeWhole replaces path with all of its content at once.
func writeWhole(path string, content []byte) error {
	tmp, err := writeTemp(path, content)
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		_ = os.Remove(tmp)
		return err
	}
	return nil
}

func writeTemp(path string, content []byte) (string, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return "", err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

func checkName(service core.ServiceName) error {
	if service == "" || service[0] == '.' || strings.ContainsAny(string(service), "/\x00\n ") {
		return fmt.Errorf("service %q: %w", service, ErrName)
	}
	return nil
}
