#!/usr/bin/env bash
# Runs every fuzz target for a while: each package's own corpus first, then what the fuzzer makes of it. A failing input is
# left in the package's testdata/fuzz, to be kept beside the fix.
set -uo pipefail
cd "$(dirname "$0")/.."
time=$1 part=$2 failed=0 count=0
export CGO_ENABLED=0
while read -r pkg; do
	for target in $(go test -list '^Fuzz' "$pkg" | grep '^Fuzz'); do
		[[ "$pkg $target" == *"$part"* ]] || continue
		echo "== $pkg $target"
		count=$((count + 1))
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$pkg" | tail -n 4 || failed=$((failed + 1))
	done
done < <(git grep -l '^func Fuzz' -- '*_test.go' | xargs -n1 dirname | sort -u | sed 's#^#./#')
echo "fuzz: targets=$count failed=$failed"
[ "$failed" -eq 0 ]
