#!/usr/bin/env bash
# Installs what build, demo and test need from Debian, if it is not there.
set -euo pipefail
packages=(
	ceph-common ceph-mon ceph-osd librados-dev librbd-dev # real Ceph, and what go-ceph binds
	lxc lxc-dev pkg-config gcc libc6-dev              # real LXC, and what go-lxc binds
	openipmi ipmitool                                     # ipmi_sim, and a second opinion on it
	libxml2-utils resource-agents strace                  # xmllint, ocf-tester and a count of forks, for the resource agents
	busybox-static e2fsprogs iproute2 nftables xfsprogs   # containers, file systems and networks of the lab
	corosync pacemaker pacemaker-cli-utils crmsh pcs      # the stock stack on the lab's nodes
	resource-agents fence-agents kmod rbd-fuse            # its agents, and its block device without krbd
)
missing=()
for package in "${packages[@]}"; do
	dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -ne 0 ]; then
	echo "missing Debian packages: ${missing[*]}" >&2
	echo "run as root, or: apt-get install --no-install-recommends ${missing[*]}" >&2
	exit 1
fi
echo "installing from Debian: ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
# policy-rc.d keeps the packages' own services from starting: the lab starts its own.
made=
if [ ! -e /usr/sbin/policy-rc.d ]; then
	printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
	chmod 755 /usr/sbin/policy-rc.d
	made=1
fi
trap 'rm -f "$log"; [ -z "$made" ] || rm -f /usr/sbin/policy-rc.d' EXIT
if ! { apt-get update -q && apt-get install -q -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
	tail -20 "$log" >&2
	echo "apt-get could not install: ${missing[*]}" >&2
	exit 1
fi
