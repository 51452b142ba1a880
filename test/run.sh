#!/usr/bin/env bash
# Runs every part of the tests and prints each one's share; with an argument, that lab case alone.
set -uo pipefail
cd "$(dirname "$0")/.."
mkdir -p build
if [ -n "${1:-}" ]; then
	make --no-print-directory build && exec build/keepone-lab test -bin build -json build/test.json -case "$1"
	exit 1
fi
rm -f build/test.json
shares=()
failed=()
part() { # name, command
	local name=$1 began=$SECONDS
	shift
	echo "== $name"
	"$@" || failed+=("$name")
	shares+=("$name $((SECONDS - began)) s")
}
lint_cgo() { # the packages that bind Ceph and LXC
	local tag
	tag=$(make -s ceph-tag)
	go vet -tags "$tag" ./pkg/drive/rbd/... ./pkg/drive/lxc/... ./cmd/keeponed/... &&
		go tool -modfile=tools/go.mod staticcheck -tags "$tag,lab" ./pkg/drive/rbd/... ./pkg/drive/lxc/... ./cmd/keeponed/... &&
		go test -tags "$tag" ./pkg/drive/rbd/... ./pkg/drive/lxc/... ./cmd/keeponed/...
}
drivers() { # each driver against the real thing
	local tag
	tag=$(make -s ceph-tag)
	go test -tags "$tag,lab" -count=1 -p 1 -timeout 300s ./pkg/replica/... ./pkg/release/... ./pkg/guard/... ./pkg/fence/... ./pkg/drive/... ./pkg/setup/... ./cmd/keeponed/...
}
simulate() { # fixed seeds count; fresh ones, within a slot, only tell what they find
	local jobs
	jobs=$(nproc)
	CGO_ENABLED=0 go build -o build/sim ./test/sim || return 1
	build/sim -first 1 -seeds 200 -limit 240s -jobs "$jobs" -save build
	local fixed=$?
	echo "fresh seeds:"
	build/sim -first 0 -seeds 0 -limit 25s -jobs "$jobs" -save build || true
	return $fixed
}
part deps test/deps.sh
part check make --no-print-directory check
part sim simulate
part build make --no-print-directory binaries
part bindings lint_cgo
part drivers drivers
[ ${#failed[@]} -gt 0 ] && [[ " ${failed[*]} " == *" build "* ]] && { echo "0 passed, 1 failed, 0 skipped"; exit 1; }
echo "== lab"
began=$SECONDS
log=$(mktemp)
trap 'rm -f "$log"' EXIT
build/keepone-lab test -bin build -json build/test.json -jobs 2 | tee "$log" || failed+=(lab)
shares+=("lab $((SECONDS - began)) s")
echo
printf 'share: %s\n' "${shares[@]}"
build/keepone-lab shares -json build/test.json "${shares[@]}"
[ ${#failed[@]} -gt 0 ] && echo "failed parts: ${failed[*]}"
# The last line counts cases; a part outside of the lab that failed counts as one more.
read -r passed bad skipped < <(tail -1 "$log" | sed -E 's/[^0-9 ]//g')
for name in "${failed[@]}"; do [ "$name" = lab ] || bad=$((bad + 1)); done
echo "$passed passed, $bad failed, $skipped skipped"
[ ${#failed[@]} -eq 0 ]
