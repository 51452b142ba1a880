package release

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/keepone-ha/keepone/pkg/core"
)

func (h *host) running(runDir string, r Record) (Facts, error) {
	var f Facts
	var errs [4]error
	f.Init, errs[0] = r.Init.Alive()
	f.Populated, errs[1] = h.cgroups.Populated(r.Cgroups.Run)
	f.MapGroup, errs[2] = h.cgroups.Populated(r.Cgroups.Map)
	mounts, err := h.mounts.List()
	for _, m := range mounts {
		f.Mounted = f.Mounted || (m.Path == r.Storage.Mount && m.Path != "")
	}
	if r.Storage.Kind == KindKRBD {
		var devices []string
		want := sought{kind: KindKRBD, pool: r.Storage.Pool, image: r.Storage.Image}
		devices, errs[3] = h.devices.Find(context.Background(), want) // reads sysfs alone: nothing waits
		f.Mapper = len(devices) > 0
	} else {
		f.Mapper, errs[3] = mapperOf(runDir, r).Alive()
	}
	return f, errors.Join(append(errs[:], err)...)
}

func (h *host) leftovers(at Places) []Leftover {
	var found []Leftover
	add := func(service core.ServiceName, kind LeftoverKind, what string) {
		found = append(found, Leftover{service, kind, what})
	}
	records, err := List(at.RunDir)
	if err != nil {
		add("", LeftoverUnknown, err.Error())
	}
	for _, r := range records {
		switch facts, err := h.running(at.RunDir, r); {
		case err != nil:
			add(r.Service, LeftoverUnknown, err.Error())
		case !facts.Idle():
			add(r.Service, LeftoverRecord, fmt.Sprintf("%+v", facts))
		}
	}
	h.leftCgroups(at.CgroupRoot, records, add)
	h.leftMounts(at, add)
	return found
}

type addLeftover func(service core.ServiceName, kind LeftoverKind, what string)

// leftCgroups looks below the root and at every cgroup that a record names.
func (h *host) leftCgroups(root string, records []Record, add addLeftover) {
	groups := map[string]core.ServiceName{}
	entries, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		add("", LeftoverUnknown, err.Error())
	}
	for _, entry := range entries {
		if entry.IsDir() {
			groups[filepath.Join(root, entry.Name())] = core.ServiceName(entry.Name())
		}
	}
	for _, r := range records {
		for _, path := range []string{r.Cgroups.Run, r.Cgroups.Map} {
			if _, known := groups[filepath.Dir(path)]; !known && path != "" {
				groups[path] = r.Service
			}
		}
	}
	if len(groups) == 0 {
		groups[root] = "" // nothing below it: the root itself must be readable, or be known to be absent
	}
	for path, service := range groups {
		populated, err := h.cgroups.Populated(path)
		switch {
		case err != nil:
			add(service, LeftoverUnknown, err.Error())
		case populated:
			add(service, LeftoverCgroup, path)
		}
	}
}

// leftMounts finds volumes, the mappers' own mounts, and the devices below volumes.
func (h *host) leftMounts(at Places, add addLeftover) {
	mounts, err := h.mounts.List()
	if err != nil {
		add("", LeftoverUnknown, err.Error())
	}
	services := filepath.Join(at.RunDir, "services")
	for _, m := range mounts {
		switch {
		case at.Volumes != "" && m.Path != at.Volumes && m.Under(at.Volumes):
			add(firstBelow(m.Path, at.Volumes), LeftoverMount, m.Path)
			if m.Major != 0 {
				add(firstBelow(m.Path, at.Volumes), LeftoverDevice, m.Source)
			}
		case m.Path != services && m.Under(services):
			add(firstBelow(m.Path, services), LeftoverFuse, m.Path)
		}
	}
}

func firstBelow(path, dir string) core.ServiceName {
	name, _, _ := strings.Cut(strings.TrimPrefix(path, strings.TrimSuffix(dir, "/")+"/"), "/")
	return core.ServiceName(name)
}
