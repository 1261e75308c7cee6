#!/bin/sh
# File and function size (docs/HACKING.md): files <= 1000 lines (*_tables.c exempt), functions <= 120 lines.
set -eu
cd "$(dirname "$0")/.."
git ls-files '*.c' '*.h' | awk '
function base(p) { sub(/.*\//, "", p); return p }
{
    file = $0; n = 0; start = 0
    while ((getline text < file) > 0) {
        n++
        if (text == "{") start = n
        if (text == "}" && start) {
            if (n - start > 121) { print file ":" start ": function of " n - start - 1 " lines, at most 120"; bad = 1 }
            start = 0
        }
    }
    close(file)
    if (n > 1000 && base(file) !~ /_tables\.c$/) { print file ": " n " lines, at most 1000"; bad = 1 }
}
END { exit bad }
' && echo "sizes: ok"
