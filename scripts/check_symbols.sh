#!/bin/sh
# The exported symbols of libedgewise.so against docs/abi/symbols.txt; --update rewrites the list.
set -eu
cd "$(dirname "$0")/.."
lib=${EW_LIB:-build/libedgewise.so}
now=$(mktemp)
trap 'rm -f "$now"' EXIT
nm -D --defined-only "$lib" | awk '$2 ~ /[TDBR]/ { print $3 }' | LC_ALL=C sort >"$now"
if grep -qv '^ew_' "$now"; then
    echo "symbols without ew_:"; grep -v '^ew_' "$now"; exit 1
fi
if [ "${1:-}" = "--update" ]; then
    mkdir -p docs/abi && cp "$now" docs/abi/symbols.txt && exit 0
fi
diff -u docs/abi/symbols.txt "$now" && echo "symbols: ok"
