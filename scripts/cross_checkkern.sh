#!/bin/sh
# cross_checkkern.sh CC OUT: builds tests/checkkern and the layers under it for AArch64 into the folder OUT, without packages of
# the target (headers of this machine stand in, and what would need their libraries is not linked).
set -eu
cd "$(dirname "$0")/.."
cc=$1
out=$2
command -v ccache >/dev/null && cc="ccache $cc"
mkdir -p "$out/include" "$out/objects"
for h in jansson.h jansson_config.h xxhash.h xxh3.h; do
    for d in /usr/include /usr/include/x86_64-linux-gnu; do [ -e "$d/$h" ] && ln -sf "$d/$h" "$out/include/$h"; done
done
sources=$(git ls-files --cached --others --exclude-standard src/base src/os src/cpu src/tensor src/op src/kernels tests/checkkern |
    grep '\.c$' | grep -v '^src/kernels/x86/')
# Lines of: source object flags; the names that cmake/kernels.cmake goes by.
for s in $sources; do
    o=$out/objects/$(echo "$s" | tr / _).o
    case $s in
    *_dotprod.c) isa=-march=armv8.2-a+dotprod ;;
    *_i8mm.c) isa=-march=armv8.2-a+dotprod+i8mm ;;
    *_armbf16.c) isa=-march=armv8.2-a+bf16 ;;
    *) isa=-march=armv8-a ;;
    esac
    echo "$s -o $o $isa"
done | xargs -P "$(nproc)" -L 1 $cc -std=c11 -D_GNU_SOURCE -O2 -Wall -Wextra -Werror -Wpedantic -Wshadow -Wconversion \
    -Wno-sign-conversion -fno-math-errno -ffp-contract=off -ffunction-sections -fdata-sections -Iinclude -Isrc -isystem "$out/include" -c
rm -f "$out/checkkern"
# shellcheck disable=SC2046
${cc#ccache } -Wl,--gc-sections -static -o "$out/checkkern" \
    $(for s in $sources; do echo "$out/objects/$(echo "$s" | tr / _).o"; done) -lm -lpthread
