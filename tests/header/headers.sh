#!/bin/sh
# headers.sh BUILD_DIR: each public header compiles alone, as C99 and as C++17, without a warning; use.c links and runs.
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${1:-build}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
bad=0
n=0
try() { # HEADER COMPILER...
    h=$1
    shift
    n=$((n + 1))
    "$@" -pedantic-errors -Wall -Wextra -Werror -fsyntax-only -Iinclude "$tmp/$ext" || { echo "$h alone: $*"; bad=1; }
}
for h in include/edgewise/*.h; do
    printf '#include "edgewise/%s"\n#include "edgewise/%s"\nextern int ew_header_test;\nint ew_header_test;\n' \
        "$(basename "$h")" "$(basename "$h")" >"$tmp/t.c"
    cp "$tmp/t.c" "$tmp/t.cpp"
    ext=t.c
    for cc in gcc clang; do command -v $cc >/dev/null && try "$h" $cc -std=c99; done
    ext=t.cpp
    for cc in g++ clang++; do command -v $cc >/dev/null && try "$h" $cc -std=c++17; done
done
gcc -std=c99 -pedantic-errors -Wall -Wextra -Werror -Iinclude tests/header/use.c -o "$tmp/use" -L"$build" -ledgewise \
    -Wl,-rpath,"$(cd "$build" && pwd)" && "$tmp/use" || { echo "use.c does not build or run"; bad=1; }
echo "headers: $n compiled"
exit $bad
