#!/bin/sh
# Include direction: a folder of src/ may include folders before it in the list (and itself), public headers always; tools/ and
# tests of the public API see include/edgewise alone. os and base are the floor and may include each other.
set -eu
cd "$(dirname "$0")/.."
git ls-files 'src/*.[ch]' 'tools/*.[ch]' | xargs grep -Hn '^#include "' | awk -F: '
BEGIN {
    n = split("base os cpu tensor op kernels graph onnx checkpoint pass plan backend build engine kv text sample quant runtime eval", order, " ")
    for (i = 1; i <= n; i++) rank[order[i]] = i
    rank["os"] = rank["base"]
}
{
    file = $1; line = $2; inc = $3
    sub(/^#include "/, "", inc); sub(/".*/, "", inc)
    split(file, f, "/"); split(inc, t, "/")
    if (t[1] == "edgewise") next
    if (f[1] == "tools") {
        if (inc ~ /\//) { print file ":" line ": tools may include edgewise/ only, not " inc; bad = 1 }
        next
    }
    if (inc ~ /^onnx\.pb-c\.h$/) next
    if (!(t[1] in rank)) { print file ":" line ": include path must start with a layer: " inc; bad = 1; next }
    if (rank[t[1]] > rank[f[2]]) { print file ":" line ": " f[2] " may not include " t[1] " (" inc ")"; bad = 1 }
}
END { exit bad }
' && echo "layers: ok"
