#!/bin/sh
# clang-format agrees with every tracked C file (generated tables, the op table and golden data aside).
set -eu
cd "$(dirname "$0")/.."
if ! command -v clang-format >/dev/null; then
    echo "skipped: format (clang-format is not installed)"; exit 0
fi
bad=$(git ls-files '*.c' '*.h' | while read -r f; do clang-format --dry-run -Werror "$f" >/dev/null 2>&1 || echo "$f"; done)
if [ -n "$bad" ]; then echo "not formatted (make format):"; echo "$bad"; exit 1; fi
echo "format: ok"
