package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// tools names the programs that the lab runs and the Debian package that brings each.
var tools = []struct{ name, pkg string }{
	{"ceph", "ceph-common"},
	{"rbd", "ceph-common"},
	{"ceph-mon", "ceph-mon"},
	{"ceph-osd", "ceph-osd"},
	{"monmaptool", "ceph-base"},
	{"ipmi_sim", "openipmi"},
	{"ipmitool", "ipmitool"},
	{"lxc-start", "lxc"},
	{"nft", "nftables"},
	{"nsenter", "util-linux"},
	{"ip", "iproute2"},
	{"mkfs.ext4", "e2fsprogs"},
	{"busybox", "busybox-static"},
	{"corosync", "corosync"},
	{"pacemakerd", "pacemaker"},
	{"crm_mon", "pacemaker-cli-utils"},
	{"fence_ipmilan", "fence-agents"},
	{"modprobe", "kmod"},
	{"rbd-fuse", "rbd-fuse"},
}

// ErrUnfit is wrapped by what Require returns where a lab can't run.
var ErrUnfit = errors.New("the lab can't run here")

// Require says in one error everything that this machine lacks for a lab, and how to get it.
func Require() error {
	var lacks []string
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: it needs root (namespaces, mounts and links are made); run it as root", ErrUnfit)
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		lacks = append(lacks, "/dev/fuse is missing: modprobe fuse, or run the container with --device /dev/fuse")
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		lacks = append(lacks, "/dev/loop-control is missing: modprobe loop")
	}
	for _, ns := range []string{"pid", "mnt", "net", "uts", "ipc", "cgroup"} {
		if _, err := os.Stat("/proc/self/ns/" + ns); err != nil {
			lacks = append(lacks, "the kernel has no "+ns+" namespaces")
		}
	}
	lacks = append(lacks, lackingFileSystems()...)
	if _, err := cgroupRoot(); err != nil {
		lacks = append(lacks, err.Error())
	}
	return errors.Join(unfit(append(lacks, lackingTools()...)))
}

func unfit(lacks []string) error {
	if len(lacks) == 0 {
		return nil
	}
	return fmt.Errorf("%w:\n  %s", ErrUnfit, strings.Join(lacks, "\n  "))
}

func lackingFileSystems() []string {
	known, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return []string{"/proc/filesystems can't be read: " + err.Error()}
	}
	var lacks []string
	for _, fs := range []string{"overlay", "fuse", "fusectl", "ext4", "tmpfs"} {
		if !strings.Contains(string(known), "\t"+fs+"\n") && exec.Command("modprobe", fs).Run() != nil {
			lacks = append(lacks, "the kernel has no file system "+fs+": modprobe "+fs)
		}
	}
	return lacks
}

func lackingTools() []string {
	var lacks, pkgs []string
	for _, t := range tools {
		if _, err := exec.LookPath(t.name); err == nil {
			continue
		}
		lacks = append(lacks, "the program "+t.name+" is missing")
		if !slices.Contains(pkgs, t.pkg) {
			pkgs = append(pkgs, t.pkg)
		}
	}
	if len(pkgs) > 0 {
		lacks = append(lacks, "get them with: apt-get install --no-install-recommends "+strings.Join(pkgs, " "))
	}
	return lacks
}
