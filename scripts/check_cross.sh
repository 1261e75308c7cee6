#!/bin/sh
# check_cross.sh CC: every source of the library but src/kernels/x86 compiles for another processor (syntax and warnings; the
# packages of the target are not needed: headers of this machine stand in). Files with flags of their own: cross_checkkern.sh.
set -eu
cd "$(dirname "$0")/.."
cc=$1
generated=$(ls build*/generated/onnx.pb-c.h 2>/dev/null | head -n 1) # of a build that made it
generated=${generated%/*}
inc=$(mktemp -d)
trap 'rm -rf "$inc"' EXIT
# The third-party headers alone, without the host's libc around them.
for h in jansson.h jansson_config.h pcre2.h utf8proc.h xxhash.h xxh3.h histedit.h protobuf-c google; do
    for d in /usr/include /usr/include/x86_64-linux-gnu; do [ -e "$d/$h" ] && ln -sf "$d/$h" "$inc/$h"; done
done
git ls-files 'src/*.c' | grep -v -e '^src/kernels/x86/' -e '_dotprod\.c$' -e '_i8mm\.c$' -e '_armbf16\.c$' | xargs -P "$(nproc)" -n 8 "$cc" -std=c11 -D_GNU_SOURCE -O1 -Wall -Wextra \
    -Werror -fsyntax-only -Iinclude -Isrc ${generated:+-I"$generated"} -isystem "$inc"
echo "cross: ok"
