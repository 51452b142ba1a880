#!/usr/bin/env bash
# Holds the package to what a user of Debian expects, in a root of its own: test/deb.sh DEB NEWER_DEB. Lintian finds no error;
# installing enables and starts nothing; an upgrade keeps what was edited; a purge leaves nothing behind.
set -euo pipefail
deb=$(realpath "$1") newer=$(realpath "$2")
for tool in mmdebstrap lintian; do
	command -v "$tool" >/dev/null || { echo "test/deb.sh needs $tool: apt-get install --no-install-recommends $tool" >&2; exit 1; }
done
lintian --allow-root --fail-on error "$deb"

root=$(mktemp -d)
cleanup() { rm -rf --one-file-system "$root"; }
trap cleanup EXIT
trap 'exit 130' INT TERM
sources=()
for file in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources; do [ -s "$file" ] && sources+=("$file"); done
fail() { echo "deb: $*" >&2; exit 1; }
within() { env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive chroot "$root" "$@"; }
installed() { within dpkg-query -W -f '${Version}' keepone; }
# What dpkg knows of and what the package's scripts made, apart from dpkg's own books.
files() { (cd "$root" && find . -xdev \( -path ./var/lib/dpkg -o -path ./var/log -o -path ./var/cache -o -path ./tmp \) -prune -o -print | sort); }
enabled() { find "$root/etc/systemd/system" -name 'keepone*'; }

# Its dependencies come from Debian, as apt resolves them.
mkdir "$root/packages"
cp "$deb" "$newer" "$root/packages/"
depends=$(dpkg-deb -f "$deb" Depends | sed -E 's/ \([^)]*\)//g; s/ \| [^,]*//g; s/, /,/g')
mmdebstrap --quiet --variant=apt --mode=root --skip=check/empty --include="$depends,systemd,systemd-sysv" \
	--aptopt='Apt::Install-Recommends "false"' --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/locale/*' \
	"$(. /etc/os-release; echo "$VERSION_CODENAME")" "$root" "${sources[@]}"
before=$(files)

within dpkg -i "/packages/$(basename "$deb")" >/dev/null
for path in usr/sbin/{keeponed,keepone,keepone-guard,fence_keepone} usr/lib/ocf/resource.d/keepone/{rbd,container,controller} \
	lib/systemd/system/{keeponed,keepone-guard,keepone-shutdown}.service etc/default/keepone usr/lib/sysusers.d/keepone.conf \
	usr/share/bash-completion/completions/keepone; do
	[ -e "$root/$path" ] || fail "/$path is missing"
done
within getent group keepone >/dev/null || fail "there is no group keepone"
[ -z "$(enabled)" ] || fail "installing enabled $(enabled)"
for program in "keeponed --version" "keepone --version" "fence_keepone -o metadata" "/usr/lib/ocf/resource.d/keepone/rbd meta-data"; do
	within $program >/dev/null || fail "$program does not run"
done

# Upgrade: what an administrator chose stays.
within systemctl enable keeponed.service >/dev/null 2>&1 || fail "keeponed.service can't be enabled"
echo 'KEEPONED_OPTS="--node-file /etc/keepone/node.toml"' >"$root/etc/default/keepone"
mkdir -p "$root/etc/keepone" "$root/var/lib/keepone"
echo 'name = "n1"' >"$root/etc/keepone/node.toml"
edited=$(cat "$root/etc/default/keepone")
within dpkg -i "/packages/$(basename "$newer")" >/dev/null
[ "$(installed)" != "$(dpkg-deb -f "$deb" Version)" ] || fail "still version $(installed) after the upgrade"
within keepone --version | grep -q "$(installed)" || fail "the program is not of version $(installed)"
[ "$(cat "$root/etc/default/keepone")" = "$edited" ] || fail "the upgrade changed /etc/default/keepone"
[ -e "$root/etc/keepone/node.toml" ] || fail "the upgrade removed the node file"
[ "$(enabled | wc -l)" = 1 ] || fail "after the upgrade this is enabled: $(enabled)"

within dpkg -r keepone >/dev/null
[ -e "$root/etc/keepone/node.toml" ] && [ -e "$root/etc/default/keepone" ] || fail "removing the package removed its configuration"
[ ! -e "$root/usr/sbin/keeponed" ] || fail "removing left the daemon"
within dpkg -P keepone >/dev/null
left=$(diff <(echo "$before") <(files) | grep '^>' | grep -vE '^> \./etc/(group|gshadow)-?$' || true)
[ -z "$left" ] || fail "a purge leaves: $left"
echo "deb: $(basename "$deb"): installed, upgraded to $(basename "$newer"), removed and purged"
