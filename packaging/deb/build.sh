#!/usr/bin/env bash
# Builds build/keepone_VERSION_ARCH.deb from what is checked out: build.sh VERSION CEPH_TAG COMMIT. The same commit, toolchain and
# version give the same bytes.
set -euo pipefail
cd "$(dirname "$0")/../.."
version=$1 tag=$2 commit=$3
for tool in dh dpkg-shlibdeps; do
	command -v "$tool" >/dev/null || { echo "make deb needs Debian's debhelper: apt-get install --no-install-recommends debhelper" >&2; exit 1; }
done
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct 2>/dev/null || dpkg-parsechangelog -l packaging/deb/changelog -S Timestamp)}"
export SOURCE_DATE_EPOCH LC_ALL=C.UTF-8 TZ=UTC0
date=$(date -d "@$SOURCE_DATE_EPOCH" +%F)
work=$PWD/build/deb/keepone-$version
rm -rf "$work"
root=$work/root
sbin=$root/usr/sbin ocf=$root/usr/lib/ocf/resource.d/keepone
mkdir -p "$sbin" "$ocf" "$work/pages" "$root"/usr/share/{bash-completion/completions,zsh/vendor-completions,fish/vendor_completions.d,doc/keepone/examples}

module=github.com/keepone-ha/keepone/pkg/version
build() { go build -trimpath -buildvcs=false -tags "$1" -ldflags "-s -w -buildid= -X $module.Version=$version -X $module.Commit=$commit" -o "$2" "${@:3}"; }
CGO_ENABLED=1 CGO_CFLAGS="-g0 -O2 -ffile-prefix-map=$PWD=." CGO_LDFLAGS="-Wl,-z,relro,-z,now" build "$tag" "$sbin/" ./cmd/keeponed
export CGO_ENABLED=0
build "$tag" "$sbin/" ./cmd/keepone ./cmd/keepone-guard ./fencing/fence_keepone
build "$tag" "$ocf/" ./resource-agents/rbd ./resource-agents/container ./resource-agents/controller

# Pages and completions come from the commands' own definitions.
pages=$work/pages
build pages "$work/write-pages" ./cmd/keepone
"$work/write-pages" "$date" "$pages"
for agent in rbd container controller; do "$ocf/$agent" meta-data >"$work/ocf_keepone_$agent.7.xml"; done
"$sbin/fence_keepone" -o metadata >"$work/fence_keepone.8.xml"
go run ./packaging/man "$date" "$version" "$pages" packaging/man/*.md "$work"/*.xml
mv "$pages/keepone.bash" "$root/usr/share/bash-completion/completions/keepone"
mv "$pages/_keepone" "$root/usr/share/zsh/vendor-completions/"
mv "$pages/keepone.fish" "$root/usr/share/fish/vendor_completions.d/"
cp docs/operations.md docs/safety.md docs/pacemaker.md docs/agents.md docs/fencing-agent.md "$root/usr/share/doc/keepone/"
cp packaging/deb/cluster.toml "$root/usr/share/doc/keepone/examples/"

debian=$work/debian
mkdir -p "$debian"
cp packaging/deb/{control,copyright,rules,keepone.*} "$debian/"
cp packaging/deb/default "$debian/keepone.default"
cp packaging/systemd/keepone.sysusers "$debian/keepone.sysusers"
# One package has three units: each is named after itself.
for unit in keepone-guard keeponed keepone-shutdown; do
	install -D -m 644 "packaging/systemd/$unit.service" "$root/lib/systemd/system/$unit.service"
done
(cd "$work" && ls pages/*.[78]) >"$debian/keepone.manpages"
if [ "$version" != "$(dpkg-parsechangelog -l packaging/deb/changelog -S Version)" ]; then
	printf 'keepone (%s) unstable; urgency=medium\n\n  * Built from %s.\n\n -- keepone maintainers <maintainers@keepone.invalid>  %s\n\n' \
		"$version" "$commit" "$(date -R -d "@$SOURCE_DATE_EPOCH")" >"$debian/changelog"
fi
cat packaging/deb/changelog >>"$debian/changelog"
mkdir -p "$debian/source" && echo "3.0 (native)" >"$debian/source/format"
(cd "$work" && dpkg-buildpackage --build=binary --no-sign --no-check-builddeps --no-pre-clean) >"$work/log" 2>&1 || { tail -30 "$work/log" >&2; exit 1; }
deb=$(cd "$work/.." && ls keepone_"$version"_*.deb)
mv "$work/../$deb" build/
rm -rf "$work" build/deb/keepone_"$version"_*.changes build/deb/keepone_"$version"_*.buildinfo
echo "build/$deb"
